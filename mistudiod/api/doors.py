"""The doors, in their order: limits, Host, method and Origin, authentication, scope, content type. Deny by default."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from aiohttp import web

from mistudiod.api import cookies
from mistudiod.api.caller import caller_of
from mistudiod.api.keys import SETTINGS, SLOWED, TOKENS
from mistudiod.api.openai_errors import is_openai
from mistudiod.api.route import BODY_BYTES, Route
from mistudiod.errors import Forbidden, Invalid, TooLarge, Unauthorized, WrongContentType, WrongHost
from mistudiod.proxies import plain
from mistudiod.tokens import Scope, Token, allows, is_meant_for_us

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
ROUTE = "mistudio_route"  # attribute of a handler: its Route
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_URL_CHARACTERS = 4096


def doors(allowed: frozenset[str]) -> Callable[..., Awaitable[web.StreamResponse]]:
    """The middleware that every request passes before anything of it is believed."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        route: Route | None = getattr(request.match_info.handler, ROUTE, None)
        _limits(request, route)
        host = _host(request, allowed)
        # Reading has no effect, but some answers cost much: a browser that says whose page asks is heeded there too.
        answers = request.path.startswith("/api/") or is_openai(request)
        if request.method not in _SAFE or (answers and "Sec-Fetch-Site" in request.headers):
            _refuse_foreign_page(request, host)
        granted = _NOBODY
        if route is None or route.scope is not None:
            granted = await authenticate(request)
            _refuse_lesser(granted, route)
        if route is not None:
            _content_type(request, route)
        elif request.match_info.http_exception is None:
            raise Forbidden("this route has no scope, so nobody may use it")
        await _continue(request)
        if route is None or not route.streams:
            return await handler(request)
        with while_good(request.app, granted, functools.partial(_hang_up, request)):
            return await handler(request)

    return middleware


def _refuse_lesser(granted: Granted, route: Route | None) -> None:
    if route is None or route.scope is None or allows(granted.scope, route.scope):
        return
    if granted.by_cookie:
        raise Forbidden(
            f"this browser was let in with the scope {granted.scope.value}, and this needs {route.scope.value}: "
            "log in with a code or token that has it"
        )
    raise Forbidden(f"this token may {granted.scope.value}; {route.name} needs the scope {route.scope.value}")


def _hang_up(request: web.Request) -> None:
    """Whoever writes an answer finds that its reader has gone."""
    if request.transport is not None:
        request.transport.abort()


async def _continue(request: web.Request) -> None:
    """Only now may a sender who waits for it (Expect) send the body."""
    expected = request.headers.get("Expect")
    if expected is None or request.version < (1, 1):
        return
    if expected.lower() != "100-continue":
        raise Invalid("Expect can be 100-continue only")
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0  # what was written is no part of the answer


def _limits(request: web.Request, route: Route | None) -> None:
    if len(request.raw_path) > _URL_CHARACTERS:
        raise TooLarge(f"the address is longer than {_URL_CHARACTERS} characters")
    limit = route.body_bytes if route is not None else BODY_BYTES
    if route is not None and route.raw:
        limit = request.app[SETTINGS].upload_limit_bytes
    if (request.content_length or 0) > limit:
        raise TooLarge(f"the body is larger than {limit:,} bytes")


def allowed_hosts(listen: str, configured: str) -> frozenset[str]:
    """Host names by which we answer, besides loopback; others only when told (DNS rebinding)."""
    name = socket.gethostname().lower()
    more = [host.strip().lower() for host in configured.split(",") if host.strip()]
    return frozenset({"localhost", name, f"{name}.local", listen.lower(), *more})


def _host(request: web.Request, allowed: frozenset[str]) -> str:
    """The host by which the caller asks, when it is one of ours. Raises WrongHost."""
    hosts = caller_of(request).hosts
    # GET http://name/ would name another host than the header does.
    if len(hosts) == 1 and request.raw_path.startswith("/") and _is_ours(request, hosts[0], allowed):
        return hosts[0]
    raise WrongHost("this studio does not answer to that host name; add it to the setting allowed_hosts")


