"""Profiles: what is done to which features, kept under a name. They outlive the SAEs that they name."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import StringConstraints

from mistudiod.database import Database
from mistudiod.errors import Conflict, NotFound
from mistudiod.jobs import now
from mistudiod.renamed import renamed
from mistudiod.specs import Edit

Profile = dict[str, Any]  # name, model, steering, note, created_at
ProfileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$")]


class Profiles:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> list[Profile]:
        """By name."""
        query = "select * from profiles order by name"
        return await self._database.read(lambda db: [_profile(row) for row in db.execute(query).fetchall()])

    async def get(self, name: str) -> Profile:
        """Raises NotFound."""
        return await self._database.read(lambda db: _get(db, name))

    async def put(self, name: str, model: str, steering: Sequence[Edit], note: str | None, replace: bool) -> Profile:
        """Keep a profile; ``replace``: also in place of the one of that name. Raises Conflict."""
        about = json.dumps({"steering": [edit.model_dump() for edit in steering], "note": note or None})

        def insert(db: sqlite3.Connection) -> Profile:
            if not replace and db.execute("select 1 from profiles where name = ?", (name,)).fetchone():
                raise Conflict(f"there is a profile {name!r} already: choose another name, or say that it is replaced")
            db.execute("insert or replace into profiles values (?, ?, ?, ?)", (name, model, now(), about))
            return _get(db, name)

        return await self._database.write(insert)

    async def remove(self, name: str) -> None:
        """Raises NotFound."""

        def delete(db: sqlite3.Connection) -> None:
            _get(db, name)
            db.execute("delete from profiles where name = ?", (name,))

        await self._database.write(delete)


def rename_sae(db: sqlite3.Connection, old: str, new: str) -> None:
    """An SAE that profiles name has another name now."""
    for name in naming(db, old):
        row = db.execute("select about from profiles where name = ?", (name,)).fetchone()
        about = renamed(json.loads(row["about"]), old, new)
        db.execute("update profiles set about = ? where name = ?", (json.dumps(about), name))


def naming(db: sqlite3.Connection, sae: str) -> list[str]:
    """The names of the profiles that change features of an SAE."""
    query = """select distinct profiles.name from profiles, json_each(profiles.about, '$.steering') as edit
               where json_extract(edit.value, '$.sae') = ? order by 1"""
    return [row[0] for row in db.execute(query, (sae,)).fetchall()]


def _get(db: sqlite3.Connection, name: str) -> Profile:
    row = db.execute("select * from profiles where name = ?", (name,)).fetchone()
    if row is None:
        raise NotFound(f"there is no profile {name!r}")
    return _profile(row)


def _profile(row: sqlite3.Row) -> Profile:
    known = {"name": row["name"], "model": row["model"], "created_at": row["created_at"]}
    return {**known, **json.loads(row["about"])}
