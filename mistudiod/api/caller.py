"""Who asks, by which name and over what: as the connection says, and as a trusted proxy says of whom it asks for."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from mistudiod.errors import Invalid
from mistudiod.peer import address, is_proxied, is_unix, network_of, over_loopback, same_user
from mistudiod.proxies import Address, Proxies, asker, parse
from mistudiod.settings import Settings, is_loopback


@dataclass(frozen=True)
class Trust:
    """Who is believed beforehand. ``here``: whoever connects over loopback, for nobody else can."""

    here: bool
    proxies: Proxies


TRUST = web.AppKey("trust", Trust)


def trust_of(settings: Settings) -> Trust:
    return Trust(is_loopback(settings.listen), parse(settings.trusted_proxies))


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
    trust, peer = request.app[TRUST], address(request)
    hosts, secure = request.headers.getall("Host", []), request.secure
    # A proxy that does not say that it is one looks like this machine: where one may be, the kernel has to say who.
    # Of every caller: whoever connects from 127.0.0.2 has not the address of the proxy at 127.0.0.1.
    local = (is_unix(request) or (trust.here and over_loopback(request))) and not is_proxied(request)
    if trust.proxies.unix if peer is None else trust.proxies.networks:
        local = local and same_user(request)
    if not trust.proxies.trusts(peer):
        return Caller(peer, hosts, secure, local)
    return Caller(
        _asker(request, peer, trust.proxies),
        _once(request, "X-Forwarded-Host") or hosts,
        _is_https(_once(request, "X-Forwarded-Proto"), secure),
        local,
    )


def named(request: web.Request) -> str:
    """Whose address asks, for a log."""
    return str(caller_of(request).address or "this machine")


def network(request: web.Request) -> str | None:
    """By what name it is counted how often somebody was wrong; None for this machine.

    Whoever has one IPv6 address has a whole /64 of them.
    """
    found = caller_of(request).address
    if found is None or found.is_loopback:
        return None
    return network_of(found)


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
