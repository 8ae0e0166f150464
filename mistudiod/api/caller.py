"""Who asks, by which name and over what: as the connection says, and as a trusted proxy says of whom it asks for."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from mistudiod.api.keys import SETTINGS
from mistudiod.errors import Invalid
from mistudiod.peer import is_proxied, is_unix, same_user
from mistudiod.proxies import Address, Proxies, asker, parse, plain
from mistudiod.settings import is_loopback

_GONE = "0.0.0.0"  # it has hung up meanwhile


@dataclass(frozen=True)
class Caller:
    """``address``: None on the UNIX socket. ``hosts``: the Host headers, or what a trusted proxy says in their place.

    ``secure``: the caller's end of the line speaks TLS. ``local``: it is on this machine beyond doubt, and needs no
    token.
    """

    address: Address | None
    hosts: list[str]
    secure: bool
    local: bool


def caller_of(request: web.Request) -> Caller:
    """Raises Invalid when a trusted proxy says what cannot be."""
    trusted = parse(request.app[SETTINGS].trusted_proxies)
    peer = None if is_unix(request) else plain(request.remote or _GONE)
    is_proxy = trusted.trusts(peer)
    hosts, secure = request.headers.getall("Host", []), request.secure
    address = peer
    if is_proxy:
        hosts = _once(request, "X-Forwarded-Host") or hosts
        secure = _is_https(_once(request, "X-Forwarded-Proto"), secure)
        address = _asker(request, peer, trusted)
    return Caller(address, hosts, secure, _is_local(request, is_proxy))


def _is_local(request: web.Request, is_proxy: bool) -> bool:
    """A proxy that does not say that it is one looks like this machine: where one may be, the kernel has to say who."""
    here = is_unix(request) or is_loopback(request.app[SETTINGS].listen)
    return here and not is_proxied(request) and (not is_proxy or same_user(request))


def _asker(request: web.Request, peer: Address | None, trusted: Proxies) -> Address | None:
    said = request.headers.getall("X-Forwarded-For", [])
    try:
        return asker(peer, said, trusted)
    except ValueError:
        raise Invalid(
            f"X-Forwarded-For must be addresses with commas between, not {', '.join(said)!r}: mend the proxy"
        ) from None


def _once(request: web.Request, name: str) -> list[str]:
    said = request.headers.getall(name, [])
    if len(said) > 1 or any("," in one for one in said):
        raise Invalid(f"{name} must be given once, not as {', '.join(said)!r}: the proxy must set it, not add to it")
    return said


def _is_https(said: list[str], otherwise: bool) -> bool:
    if not said:
        return otherwise
    if said[0].lower() not in ("http", "https"):
        raise Invalid(f"X-Forwarded-Proto must be http or https, not {said[0]!r}: mend the proxy")
    return said[0].lower() == "https"
