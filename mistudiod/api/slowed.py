"""Wrong tokens and codes are slowed down, by address. Nobody is locked out, and a good token is let in at any time."""

from __future__ import annotations

import asyncio
import math

from aiohttp import web

from mistudiod.api.caller import network
from mistudiod.errors import TooOften
from mistudiod.throttle import Throttle

_TOKENS_PER_MINUTE, _CODES_PER_MINUTE, _CODES_IN_ALL_PER_MINUTE = 10, 5, 30
_EVERYBODY = "everybody"


class Slowed:
    """This machine itself is not slowed for wrong tokens: one of those has 256 bits, and its own programs share one
    address. It is for wrong codes, of which few are enough for everybody.
    """

    DELAY_S = 0.25  # of the answer to what was wrong

    def __init__(self) -> None:
        self._tokens = Throttle(_TOKENS_PER_MINUTE, 60.0)
        self._codes = Throttle(_CODES_PER_MINUTE, 60.0)
        self._all_codes = Throttle(_CODES_IN_ALL_PER_MINUTE, 60.0)

    async def wrong_token(self, request: web.Request) -> None:
        """Raises TooOften when that address has brought too many."""
        who = network(request)
        if who is None:
            return
        _refuse(self._tokens.wait_s(who), "too many wrong tokens came from this address")
        self._tokens.failed(who)
        await asyncio.sleep(self.DELAY_S)

    def refuse_guesser(self, request: web.Request) -> None:
        """Raises TooOften, before a code is looked at: few digits can be guessed."""
        wait_s = max(self._codes.wait_s(network(request) or ""), self._all_codes.wait_s(_EVERYBODY))
        _refuse(wait_s, "too many wrong codes were tried")

    def guessed_wrong(self, request: web.Request) -> None:
        self._codes.failed(network(request) or "")
        self._all_codes.failed(_EVERYBODY)


def _refuse(wait_s: float, why: str) -> None:
    if wait_s > 0:
        seconds = math.ceil(wait_s)
        raise TooOften(f"{why}; try again in {seconds} s", seconds)
