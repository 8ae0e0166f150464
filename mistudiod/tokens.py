"""Tokens: who may ask what of the daemon. Only the sha256 of a token is kept; its text is shown once.

A token has 256 random bits, so a plain hash keeps it, and nobody can guess one however often he tries.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import logging
import re
import secrets
import sqlite3
import time
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from enum import Enum
from typing import Any

from mistudiod.database import Database
from mistudiod.errors import Conflict, Invalid, NotFound, StoreError
from mistudiod.jobs import now
from mistudiod.specs import check_name

log = logging.getLogger("mistudiod.tokens")
MAX_EXPIRES_IN_S = 10 * 366 * 86_400
_TEXT = re.compile(r"mis_([1-9][0-9]{0,17})_[A-Za-z0-9_-]{43}", re.ASCII)
_USE_NOTED_EVERY_S = 60.0
_EXPIRY_SEEN_AFTER_S = 2.0  # the clock may be set meanwhile, so it is looked at


class Scope(str, Enum):
    """What a token may do: read; also submit, change and remove; also manage tokens and secrets."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


_RANK = {scope: rank for rank, scope in enumerate(Scope)}


def allows(scope: Scope, needed: Scope) -> bool:
    return _RANK[scope] >= _RANK[needed]


def is_meant_for_us(text: str) -> bool:
    """Whether a token may once have been one of ours, or is one with a piece missing; False: another program's key."""
    return text.startswith("mis_")


@dataclass(frozen=True)
class Token:
    """What is known of a token; times are UTC, ISO. ``expires_at`` None: never; ``last_used_at`` None: not yet."""

    id: int
    name: str
    scope: Scope
    created_at: str
    expires_at: str | None
    last_used_at: str | None

    @property
    def expired(self) -> bool:
        return self.expires_at is not None and self.expires_at <= now()

    def row(self) -> dict[str, Any]:
        return asdict(self) | {"scope": self.scope.value}


class Tokens:
    """Every statement about tokens, and a copy of them in memory, so that a request costs no reading.

    The copy is true because a data folder has one daemon and only this class writes the table.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._copy: dict[int, tuple[Token, str]] | None = None  # with its hash
        self._changing = asyncio.Lock()
        self._gone: dict[int, asyncio.Event] = {}  # of those for whose end somebody waits
        self._noted: dict[int, float] = {}
        self._noting: set[asyncio.Task[None]] = set()

    async def create(self, name: str, scope: Scope, expires_in_s: int | None = None) -> tuple[Token, str]:
        """The token, and its text that nobody can learn again. Raises Invalid; Conflict when the name is taken."""
        _check(name, expires_in_s)
        expires_at = _in(expires_in_s) if expires_in_s is not None else None

        def insert(db: sqlite3.Connection) -> tuple[Token, str]:
            if taken := db.execute("select id from tokens where name = ?", (name,)).fetchone():
                raise Conflict(f"token {taken['id']} is named {name!r} already; revoke it, or choose another name")
            cursor = db.execute(
                "insert into tokens (name, scope, hash, created_at, expires_at) values (?, ?, '', ?, ?)",
                (name, scope.value, now(), expires_at),
            )
            id = int(cursor.lastrowid or 0)
            text = f"mis_{id}_{secrets.token_urlsafe(32)}"
            db.execute("update tokens set hash = ? where id = ?", (_hash(text), id))
            return _token(db.execute("select * from tokens where id = ?", (id,)).fetchone()), text

        async with self._changing:
            token, text = await self._database.write(insert)
            if self._copy is not None:
                self._copy[token.id] = token, _hash(text)
        return token, text

    async def all(self) -> list[Token]:
        """By id; those that have expired too."""
        return await self._database.read(
            lambda db: [_token(row) for row in db.execute("select * from tokens order by id").fetchall()]
        )

    async def revoke(self, id: int) -> None:
        """Once this has begun the token opens nothing any more. Raises NotFound."""
        copy = await self._loaded()
        async with self._changing:
            known = copy.pop(id, None)
            if known is None:
                raise NotFound(f"there is no token {id}")
            try:
                await self._database.write(lambda db: db.execute("delete from tokens where id = ?", (id,)))
            except StoreError:
                copy[id] = known  # it is still there, and must be seen to be
                raise
        self._noted.pop(id, None)
        if id in self._gone:
            self._gone.pop(id).set()

    async def until_over(self, token: Token) -> None:
        """Until the token is revoked, or has expired for a few seconds at most."""
        copy = await self._loaded()
        if token.id not in copy:
            return
        gone = self._gone.setdefault(token.id, asyncio.Event())
        look_after_s = None if token.expires_at is None else _EXPIRY_SEEN_AFTER_S
        while not (gone.is_set() or token.expired):
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(gone.wait(), look_after_s)

    async def check(self, text: str) -> Token | None:
        """The token of that text; None when there is none, or it has expired."""
        found = _TEXT.fullmatch(text)
        if found is None:
            return None
        copy = self._copy if self._copy is not None else await self._loaded()
        token, kept = copy.get(int(found[1]), (None, ""))
        if token is None or not hmac.compare_digest(_hash(text), kept) or token.expired:
            return None
        self._note_use(token.id)
        return token

    async def close(self) -> None:
        """Wait for what is still being written; before the database is closed."""
        await asyncio.gather(*self._noting)

    async def _loaded(self) -> dict[int, tuple[Token, str]]:
        def select(db: sqlite3.Connection) -> dict[int, tuple[Token, str]]:
            rows = db.execute("select * from tokens").fetchall()
            return {row["id"]: (_token(row), row["hash"]) for row in rows}

        async with self._changing:
            if self._copy is None:
                self._copy = await self._database.read(select)
            return self._copy

    def _note_use(self, id: int) -> None:
        """Write the time of use, at most once a minute, while the request goes on."""
        at = time.monotonic()
        if at - self._noted.get(id, -_USE_NOTED_EVERY_S) < _USE_NOTED_EVERY_S:
            return
        self._noted[id] = at
        task = asyncio.create_task(self._write_use(id, now()))
        self._noting.add(task)
        task.add_done_callback(self._noting.discard)

    async def _write_use(self, id: int, used_at: str) -> None:
        try:
            await self._database.write(
                lambda db: db.execute("update tokens set last_used_at = ? where id = ?", (used_at, id))
            )
        except StoreError as error:  # a full disk must not close the door to those who would free some space
            log.warning("the use of token %d was not noted: %s", id, error)


def _check(name: str, expires_in_s: int | None) -> None:
    try:
        check_name(name)
    except ValueError as error:
        raise Invalid(f"name: {error}", {"name": str(error)}) from None
    if expires_in_s is not None and not 1 <= expires_in_s <= MAX_EXPIRES_IN_S:
        reason = f"must be from 1 to {MAX_EXPIRES_IN_S} seconds"
        raise Invalid(f"expires_in_s: {reason}", {"expires_in_s": reason})


def _in(seconds: int) -> str:
    """That time from now, as ``jobs.now()`` writes it: such texts compare as their times do."""
    at = datetime.now(timezone.utc) + timedelta(seconds=seconds)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _token(row: sqlite3.Row) -> Token:
    known = {name: row[name] for name in ("id", "name", "created_at", "expires_at", "last_used_at")}
    return Token(scope=Scope(row["scope"]), **known)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
