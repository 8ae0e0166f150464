"""The one place where an exception becomes an answer, and where every answer gets its safe headers."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable

from aiohttp import web

from mistudiod.api.body import encoded
from mistudiod.api.openai_errors import is_openai, openai_body, openai_headers
from mistudiod.errors import NotFound, StudioError, TooLarge, TooOften, Unauthorized, WrongMethod
from mistudiod.redact import PROCESS

log = logging.getLogger("mistudiod.api")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def safe_headers(policy: str) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """For ``on_response_prepare``. ``policy``: the Content-Security-Policy."""
    headers = {
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Content-Security-Policy": policy,
    }

    async def add(request: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(headers)
        if request.path.startswith("/api/") or is_openai(request):
            response.headers.setdefault("Cache-Control", "no-store")

    return add


def refusals() -> Callable[..., Awaitable[web.StreamResponse]]:
    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        response: web.StreamResponse
        try:
            response = await handler(request)
        except StudioError as error:
            response = _refusal(request, error)
        except web.HTTPRequestEntityTooLarge:
            response = _refusal(request, TooLarge("the body is larger than this route takes"))
        except web.HTTPNotFound:
            response = _refusal(request, NotFound(f"there is nothing at {request.path}"))
        except web.HTTPMethodNotAllowed as refused:
            methods = ", ".join(sorted(refused.allowed_methods))
            response = _refusal(request, WrongMethod(f"{request.path} takes {methods}, not {request.method}"))
            response.headers["Allow"] = methods
        except web.HTTPException:
            raise
        except Exception:  # noqa: BLE001 - unforeseen() logs it
            response = _refusal(request, unforeseen(request))
        return response

    return middleware


def unforeseen(request: web.Request) -> StudioError:
    """What is said of an exception that nobody expected; the log has the rest."""
    mark = secrets.token_hex(4)
    log.exception("%s %s failed (%s)", request.method, request.path, mark)
    return StudioError(f"something went wrong in the daemon; its log has the reason under {mark}")


def error_text(request: web.Request, error: StudioError) -> str:
    """The error object, in OpenAI's shape below /v1."""
    # A path or a field's name that is repeated may be a secret that was put in the wrong place.
    return PROCESS.hide(encoded(openai_body(error) if is_openai(request) else error.body()))


def _refusal(request: web.Request, error: StudioError) -> web.Response:
    if request.writer.output_size and request.transport is not None:
        # A second answer within the first would be taken for a part of it: the reader is to see that it breaks off.
        log.error("%s %s breaks off: %s", request.method, request.path, error)
        request.transport.abort()
    text = error_text(request, error).encode(errors="replace")
    response = web.Response(body=text, status=error.status, content_type="application/json")
    if isinstance(error, Unauthorized):
        response.headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, TooOften):
        response.headers["Retry-After"] = str(error.retry_after_s)
    if is_openai(request):
        response.headers.update(openai_headers(error))
    return response
