"""Ranges: the strengths at which adding a feature changes the model by so much, as calibration has found them.

A range holds for the weights that it was found with, ``sae_sha256``; of an SAE whose folder does not say its own, every
one does.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from mistudiod.database import Database
from mistudiod.jobs import now

Range = dict[str, Any]  # feature, kl, breaks, maximum, tokens, created_at


class Ranges:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def keep(self, sae: str, sae_sha256: str, ranges: Sequence[Range]) -> list[Range]:
        """Store what was found of each feature, in place of what was known; as ``of`` gives them."""
        at = now()
        rows = [(sae, one["feature"], sae_sha256, at, json.dumps(one, allow_nan=False)) for one in ranges]

        def insert(db: sqlite3.Connection) -> None:
            db.executemany("insert or replace into ranges values (?, ?, ?, ?, ?)", rows)

        await self._database.write(insert)
        return [{**one, "created_at": at} for one in ranges]

    async def of(self, sae: str, sae_sha256: str | None, features: Sequence[int] | None = None) -> list[Range]:
        """Those of an SAE as it is, by feature: of these features, or of all."""
        query = """select created_at, found from ranges where sae = :sae and (:sha is null or sae_sha256 = :sha)
                   and (:features is null or feature in (select value from json_each(:features))) order by feature"""
        values = {"sae": sae, "sha": sae_sha256, "features": None if features is None else json.dumps(list(features))}
        return await self._database.read(
            lambda db: [
                {**json.loads(row["found"]), "created_at": row["created_at"]}
                for row in db.execute(query, values).fetchall()
            ]
        )


def forget(db: sqlite3.Connection, sae: str) -> None:
    """Those of an SAE that is not there any more."""
    db.execute("delete from ranges where sae = ?", (sae,))


def rename(db: sqlite3.Connection, old: str, new: str) -> None:
    """They are those of an SAE that has another name now."""
    forget(db, new)
    db.execute("update ranges set sae = ? where sae = ?", (new, old))


def names(db: sqlite3.Connection, begin: str) -> set[str]:
    """Of which SAEs there are any whose names begin so."""
    query = "select distinct sae from ranges where substr(sae, 1, ?) = ?"
    return {row["sae"] for row in db.execute(query, (len(begin), begin)).fetchall()}
