"""Secrets: which there are, set one, remove one. Their values go in and never come out."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

from pydantic import Field

from mistudiod.api.fields import Fields, Page
from mistudiod.api.keys import SECRETS
from mistudiod.api.route import Asked, route
from mistudiod.errors import Conflict, NotFound
from mistudiod.secret import SecretName, SecretsUnusable, SecretValue, Source
from mistudiod.tokens import Scope


class Secret(Fields):
    name: str
    source: Source = Field(description="where it was found: file, then systemd's credentials, then the environment")
    set_at: str | None = Field(description="null when it is not kept by the studio")


class SecretPage(Page):
    secrets: list[Secret]


class SecretPath(Fields):
    name: SecretName = Field(description="hf, openai, or an endpoint's host, as ollama.lan or ollama.lan:11434")


class SecretRequest(Fields):
    value: SecretValue = Field(description="the secret itself")


@route("GET", "/api/secrets", scope=Scope.ADMIN, answer=SecretPage, refusals=(SecretsUnusable,))
async def list_secrets(asked: Asked[None]) -> Any:
    """The names of the secrets that are set."""
    return {"secrets": [asdict(one) for one in await asyncio.to_thread(asked.app[SECRETS].all)], "next": None}


@route("PUT", "/api/secrets/{name}", scope=Scope.ADMIN, path=SecretPath, body=SecretRequest, status=204,
       refusals=(SecretsUnusable,))  # fmt: skip
async def set_secret(asked: Asked[None]) -> None:
    """Keep a secret, in place of the one of that name."""
    await asyncio.to_thread(asked.app[SECRETS].set, asked.path.name, asked.body.value)


@route("DELETE", "/api/secrets/{name}", scope=Scope.ADMIN, path=SecretPath, status=204,
       refusals=(NotFound, Conflict, SecretsUnusable))  # fmt: skip
async def remove_secret(asked: Asked[None]) -> None:
    """Forget a secret. One from systemd's credentials or the environment can only be removed there."""
    await asyncio.to_thread(asked.app[SECRETS].remove, asked.path.name)