def _is_ours(request: web.Request, header: str, allowed: frozenset[str]) -> bool:
    if any(c in header for c in "/?#@\\ "):
        return False
    try:
        parts = urlsplit(f"//{header}")
        host, _ = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        return False
    if host in allowed:
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    # A page that rebinds DNS comes with a name: the address at which we were reached is no name.
    own = request.transport.get_extra_info("sockname") if request.transport else None
    return address.is_loopback or (isinstance(own, tuple) and address == plain(own[0]))


def _refuse_foreign_page(request: web.Request, host: str) -> None:
    """What Go 1.25's CrossOriginProtection does: Sec-Fetch-Site decides; without it Origin must be our own."""
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None:
        foreign = site not in ("same-origin", "none")
    else:
        foreign = origin is not None and origin.lower().partition("://")[2] != host.lower()
    if foreign:
        raise Forbidden("another site's page may not ask anything here")


@dataclass(frozen=True)
class Granted:
    """What a caller may do, and by which token; None: it needs none."""

    scope: Scope
    token: Token | None = None
    by_cookie: bool = False


_NOBODY = Granted(Scope.READ)  # where anybody may ask


@contextlib.contextmanager
def while_good(app: web.Application, granted: Granted, end: Callable[[], object]) -> Iterator[None]:
    """For what goes on for long: ``end`` is called when the token that let it in is revoked or has expired."""
    if granted.token is None:
        yield
        return
    waiting = asyncio.create_task(app[TOKENS].until_over(granted.token))
    waiting.add_done_callback(lambda done: done.cancelled() or end())
    try:
        yield
    finally:
        waiting.cancel()


async def authenticate(request: web.Request) -> Granted:
    """What the caller may do. Where it is local everything, unless it brings a token of its own.

    Raises Unauthorized; TooOften.
    """
    given = request.headers.getall("Authorization", [])
    if caller_of(request).local and (not given or (is_openai(request) and _is_anybodys_key(given))):
        return Granted(Scope.ADMIN)
    if not given and (text := cookies.token_in(request)):
        return await _by_cookie(request, text)
    if not given:
        raise Unauthorized("a token is needed: send Authorization: Bearer TOKEN (mistudio token create makes one)")
    kind, _, text = given[0].partition(" ")
    token = await request.app[TOKENS].check(text.strip()) if kind.lower() == "bearer" and len(given) == 1 else None
    if token is None:
        await request.app[SLOWED].wrong_token(request)
        raise Unauthorized("this token is not known here, or no longer good (mistudio token create makes one)")
    return Granted(token.scope, token)


async def _by_cookie(request: web.Request, text: str) -> Granted:
    """A wrong one is not slowed down: a page that was open when it was logged out asks for much at once."""
    token = await request.app[TOKENS].check(text)
    if token is None:
        raise Unauthorized("this browser is not logged in any more: log in at /login")
    return Granted(token.scope, token, by_cookie=True)


def _is_anybodys_key(given: list[str]) -> bool:
    """Whether what was brought is a key that cannot be one of our tokens, and so is as good as none.

    OpenAI's clients do not start without a key, and send "none", "x" or that of their cloud. Where no token is needed
    that opens nothing which no header at all would not. What may be a token of ours, revoked or cut off, is none of
    these: whoever brings one wants no more than its scope, and is told that it is no longer good.
    """
    kind, _, text = given[0].partition(" ")
    return len(given) == 1 and kind.lower() == "bearer" and not is_meant_for_us(text.strip())


def _content_type(request: web.Request, route: Route) -> None:
    if any(one.lower() != "identity" for one in request.headers.getall("Content-Encoding", [])):
        raise WrongContentType("send the body as it is, without a Content-Encoding")
    wanted = "application/octet-stream" if route.raw else "application/json"
    needs_body = route.raw or route.body is not None
    if (needs_body or request.body_exists) and request.content_type != wanted:
        raise WrongContentType(f"the body must be {wanted}, not {request.content_type}")
