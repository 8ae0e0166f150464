"""What runs on this machine took, as the database keeps it: the planner's memory."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Collection
from dataclasses import asdict

from mistudiod.database import Database
from mistudiod.jobs import now
from mistudiod.plan_measured import Measured

KEPT = 20  # of each key, the newest


class Measurements:
    """A measurement belongs to a key of ``plan_measured.key``: what must be the same for it to hold."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of(self, keys: Collection[str]) -> dict[str, list[Measured]]:
        """Those of each key, the oldest first."""

        def select(db: sqlite3.Connection) -> dict[str, list[Measured]]:
            marks = ",".join("?" * len(keys))
            rows = db.execute(f"select key, took from measurements where key in ({marks}) order by id", tuple(keys))
            found: dict[str, list[Measured]] = {key: [] for key in keys}
            for row in rows.fetchall():
                with contextlib.suppress(TypeError):  # an older version's, which measured something else
                    found[row["key"]].append(Measured(**json.loads(row["took"])))
            return found

        return await self._database.read(select)

    async def add(self, key: str, took: Measured) -> None:
        def insert(db: sqlite3.Connection) -> None:
            text = json.dumps(asdict(took))
            db.execute("insert into measurements (key, at, took) values (?, ?, ?)", (key, now(), text))
            query = "select id from measurements where key = ? order by id desc limit -1 offset ?"
            db.execute(f"delete from measurements where id in ({query})", (key, KEPT))

        await self._database.write(insert)
