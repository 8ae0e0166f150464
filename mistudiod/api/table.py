"""Every route there is."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

from aiohttp import web

from mistudiod.api import (
    answers,
    artifacts,
    backup,
    disk,
    doctor,
    endpoints,
    exports,
    feature_text,
    features,
    files,
    inspect,
    jobs,
    labels,
    library,
    login,
    metrics,
    openai,
    pairings,
    plan,
    previews,
    profiles,
    running,
    secrets,
    session,
    settings,
    steer,
    steerings,
    stream,
    system,
    templates,
    tokens,
    uploads,
)
from mistudiod.api.doors import ROUTE
from mistudiod.api.openapi import document
from mistudiod.api.route import Asked, Route, route
from mistudiod.tokens import Scope


@route("GET", "/api/openapi.json", scope=Scope.READ, answer=answers.Document)
async def show_document(asked: Asked[None]) -> Any:
    """Describe this API (OpenAPI 3.1)."""
    return _document()


@functools.cache
def _document() -> dict[str, Any]:
    return document(ROUTES)


ROUTES: tuple[Route, ...] = (
    *system.ROUTES,
    show_document,
    doctor.show_doctor,
    metrics.show_metrics,
    stream.events,
    *jobs.ROUTES,
    running.list_running,
    *session.ROUTES,
    *plan.ROUTES,
    *artifacts.ROUTES,
    *library.ROUTES,
    *disk.ROUTES,
    *backup.ROUTES,
    *features.ROUTES,
    *feature_text.ROUTES,
    *labels.ROUTES,
    *endpoints.ROUTES,
    *templates.ROUTES,
    *steer.ROUTES,
    *steerings.ROUTES,
    *profiles.ROUTES,
    *openai.ROUTES,
    *previews.ROUTES,
    *inspect.ROUTES,
    *files.ROUTES,
    *exports.ROUTES,
    *uploads.ROUTES,
    tokens.list_tokens,
    tokens.create_token,
    tokens.revoke_token,
    pairings.create_pairing,
    pairings.pair,
    *login.ROUTES,
    secrets.list_secrets,
    secrets.set_secret,
    secrets.remove_secret,
    *settings.ROUTES,
)


async def _expect(request: web.Request) -> None:
    """aiohttp would answer Expect before any door: the doors do it, once they let the request pass."""


def add(router: web.UrlDispatcher, routes: Iterable[Route]) -> None:
    """Mount routes so that the doors find what each has declared."""
    for one in routes:

        async def handle(request: web.Request, one: Route = one) -> web.StreamResponse:
            return await one.respond(request)

        setattr(handle, ROUTE, one)
        if one.method == "GET":
            router.add_get(one.template, handle, allow_head=one.media != "text/event-stream", expect_handler=_expect)
        else:
            router.add_route(one.method, one.template, handle, expect_handler=_expect)
