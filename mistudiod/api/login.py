"""Logging in: a browser gives a code or a token once, and has it sent along from then on."""

from __future__ import annotations

import contextlib
from typing import Any

from aiohttp import web
from pydantic import Field, model_validator

from mistudiod.api import cookies
from mistudiod.api.body import answer
from mistudiod.api.doors import authenticate
from mistudiod.api.fields import Fields
from mistudiod.api.keys import SLOWED, TOKENS
from mistudiod.api.pairings import Code, paired
from mistudiod.api.route import Asked, route
from mistudiod.api.tokens import Token
from mistudiod.errors import Conflict, Forbidden, NotFound, StoreError
from mistudiod.specs import Name
from mistudiod.tokens import Scope


class Login(Fields):
    scope: Scope = Field(description="what the caller may do")
    token: Token | None = Field(description="the token that lets it in; null: on this machine none is needed")
    browser: bool = Field(description="it came in a cookie, from a browser that has logged in")


class LoginRequest(Fields):
    """Either of the two."""

    code: Code | None = Field(None, description="the 8 digits of a pairing code: a token is made for this browser")
    token: str | None = Field(None, max_length=200, description="a token that there is, which the browser then keeps")
    name: Name = Field("browser", description="with a code: what to call the new token")

    @model_validator(mode="after")
    def _one(self) -> LoginRequest:
        if (self.code is None) == (self.token is None):
            raise ValueError("give a code or a token")
        return self


@route("GET", "/api/login", scope=Scope.READ, answer=Login)
async def show_login(asked: Asked[None]) -> Any:
    """Say as whom the caller is let in, and what it may do."""
    granted = await authenticate(asked.request)
    row = granted.token.row() if granted.token else None
    return {"scope": granted.scope.value, "token": row, "browser": granted.by_cookie}


@route("POST", "/api/login", scope=None, body=LoginRequest, answer=Login, refusals=(Conflict, StoreError))
async def log_in(asked: Asked[None]) -> Any:
    """Let a browser in, by a code or a token: it is set a cookie, which scripts cannot read."""
    given: LoginRequest = asked.body
    if given.code is not None:
        token, text = await paired(asked.request, given.code, given.name)
    else:
        text = (given.token or "").strip()
        found = await asked.app[TOKENS].check(text)
        if found is None:
            await asked.app[SLOWED].wrong_token(asked.request)
            raise Forbidden("this token is not known here, or no longer good", {"token": "is not known here"})
        token = found
    response = answer({"scope": token.scope.value, "token": token.row(), "browser": True})
    cookies.keep(asked.request, response, token, text, own=given.code is not None)
    return response


@route("POST", "/api/logout", scope=None, status=204, refusals=(StoreError,))
async def log_out(asked: Asked[None]) -> web.Response:
    """Have the browser forget its token. One that its log-in has made by a code is revoked as well."""
    response = web.Response(status=204)
    text = cookies.token_in(asked.request)
    token = await asked.app[TOKENS].check(text) if text else None
    if token is not None and cookies.is_own(asked.request):
        with contextlib.suppress(NotFound):  # somebody else has just done so
            await asked.app[TOKENS].revoke(token.id)
    cookies.forget(asked.request, response)
    return response


ROUTES = (show_login, log_in, log_out)
