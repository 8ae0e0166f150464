"""Tokens: list, create, revoke."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from mistudiod.api.asks import Id
from mistudiod.api.fields import Fields, Page
from mistudiod.api.keys import TOKENS
from mistudiod.api.route import Asked, route
from mistudiod.errors import Conflict, NotFound
from mistudiod.specs import Name
from mistudiod.tokens import MAX_EXPIRES_IN_S, Scope


class Token(Fields):
    id: int
    name: str
    scope: Scope
    created_at: str
    expires_at: str | None = Field(description="null: never")
    last_used_at: str | None = Field(description="to the minute; null: not yet")


class NewToken(Token):
    token: str = Field(description="the token itself, shown this once")


class TokenPage(Page):
    tokens: list[Token]


class TokenPath(Fields):
    id: Id = Field(description="the token's id")


class TokenRequest(Fields):
    name: Name = Field(description="what to call it, as the machine or program that will use it")
    scope: Scope = Field(description="read; write: also submit, change and remove; admin: also tokens and secrets")
    expires_in_s: int | None = Field(None, ge=1, le=MAX_EXPIRES_IN_S, description="seconds; null: it never expires")


@route("GET", "/api/tokens", scope=Scope.ADMIN, answer=TokenPage)
async def list_tokens(asked: Asked[None]) -> Any:
    """The tokens, without what would let anybody in; those that have expired too."""
    return {"tokens": [token.row() for token in await asked.app[TOKENS].all()], "next": None}


@route(
    "POST", "/api/tokens", scope=Scope.ADMIN, body=TokenRequest, answer=NewToken, status=201, refusals=(Conflict,)
)  # fmt: skip
async def create_token(asked: Asked[None]) -> Any:
    """A new token. Its text is in this answer and nowhere else."""
    request: TokenRequest = asked.body
    token, text = await asked.app[TOKENS].create(request.name, request.scope, request.expires_in_s)
    return token.row() | {"token": text}


@route("DELETE", "/api/tokens/{id}", scope=Scope.ADMIN, path=TokenPath, status=204, refusals=(NotFound,))
async def revoke_token(asked: Asked[None]) -> None:
    """From now on the token opens nothing. The last admin token may be revoked too."""
    await asked.app[TOKENS].revoke(asked.path.id)
