"""Pairing: a code is made by an administrator, and a device that has it gets a token."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated, Any

from aiohttp import web
from pydantic import Field

from mistudiod import pairing
from mistudiod.api.caller import named
from mistudiod.api.fields import Fields
from mistudiod.api.keys import PAIRINGS, REACH, SLOWED
from mistudiod.api.route import Asked, route
from mistudiod.api.tokens import NewToken
from mistudiod.errors import Conflict, Forbidden
from mistudiod.specs import Name
from mistudiod.tokens import MAX_EXPIRES_IN_S, Scope, Token


class PairingRequest(Fields):
    name: Name | None = Field(None, description="what to call the token; null: as the device calls itself")
    scope: Scope = Field(Scope.WRITE, description="of the token: read, write or admin")
    expires_in_s: int | None = Field(
        None, ge=1, le=MAX_EXPIRES_IN_S, description="seconds, of the token, from the pairing on; null: never"
    )


class Pairing(Fields):
    code: str = Field(description="8 digits, good once; shown this once")
    scope: Scope
    name: str | None
    ends_in_s: int = Field(description="how long the code is open, in seconds")
    url: str | None = Field(description="where other machines reach the studio; null: they do not")
    fingerprint: str | None = Field(description="sha256 of the studio's certificate, by which they know it")


Code = Annotated[str, Field(pattern=r"^[0-9]{8}$")]


class PairRequest(Fields):
    code: Code = Field(description="the 8 digits")
    name: Name = Field(description="what the device calls itself; the token is named so, or name-2 when that is taken")


@route("POST", "/api/pairings", scope=Scope.ADMIN, body=PairingRequest, answer=Pairing, status=201)
async def create_pairing(asked: Asked[None]) -> Any:
    """Make a code with which a device gets a token. 5 can be open; the oldest gives way to another."""
    request: PairingRequest = asked.body
    code = asked.app[PAIRINGS].open(request.scope, request.name, request.expires_in_s)
    return {
        "code": code,
        "scope": request.scope.value,
        "name": request.name,
        "ends_in_s": pairing.LIFE_S,
        **asdict(asked.app[REACH]),
    }


@route("POST", "/api/pair", scope=None, body=PairRequest, answer=NewToken, status=201, refusals=(Conflict,))
async def pair(asked: Asked[None]) -> Any:
    """Get a token for a code. Whoever has the code may: this needs no token. Wrong codes are slowed down."""
    token, text = await paired(asked.request, asked.body.code, asked.body.name)
    return token.row() | {"token": text}


async def paired(request: web.Request, code: str, name: str) -> tuple[Token, str]:
    """The token for a code, and its text. Raises Forbidden, TooOften, Conflict."""
    slowed = request.app[SLOWED]
    slowed.refuse_guesser(request)
    try:
        return await request.app[PAIRINGS].pair(code, name, named(request))
    except Forbidden:
        slowed.guessed_wrong(request)
        await asyncio.sleep(slowed.DELAY_S)
        raise
