"""Pairing: a code that a person reads on one device and types on another, which gets a token for it.

A code has 8 digits, so it lives for 5 minutes, is good once, and dies with all others after 10 wrong ones. Only keyed
hashes of the codes are kept, and only in memory: they do not outlive the daemon.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from mistudiod.errors import Conflict, Forbidden
from mistudiod.tokens import Scope, Token, Tokens

log = logging.getLogger("mistudiod.pairing")
DIGITS = 8
LIFE_S = 300
OPEN_AT_ONCE = 5
WRONG_IN_ALL = 10
_NAMES = 100  # laptop, laptop-2 … laptop-100
_NAME_CHARACTERS = 64


@dataclass(frozen=True)
class _Open:
    scope: Scope
    name: str | None
    expires_in_s: int | None
    ends_at: float


class Pairings:
    """The codes that are open."""

    def __init__(self, tokens: Tokens, clock: Callable[[], float] = time.monotonic) -> None:
        self._tokens, self._clock = tokens, clock
        self._key = secrets.token_bytes(32)
        self._open: dict[bytes, _Open] = {}  # by the hash of the code, the oldest first
        self._wrong = 0  # since there was none open
        self._pairing = asyncio.Lock()  # two devices with one code: one of them gets the token

    def open(self, scope: Scope, name: str | None = None, expires_in_s: int | None = None) -> str:
        """A new code, for LIFE_S seconds. What is given is the token's; the oldest gives way to more than a few."""
        self._sweep()
        code = self._unused()
        self._open[self._hash(code)] = _Open(scope, name, expires_in_s, self._clock() + LIFE_S)
        while len(self._open) > OPEN_AT_ONCE:
            del self._open[next(iter(self._open))]
        return code

    async def pair(self, code: str, name: str, who: str) -> tuple[Token, str]:
        """The token for a code, and its text. ``name``: the device's; ``who``: its address, for the log.

        The code is spent once the token is written. Raises Forbidden for a code that is not open.
        """
        async with self._pairing:
            self._sweep()
            hashed = self._hash(code)
            found = self._open.get(hashed)
            if found is None:
                self._missed(who)
                raise Forbidden(
                    "this code is not open: it was mistyped or used, or is older than 5 minutes; "
                    "mistudio token pair, on a device that is let in, makes another"
                )
            token, text = await self._create(found, found.name or name)
            self._open.pop(hashed, None)
        log.info("%s was paired as %s, with the scope %s", who, token.name, token.scope.value)
        return token, text

    async def _create(self, found: _Open, name: str) -> tuple[Token, str]:
        """Under the next name that is free: a device that is paired again need not think of another."""
        for number in range(1, _NAMES):
            ending = f"-{number}" if number > 1 else ""
            try:
                free = f"{name[: _NAME_CHARACTERS - len(ending)]}{ending}"
                return await self._tokens.create(free, found.scope, found.expires_in_s)
            except Conflict:
                continue
        raise Conflict(f"there are too many tokens named {name}; revoke some, or choose another name")

    def _missed(self, who: str) -> None:
        if not self._open:
            return
        self._wrong += 1
        if self._wrong >= WRONG_IN_ALL:
            self._open.clear()
            log.warning("%d wrong pairing codes, the last from %s: no code is open any more", WRONG_IN_ALL, who)

    def _sweep(self) -> None:
        now = self._clock()
        self._open = {hashed: one for hashed, one in self._open.items() if one.ends_at > now}
        if not self._open:
            self._wrong = 0

    def _unused(self) -> str:
        while True:
            code = f"{secrets.randbelow(10**DIGITS):0{DIGITS}d}"
            if self._hash(code) not in self._open:
                return code

    def _hash(self, code: str) -> bytes:
        return hashlib.blake2b(code.encode(), key=self._key, digest_size=32).digest()
