"""The doors: by which names the daemon may be called, and from which pages it may be told to do something."""

from __future__ import annotations

import ipaddress
import logging
import secrets
import socket
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from aiohttp import web

from mistudiod.api.body import answer
from mistudiod.errors import Forbidden, NotFound, StudioError, TooLarge, WrongHost, WrongMethod

log = logging.getLogger("mistudiod.api")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'",
}


def allowed_hosts(listen: str, configured: str) -> frozenset[str]:
    """Host names by which we answer. Loopback always; others by name only when told (DNS rebinding)."""
    name = socket.gethostname().lower()
    more = [host.strip().lower() for host in configured.split(",") if host.strip()]
    return frozenset({"localhost", name, f"{name}.local", listen.lower(), *more})


def host_is_allowed(header: str, allowed: frozenset[str]) -> bool:
    try:
        host = urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return False
    host = host.rstrip(".")
    if host in allowed:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def errors() -> Callable[..., Awaitable[web.StreamResponse]]:
    """The one place where an exception becomes an answer."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        response: web.StreamResponse
        try:
            response = await handler(request)
        except StudioError as error:
            response = _refusal(error)
        except web.HTTPRequestEntityTooLarge:
            response = _refusal(TooLarge("the body is larger than 1 MiB"))
        except web.HTTPNotFound:
            response = _refusal(NotFound(f"there is nothing at {request.path}"))
        except web.HTTPMethodNotAllowed as refused:
            methods = ", ".join(sorted(refused.allowed_methods))
            response = _refusal(WrongMethod(f"{request.path} takes {methods}, not {request.method}"))
            response.headers["Allow"] = methods
        except web.HTTPException:
            raise
        except Exception:
            mark = secrets.token_hex(4)
            log.exception("%s %s failed (%s)", request.method, request.path, mark)
            response = _refusal(StudioError(f"something went wrong in the daemon; its log has the reason under {mark}"))
        if not response.prepared:
            response.headers.update(_HEADERS)
        return response

    return middleware


def _refusal(error: StudioError) -> web.Response:
    return answer(error.body(), error.status)


def doors(allowed: frozenset[str]) -> Callable[..., Awaitable[web.StreamResponse]]:
    """Refuse a wrong Host, and any change that another site's page asks for."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        hosts = request.headers.getall("Host", [])
        if len(hosts) != 1 or not host_is_allowed(hosts[0], allowed):
            raise WrongHost("this studio does not answer to that host name; add it to the setting allowed_hosts")
        if request.method not in _SAFE:
            _refuse_foreign_page(request, hosts[0])
        return await handler(request)

    return middleware


def _refuse_foreign_page(request: web.Request, host: str) -> None:
    """What Go 1.25's CrossOriginProtection does: Sec-Fetch-Site decides; without it Origin must be our own."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        foreign = site not in ("same-origin", "none")
    else:
        origin = request.headers.get("Origin")
        foreign = origin is not None and urlsplit(origin).netloc.lower() != host.lower()
    if foreign:
        raise Forbidden("another site's page may not change anything here")
