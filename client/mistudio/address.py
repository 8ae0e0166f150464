"""Where the studio is: what was asked for, else the environment, else the chosen context, else this machine."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from mistudio import contexts
from mistudiod.socket_path import reachable

PORT = 6478
UNIX = "unix:"
SERVICE = Path("/run/mistudio/api.sock")  # open to the members of the group mistudio
_ACCEPT_S = 1.0


@dataclass(frozen=True)
class Address:
    """``url`` is ``http://host:port``, ``https://…`` or ``unix:/path``; ``said_by`` tells who named it.

    ``fingerprint``: of the one certificate that is accepted there; None: those that an authority has signed.
    """

    url: str
    said_by: str
    token: str | None = field(default=None, repr=False)
    fingerprint: str | None = None


def find(host: str | None, context: str | None, environ: Mapping[str, str], fingerprint: str | None = None) -> Address:
    """The studio of a call. Raises ValueError with a sentence when there is no such host or context.

    A token belongs to its context: it is sent nowhere else. MISTUDIO_TOKEN goes before it. ``fingerprint``, else
    MISTUDIO_FINGERPRINT, is of a host that was given, or of MISTUDIO_HOST.
    """
    given = environ.get("MISTUDIO_TOKEN")
    pinned = fingerprint or environ.get("MISTUDIO_FINGERPRINT")
    if host:
        return _pinned(Address(to_url(host), "the host given", given), host, pinned)
    if not context and (host := environ.get("MISTUDIO_HOST")):
        return _pinned(Address(to_url(host), "MISTUDIO_HOST", given), host, pinned)
    known = contexts.read(environ)
    for name, said_by in (
        (context, "the context given"),
        (environ.get("MISTUDIO_CONTEXT"), "MISTUDIO_CONTEXT"),
        (known.chosen, "mistudio context use"),
    ):
        if name == contexts.LOCAL:
            break
        if name:
            found = known.get(name)
            about = Address(to_url(found.host), f"{said_by}: {name}", given or found.token)
            return _pinned(about, found.host, found.fingerprint)
    return Address(_local(environ), "this machine", given)


def _pinned(address: Address, host: str, fingerprint: str | None) -> Address:
    if not fingerprint or address.url.startswith(UNIX):
        return address
    from mistudio.pinned import parse

    return replace(address, url=to_https(host), fingerprint=parse(fingerprint))


def to_https(host: str) -> str:
    """The URL of a studio that is known by its certificate. Raises ValueError."""
    url = to_url(host)
    if url.startswith(UNIX) or ("://" in host and not url.startswith("https:")):
        raise ValueError(f"{host!r} has no certificate: give a host, or an address that begins with https://")
    return f"https:{url.partition(':')[2]}"


def to_url(host: str) -> str:
    """From ``10.0.0.7``, ``jetson:6478``, ``unix:/path/mistudiod.sock`` or a full URL. Raises ValueError."""
    given = host.strip()
    if given.startswith(UNIX):
        if not given.removeprefix(UNIX).startswith("/"):
            raise ValueError(f"{given!r} is no host: after unix: comes the absolute path of a socket")
        return given
    url = given if "://" in given else _with_port(given)
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
        (parts.hostname or "").encode("idna")  # as it is when it is looked up
    except ValueError:
        usable = False
    if not usable or any(c.isspace() for c in url):
        raise ValueError(
            f"{given!r} is no host: give a name or address, one with a port, a URL (http://jetson:6478) "
            "or a socket (unix:/path/mistudiod.sock)"
        )
    return url.rstrip("/")


def is_in_the_open(url: str) -> bool:
    """Whether what is said there can be read on its way: plain HTTP to another machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        here = host == "localhost"
    return parts.scheme == "http" and not here


def _with_port(host: str) -> str:
    try:
        if ipaddress.ip_address(host).version == 6:
            return f"http://[{host}]:{PORT}"
    except ValueError:
        pass
    has_port = ":" in host.rpartition("]")[2]
    return f"http://{host}" if has_port else f"http://{host}:{PORT}"


def _local(environ: Mapping[str, str]) -> str:
    """A UNIX socket on which a studio lets us in: that of this user, else that of the machine's service. A port alone
    says which studio; beside a data folder it does not, and what others reach by it speaks TLS.
    """
    port, data = environ.get("MISTUDIO_PORT"), environ.get("MISTUDIO_DATA")
    if port and not data:
        return to_url(f"127.0.0.1:{port}")
    base = environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    own = Path(data or os.path.join(base, "mistudio")).expanduser().absolute() / "mistudiod.sock"
    for path in [own] if data else [own, SERVICE]:
        if _accepts(path):
            return f"{UNIX}{path}"
    return to_url(f"127.0.0.1:{port or PORT}")


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as door:
        door.settimeout(_ACCEPT_S)
        try:
            with reachable(path) as name:
                door.connect(name)
        except OSError:  # nobody there, or not ours
            return False
    return True


def understand_each_other(one: str, other: str) -> bool:
    """By semantic versioning: the first number that is not 0 must be the same."""
    for a, b in zip(one.split(".")[:2], other.split(".")[:2], strict=False):
        if a != b:
            return False
        if a != "0":
            return True
    return True
