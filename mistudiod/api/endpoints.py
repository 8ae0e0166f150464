"""Endpoints: whom labels and scores may be asked of. They are a setting: an admin's act."""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic import Field

from mistudiod.api.fields import Fields
from mistudiod.api.keys import SECRETS, SETTINGS
from mistudiod.api.route import Asked, route
from mistudiod.giving import is_here
from mistudiod.secret import SecretsUnusable
from mistudiod.tokens import Scope


class Endpoint(Fields):
    name: str
    url: str
    on_this_machine: bool = Field(description="it works on this machine's GPU")
    has_secret: bool
    secret_name: str | None = Field(description="under which its secret is kept; null: it cannot have one")


class Endpoints(Fields):
    endpoints: list[Endpoint]


@route("GET", "/api/endpoints", scope=Scope.READ, answer=Endpoints, refusals=(SecretsUnusable,))
async def list_endpoints(asked: Asked[None]) -> Any:
    """List the endpoints that a job may name."""
    found = [one for _, one in sorted(asked.app[SETTINGS].known_endpoints.items())]
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
