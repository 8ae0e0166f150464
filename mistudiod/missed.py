"""What a reader of events has missed: from the ring in memory, else from the database."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from functools import partial

from mistudiod.bus import Bus, Message
from mistudiod.database import Database

_PAGE = 500


async def missed(bus: Bus, database: Database, seen: int) -> AsyncIterator[Message | None]:
    """The state events after ``seen``, up to now; None, once, when they are no longer known."""
    if (recent := bus.since(seen)) is not None:
        for message in recent:
            yield message
        return
    if seen > bus.newest:
        yield None
        return
    while page := await database.read(partial(_page, after=seen)):
        for message in page:
            yield message
            seen = message.id or seen
    if page is None:  # also when the reader is so slow that what comes next was pruned meanwhile
        yield None


def _reaches_back(db: sqlite3.Connection, seen: int) -> bool:
    oldest = db.execute("select min(id) from events").fetchone()[0]
    return oldest is not None and oldest <= seen + 1


def _page(db: sqlite3.Connection, after: int) -> list[Message] | None:
    if not _reaches_back(db, after):
        return None
    rows = db.execute("select id, topic, data from events where id > ? order by id limit ?", (after, _PAGE))
    return [Message(row["id"], row["topic"], json.loads(row["data"])) for row in rows.fetchall()]
