"""A route: what it takes, what it gives and who may use it. The server and the OpenAPI document read the same lines."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from aiohttp import web
from pydantic import BaseModel

from mistudiod.api.body import answer, check, etag, matches, read_json
from mistudiod.errors import Invalid, NotFound, StudioError
from mistudiod.tokens import Scope

BODY_BYTES = 1 << 20
_BODY_LIMIT_S = 30.0

Q = TypeVar("Q")
Handler = Callable[["Asked[Any]"], Awaitable[Any]]


@dataclass(frozen=True)
class Asked(Generic[Q]):
    """A request that has passed every door, with its parts as the route's models."""

    request: web.Request
    path: Any
    query: Q
    body: Any

    @property
    def app(self) -> web.Application:
        return self.request.app


@dataclass(frozen=True)
class Route:
    """``path``, ``query``, ``body`` and ``answer`` are pydantic models; a route without an answer gives 204.

    ``scope``: of the token that it needs; None: anybody may ask.

    ``media`` other than JSON: the handler makes the response itself. ``raw``: it reads the body itself, up to a limit
    of its own; otherwise a body has ``body_bytes`` at most. ``tagged``: the answer has an ETag. ``streams``: a body
    that asks for it is answered with events instead, as they come. ``also``: the media type of another form of the
    answer, which the query may ask for; its handler makes that itself. ``headers``: what it heeds besides, and why.
    """

    method: str
    template: str
    handler: Handler
    scope: Scope | None
    name: str
    answer: type[BaseModel] | None = None
    status: int = 200
    path: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    refusals: tuple[type[StudioError], ...] = ()
    media: str = "application/json"
    raw: bool = False
    body_bytes: int = BODY_BYTES
    tagged: bool = False
    streams: bool = False
    also: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def about(self) -> str:
        return inspect.cleandoc(self.handler.__doc__ or "")

    async def respond(self, request: web.Request) -> web.StreamResponse:
        path = _part(self.path, dict(request.match_info), NotFound)
        query = _part(self.query, _once(request), Invalid)
        body = None if self.raw else await self._read(request)
        given = await self._handled(Asked(request, path, query, body))
        if isinstance(given, web.StreamResponse):
            return given
        if self.answer is None:
            return web.Response(status=204)
        status, given = given if isinstance(given, tuple) else (self.status, given)
        response = answer(given, status)
        if self.tagged:
            response.headers["ETag"] = etag(given)
            if request.method in ("GET", "HEAD") and matches(request.headers.get("If-None-Match"), given):
                return web.Response(status=304, headers={"ETag": response.headers["ETag"]})
        return response

    async def _handled(self, asked: Asked[Any]) -> Any:
        """A change that has begun is finished, also when its asker has gone: otherwise half of it would stay."""
        if self.method == "GET" or self.raw or self.streams:
            return await self.handler(asked)
        task = asyncio.ensure_future(self.handler(asked))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # perhaps nobody is left to hear it
        return await asyncio.shield(task)

    async def _read(self, request: web.Request) -> Any:
        try:
            data = await asyncio.wait_for(request.clone(client_max_size=self.body_bytes).read(), _BODY_LIMIT_S)
        except asyncio.TimeoutError:
            raise Invalid(f"the body did not come within {_BODY_LIMIT_S:.0f} s") from None
        except (web.RequestPayloadError, ConnectionError):
            raise Invalid("the body was cut off or damaged on its way; send it again") from None
        if self.body is not None:
            return check(read_json(data), self.body)
        if data and read_json(data) != {}:
            raise Invalid(f"{self.method} {request.path} takes no body")
        return None


def route(method: str, template: str, *, scope: Scope | None, **about: Any) -> Callable[[Handler], Route]:
    """Make a handler a Route; its name is the operation's, its docstring the description."""

    def declare(handler: Handler) -> Route:
        return Route(method, template, handler, scope, name=handler.__name__, **about)

    return declare


def _part(model: type[BaseModel] | None, found: Mapping[str, str], refusal: type[StudioError]) -> Any:
    if model is None:
        if found and refusal is Invalid:
            raise Invalid(f"there is no parameter {next(iter(found))!r} here")
        return None
    try:
        return check(dict(found), model)
    except Invalid as error:
        if refusal is Invalid:
            raise
        raise refusal(f"there is no such thing ({error.message})") from None


def _once(request: web.Request) -> dict[str, str]:
    for name in request.query:
        if len(request.query.getall(name)) > 1:
            raise Invalid(f"{name} is given more than once", {name: "is given more than once"})
    return dict(request.query)
