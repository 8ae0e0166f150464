"""The history of steering: every run that came to its end, with all that made it. Kept in the database alone.

Beside every starred one the newest ``KEPT`` stay: a run is some 50 kB.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any, get_args

from mistudiod.database import Database
from mistudiod.errors import NotFound
from mistudiod.jobs import now
from mistudiod.renamed import renamed
from mistudiod.specs import Steer
from mistudiod.specs.steer import Precision

KEPT = 1000  # that are not starred
_EXCERPT = 200  # characters of a prompt in a list
_SHOWN = ("id", "created_at", "job", "model", "sae", "note")
Steering = dict[str, Any]


class Steerings:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def keep(self, spec: Mapping[str, Any], result: Mapping[str, Any], job: int | None = None) -> int:
        """Add a run and return its id; of a job the one that is there already. ``spec``: of a ``Steer``."""
        asked = _as_it_was_run(spec, result)
        row = (now(), job, str(result.get("model", "")), asked.sae, _searched(asked.model_dump(), None))
        texts = (asked.model_dump_json(), json.dumps(result, ensure_ascii=False, allow_nan=False))

        def insert(db: sqlite3.Connection) -> int:
            known = db.execute("select id from steerings where job = ?", (job,)).fetchone()
            if known:
                return int(known["id"])
            query = (
                "insert into steerings (created_at, job, model, sae, text, spec, result) values (?, ?, ?, ?, ?, ?, ?)"
            )
            id = int(db.execute(query, (*row, *texts)).lastrowid or 0)
            rest = "select id from steerings where not starred order by id desc limit -1 offset ?"
            db.execute(f"delete from steerings where id in ({rest})", (KEPT,))
            return id

        return await self._database.write(insert)

    async def page(
        self, limit: int, before: int, sae: str | None = None, starred: bool | None = None, q: str | None = None
    ) -> list[Steering]:
        """The newest first, those before an id, without results. ``q``: words that prompt or note have."""
        asked: list[tuple[str, Any]] = [("id < ?", before)]
        if sae is not None:
            asked.append(("sae = ?", sae))
        if starred is not None:
            asked.append(("starred = ?", starred))
        asked += [("instr(text, ?)", word) for word in (q or "").casefold().split()]
        query = f"""select {", ".join(_SHOWN)}, starred, spec from steerings
                    where {" and ".join(condition for condition, _ in asked)} order by id desc limit ?"""
        values = (*(value for _, value in asked), limit)
        return await self._database.read(lambda db: [_listed(row) for row in db.execute(query, values).fetchall()])

    async def get(self, id: int) -> Steering:
        """With ``spec`` and ``result``. Raises NotFound."""
        return await self._database.read(lambda db: _whole(_row(db, id)))

    async def edit(self, id: int, changes: Mapping[str, Any]) -> Steering:
        """``changes``: what of starred and note is to be another. Raises NotFound."""

        def update(db: sqlite3.Connection) -> Steering:
            row = _row(db, id)
            starred = changes.get("starred", bool(row["starred"]))
            note = changes.get("note", row["note"]) or None
            text = _searched(json.loads(row["spec"]), note)
            query = "update steerings set starred = ?, note = ?, text = ? where id = ?"
            db.execute(query, (starred, note, text, id))
            return _whole(_row(db, id))

        return await self._database.write(update)

    async def remove(self, id: int) -> None:
        """Raises NotFound."""

        def delete(db: sqlite3.Connection) -> None:
            _row(db, id)
            db.execute("delete from steerings where id = ?", (id,))

        await self._database.write(delete)


def count(db: sqlite3.Connection, sae: str) -> int:
    """How many runs name an SAE."""
    return len(_naming(db, sae))


def rename_sae(db: sqlite3.Connection, old: str, new: str) -> None:
    """An SAE that runs name has another name now: in what was asked, and in what came of it."""
    for id in _naming(db, old):
        row = _row(db, id)
        texts = [
            json.dumps(renamed(json.loads(row[part]), old, new), ensure_ascii=False) for part in ("spec", "result")
        ]
        sae = new if row["sae"] == old else row["sae"]
        db.execute("update steerings set sae = ?, spec = ?, result = ? where id = ?", (sae, *texts, id))


def _naming(db: sqlite3.Connection, sae: str) -> list[int]:
    query = """select id from steerings where sae = :sae or exists (
                 select 1 from json_each(spec, '$.steering') as edit where json_extract(edit.value, '$.sae') = :sae)"""
    return [row["id"] for row in db.execute(query, {"sae": sae}).fetchall()]


def _row(db: sqlite3.Connection, id: int) -> sqlite3.Row:
    row: sqlite3.Row | None = db.execute("select * from steerings where id = ?", (id,)).fetchone()
    if row is None:
        raise NotFound(f"there is no steering {id}")
    return row


def _as_it_was_run(spec: Mapping[str, Any], result: Mapping[str, Any]) -> Steer:
    """The SAE may be trained again in another precision, and more or less memory be free: then the same texts are not
    to come of that.
    """
    asked = Steer.model_validate(spec)
    found: dict[str, Any] = {"rows_at_once": result["made"]["rows_at_once"]}
    if asked.precision is None and result.get("precision") in get_args(Precision):
        found["precision"] = result["precision"]
    return asked.model_copy(update=found)


def _searched(spec: Mapping[str, Any], note: str | None) -> str:
    texts = [spec["prompt"], *(one["content"] for one in spec["messages"] or ()), note]
    return "\n".join(text for text in texts if text).casefold()


def _about(row: sqlite3.Row) -> Steering:
    return {**{name: row[name] for name in _SHOWN}, "starred": bool(row["starred"])}


def _listed(row: sqlite3.Row) -> Steering:
    spec = json.loads(row["spec"])
    prompt = spec["prompt"] if spec["prompt"] is not None else spec["messages"][-1]["content"]
    return {
        **_about(row),
        "prompt": prompt[:_EXCERPT],
        **{name: spec[name] for name in ("steering", "sweep", "samples", "seed")},
    }


def _whole(row: sqlite3.Row) -> Steering:
    return {**_about(row), "spec": json.loads(row["spec"]), "result": json.loads(row["result"])}
