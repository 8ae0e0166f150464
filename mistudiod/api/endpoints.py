"""Endpoints: whom labels and scores may be asked of. They are a setting: an admin's act."""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic import Field

from mistudiod.api.fields import Fields
from mistudiod.api.keys import COMMAND, KEPT, PATHS, SECRETS, SETTINGS
from mistudiod.api.route import Asked, route
from mistudiod.errors import NotFound, TooMany
from mistudiod.giving import is_here
from mistudiod.preview import PreviewFailed, preview
from mistudiod.secret import SecretsUnusable
from mistudiod.specs import TryEndpoint
from mistudiod.tokens import Scope

_PAUSE_S = 2.0  # between two tries of one endpoint
_trying: set[str] = set()


class Endpoint(Fields):
    name: str
    url: str
    on_this_machine: bool = Field(description="it works on this machine's GPU")
    has_secret: bool
    secret_name: str | None = Field(description="under which its secret is kept; null: it cannot have one")


class Endpoints(Fields):
    endpoints: list[Endpoint]


class EndpointPath(Fields):
    name: str = Field(description="what the settings call it")


class EndpointModels(Fields):
    models: list[str] = Field(description="by name")
    left_out: int = Field(description="how many the answer had no room for")


@route("GET", "/api/endpoints", scope=Scope.READ, answer=Endpoints, refusals=(SecretsUnusable,))
async def list_endpoints(asked: Asked[None]) -> Any:
    """List the endpoints that a job may name."""
    found = [one for _, one in sorted(asked.app[KEPT].now.known_endpoints.items())]
    here = await asyncio.gather(*map(is_here, found))
    secrets = {one.name for one in await asyncio.to_thread(asked.app[SECRETS].all)}
    return {
        "endpoints": [
            {
                "name": one.name,
                "url": one.url,
                "on_this_machine": near,
                "has_secret": one.secret_name in secrets,
                "secret_name": one.secret_name,
            }
            for one, near in zip(found, here, strict=True)
        ]
    }


@route("POST", "/api/endpoints/{name}/models", scope=Scope.WRITE, path=EndpointPath, answer=EndpointModels,
       refusals=(NotFound, TooMany, PreviewFailed, SecretsUnusable))  # fmt: skip
async def try_endpoint(asked: Asked[None]) -> Any:
    """Ask an endpoint which models it has; what keeps it from answering is the refusal."""
    app, name = asked.app, asked.path.name
    endpoint = app[KEPT].now.known_endpoints.get(name)
    if endpoint is None:
        raise NotFound(f"there is no endpoint {name!r}")
    if name in _trying:
        raise TooMany(f"{name} was asked a moment ago; try again in a few seconds")
    _trying.add(name)
    try:
        spec = TryEndpoint(endpoint=name, url=endpoint.url, secret=endpoint.secret_name)
        secrets = await asyncio.to_thread(app[SECRETS].for_kind, spec.kind, endpoint.secret_name)
        return await preview(spec, app[PATHS], app[SETTINGS].preview_limit_s, app[COMMAND], secrets)
    finally:
        asyncio.get_running_loop().call_later(_PAUSE_S, _trying.discard, name)


ROUTES = (list_endpoints, try_endpoint)
