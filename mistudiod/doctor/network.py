"""The Hub, and the certificate that others know the studio by."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from datetime import datetime, timedelta, timezone
from pathlib import Path

from mistudiod.doctor.finding import Finding, Subject
from mistudiod.gpu import LIMIT_S, Patience

_HUB = "https://huggingface.co"
_SOON = timedelta(days=30)
_TRUE = {"1", "ON", "YES", "TRUE"}  # as huggingface_hub reads its variables


def hub(subject: Subject) -> Finding:
    """Whether anything answers where models and datasets come from; nobody is asked when the studio is offline."""
    if subject.settings.offline or os.environ.get("HF_HUB_OFFLINE", "").upper() in _TRUE:
        return Finding("hub", "ok", "offline: nothing is fetched, what is in the cache works")
    endpoint = os.environ.get("HF_ENDPOINT") or _HUB
    trouble = Patience(lambda: _trouble(endpoint)).ask()  # a name may take the resolver much longer
    if trouble is None:
        trouble = f"no answer within {LIMIT_S:.0f} s"
    if not trouble:
        return Finding("hub", "ok", f"{endpoint} answers")
    return Finding(
        "hub", "warning", f"{endpoint} cannot be reached ({trouble}): what is in the cache works, nothing is fetched",
        "see that the network and a proxy (HTTPS_PROXY) work, or start the studio with --offline true",
    )  # fmt: skip


def _trouble(endpoint: str) -> str:
    """Empty when it answers, whatever it says."""
    try:
        with urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=LIMIT_S):
            return ""
    except urllib.error.HTTPError as answer:
        answer.close()
        return f"it says {answer.code}" if answer.code >= 500 else ""
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return getattr(reason, "strerror", None) or str(reason)


def certificate(subject: Subject) -> Finding | None:
    """How long the certificate in the data folder is good for."""
    path = subject.settings.data / "tls" / "certificate.pem"
    if not path.exists():
        return None
    end = _end_of(path)
    remedy = "run: mistudiod certificate --renew; other machines then ask once more whether it is this studio"
    if end is None:
        return Finding("certificate", "problem", f"{path} cannot be read as a certificate", remedy)
    left = end - datetime.now(timezone.utc)
    if left <= timedelta(0):
        return Finding("certificate", "problem", f"it was good until {end:%Y-%m-%d}: nobody can connect", remedy)
    if left <= _SOON:
        return Finding("certificate", "warning", f"it is good for {left.days} more days", remedy)
    return Finding("certificate", "ok", f"good until {end:%Y-%m-%d}")


def _end_of(path: Path) -> datetime | None:
    from cryptography import x509  # 10 MB, which a studio that nobody else reaches does without

    try:
        found = x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError:
        return None
    return found.not_valid_after_utc
