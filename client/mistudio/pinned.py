"""TLS with a studio that is known by its certificate, and by nothing else: no name, no authority."""

from __future__ import annotations

import hashlib
import hmac
import re
import socket
import ssl
from typing import Any
from urllib.parse import urlsplit

from mistudio.errors import Unreachable, WrongCertificate

_LIMIT_S = 10.0
_PORT = 443  # of an https URL that names none


class Pinned(ssl.SSLContext):
    """Of connections to one studio. Raises WrongCertificate, before anything is sent, when another answers."""

    def __new__(cls, *_: str) -> Pinned:
        return super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)

    def __init__(self, url: str, fingerprint: str) -> None:
        self._url, self._fingerprint = url, fingerprint
        self.check_hostname, self.verify_mode = False, ssl.CERT_NONE

    def wrap_socket(self, *args: Any, **options: Any) -> ssl.SSLSocket:
        wrapped = super().wrap_socket(*args, **options)
        found = _fingerprint(wrapped)
        if hmac.compare_digest(found, self._fingerprint):
            return wrapped
        wrapped.close()
        raise WrongCertificate(
            f"what answers at {self._url} has another certificate than the studio: its fingerprint is {found}, "
            f"and {self._fingerprint} is known. If the studio's own was made anew (mistudiod certificate shows it), "
            "pair again: mistudio context add NAME HOST --pair CODE"
        )


def certificate_of(url: str) -> str:
    """The fingerprint of whoever answers there. Raises Unreachable."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        with (
            socket.create_connection((host, parts.port or _PORT), _LIMIT_S) as plain,
            context.wrap_socket(plain, server_hostname=host) as wrapped,
        ):
            return _fingerprint(wrapped)
    except ssl.SSLError as error:
        raise Unreachable(f"what answers at {url} speaks no TLS; does the studio listen there?") from error
    except OSError as error:
        raise Unreachable(f"no studio answers at {url}: {error.strerror or error}") from error


def parse(text: str) -> str:
    """A fingerprint as it is written here, ``AA:BB:…``. Raises ValueError."""
    plain = re.sub(r"[:\s]", "", text).upper()
    if not re.fullmatch("[0-9A-F]{64}", plain):
        raise ValueError(f"{text!r} is no fingerprint: give the 64 digits that mistudiod certificate prints")
    return ":".join(plain[at : at + 2] for at in range(0, len(plain), 2))


def _fingerprint(connection: ssl.SSLSocket) -> str:
    return parse(hashlib.sha256(connection.getpeercert(binary_form=True) or b"").hexdigest())
