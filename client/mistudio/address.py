"""Where the studio is, and whether this client can talk to it."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

PORT = 6478


def base_url(host: str | None, environ: Mapping[str, str]) -> str:
    """The studio's URL from ``10.0.0.7``, ``jetson:6478`` or a full URL; else MISTUDIO_HOST; else this machine.

    Raises ValueError with a sentence when the host cannot be one.
    """
    given = (host or environ.get("MISTUDIO_HOST") or f"127.0.0.1:{environ.get('MISTUDIO_PORT') or PORT}").strip()
    url = given if "://" in given else _with_port(given)
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or any(c.isspace() for c in url):
        raise ValueError(
            f"{given!r} is no host: give a name or address, one with a port, or a URL (http://jetson:6478)"
        )
    return url.rstrip("/")


def _with_port(host: str) -> str:
    try:
        if ipaddress.ip_address(host).version == 6:
            return f"http://[{host}]:{PORT}"
    except ValueError:
        pass
    has_port = ":" in host.rpartition("]")[2]
    return f"http://{host}" if has_port else f"http://{host}:{PORT}"


def understand_each_other(one: str, other: str) -> bool:
    """By semantic versioning: the first number that is not 0 must be the same."""
    for a, b in zip(one.split(".")[:2], other.split(".")[:2], strict=False):
        if a != b:
            return False
        if a != "0":
            return True
    return True
