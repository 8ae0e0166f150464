"""The Hub, and the certificate that others know the studio by."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from datetime import datetime, timedelta, timezone

from mistudiod import tls
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
    """How long the certificate is good for that other machines are shown; None when there is none yet."""
    try:
        pair = tls.pair(subject.settings)
        if not pair.exists():
            return None
        pair.context()
        _, end = pair.about()
    except tls.BadCertificate as error:
        what, _, remedy = str(error).partition(": ")
        return Finding("certificate", "problem", what, remedy)
    remedy = "run: mistudiod certificate --renew; other machines then ask once more whether it is this studio"
    if not pair.own:
        remedy = "renew it where it was made (the settings tls_certificate and tls_key), and start the studio again"
    left = end - datetime.now(timezone.utc)
    if left <= timedelta(0):
        return Finding("certificate", "problem", f"it was good until {end:%Y-%m-%d}: nobody can connect", remedy)
    if left <= _SOON:
        return Finding("certificate", "warning", f"it is good for {left.days} more days", remedy)
    return Finding("certificate", "ok", f"good until {end:%Y-%m-%d}")
