"""A browser's token, in a cookie: no script can read it, and no other site's page can have it sent along.

Cookies know no ports, so the name has the port by which the browser asks: two studios of one machine keep apart.
"""

from __future__ import annotations

import time
from datetime import datetime
from urllib.parse import urlsplit

from aiohttp import web

from mistudiod.api.caller import Caller, caller_of
from mistudiod.tokens import Token

_LONGEST_S = 400 * 86_400  # what browsers keep a cookie for at most
_OWN = "own."  # before a token that the log-in itself has made


def token_in(request: web.Request) -> str | None:
    """The text of the token that the browser sends."""
    text = request.cookies.get(_name(caller_of(request)))
    return None if text is None else text.removeprefix(_OWN)


def is_own(request: web.Request) -> bool:
    """Whether that token is the browser's alone: it was made by its log-in, and nothing else can have it."""
    return request.cookies.get(_name(caller_of(request)), "").startswith(_OWN)


def keep(request: web.Request, response: web.StreamResponse, token: Token, text: str, own: bool) -> None:
    """Have the browser keep a token for as long as it is good."""
    caller, age_s = caller_of(request), float(_LONGEST_S)
    if token.expires_at is not None:
        ends_at = datetime.fromisoformat(token.expires_at.replace("Z", "+00:00")).timestamp()
        age_s = min(age_s, max(0.0, ends_at - time.time()))
    response.set_cookie(
        _name(caller), f"{_OWN if own else ''}{text}", max_age=int(age_s), path="/", secure=caller.secure,
        httponly=True, samesite="Strict",
    )  # fmt: skip


def forget(request: web.Request, response: web.StreamResponse) -> None:
    caller = caller_of(request)
    response.del_cookie(_name(caller), path="/", secure=caller.secure, httponly=True, samesite="Strict")


def _name(caller: Caller) -> str:
    port = urlsplit(f"//{caller.hosts[0]}").port or (443 if caller.secure else 80)
    return f"mistudio-{port}"
