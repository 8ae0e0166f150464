"""The index of what lies in the artifact folders. The folder is the truth; this can be rebuilt from it at any time."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import re
import sqlite3
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mistudiod import about
from mistudiod.certificates import BESIDE, as_it_stands, in_short
from mistudiod.database import Database, tell
from mistudiod.errors import Invalid, NotFound
from mistudiod.jobs import now
from mistudiod.label_statements import forget as forget_labels
from mistudiod.paths import PARTIAL, Paths, delete_tree, set_aside
from mistudiod.ranges import forget as forget_ranges

NOUNS = ("model", "dataset", "tokenization", "sae", "features")
# The file without which a folder is no artifact; its content is what the index shows.
_FILES = {
    "model": "model.json",
    "dataset": "dataset.json",
    "tokenization": "tokenization.json",
    "sae": "recipe.json",
    "features": "manifest.json",
}
_OF_SAE = """noun = 'sae' and name = :sae
             or noun = 'features' and substr(name, 1, length(:sae) + 1) = :sae || '/'"""
# Where an artifact says which other one it cannot do without: {noun of the other: {its own noun: path in the JSON}}.
_NEEDED_BY = {
    "model": {"tokenization": "$.model", "sae": "$.model.name"},
    "dataset": {"tokenization": "$.dataset"},
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # the rule of specs.check_name
_HIGHEST_JOB = 2**31  # an artifact from elsewhere may say anything
Artifact = dict[str, Any]

log = logging.getLogger("mistudiod.index")


class Index:
    def __init__(self, database: Database, paths: Paths) -> None:
        self._database, self._paths = database, paths

    async def add(self, noun: str, name: str, info: dict[str, Any], job: int | None) -> Artifact:
        """``job``: which has made it; None leaves what is known of that. Raises Invalid for a name that is none."""
        if not is_name(noun, name):
            raise Invalid(f"{name!r} is no name of a {noun}", {"name": "is no name"})

        def put(db: sqlite3.Connection) -> Artifact:
            known = db.execute("select 1 from artifacts where noun = ? and name = ?", (noun, name)).fetchone()
            if noun == "sae" and not known:  # those of an SAE of that name whose folder went without a word
                _forget_said(db, name)
            return self.put(db, noun, name, info, job)

        return await self._database.write(put)

    async def get(self, noun: str, ref: str) -> Artifact:
        """By name or, when it is all digits, by id. Raises NotFound."""
        return await self._database.read(lambda db: self.of(db, noun, ref))

    async def all(self, noun: str, limit: int = 1000, after_id: int = 0) -> list[Artifact]:
        """In the order of their ids, those after ``after_id``; a ``limit`` of -1 is none."""
        query = "select * from artifacts where noun = ? and id > ? order by id limit ?"
        return await self._database.read(
            lambda db: [self._artifact(row) for row in db.execute(query, (noun, after_id, limit)).fetchall()]
        )

    async def counts(self) -> dict[str, int]:
        """How many artifacts there are of each noun."""
        query = "select noun, count(*) from artifacts group by noun"
        return dict.fromkeys(NOUNS, 0) | await self._database.read(lambda db: dict(map(tuple, db.execute(query))))

    async def newest_features(self, sae: str) -> Artifact | None:
        """What the latest extraction has found: that of the highest number, whatever the order of rows."""
        return await self._database.read(lambda db: self._newest_features(db, sae))

    async def with_features(self, ref: str) -> tuple[Artifact, Artifact | None]:
        """An SAE and its newest features. Raises NotFound."""

        def select(db: sqlite3.Connection) -> tuple[Artifact, Artifact | None]:
            sae = self.of(db, "sae", ref)
            return sae, self._newest_features(db, sae["name"])

        return await self._database.read(select)

    async def needing(self, noun: str, name: str) -> list[tuple[str, str]]:
        """Noun and name of every artifact that would be of no use without this one."""
        query = "select name from artifacts where noun = ? and json_extract(info, ?) = ? order by id"

        def select(db: sqlite3.Connection) -> list[tuple[str, str]]:
            needing = _NEEDED_BY.get(noun, {}).items()
            return [(by, row["name"]) for by, path in needing for row in db.execute(query, (by, path, name))]

        return await self._database.read(select)

    async def remove(self, noun: str, name: str) -> None:
        """Forget it, then delete its folder; a crash between leaves that to the next sweep. Of SAEs: ``library``.

        Raises NotFound.
        """
        trash = await self._database.write(lambda db: self.take_away(db, noun, name))
        if trash:
            await asyncio.to_thread(delete_tree, trash)

    def take_away(self, db: sqlite3.Connection, noun: str, name: str) -> Path | None:
        """Forget it and set its folder aside; that is to be deleted. Raises NotFound."""
        row = db.execute("select id, noun, name from artifacts where noun = ? and name = ?", (noun, name)).fetchone()
        if row is None:
            raise NotFound(f"there is no {noun} {name!r}")
        self.forget(db, row)
        return set_aside(self._paths.artifact(noun, name))  # last: what fails before it leaves the folder alone

    def move_sae(self, db: sqlite3.Connection, old: str | None, new: str | None, job: int | None = None) -> None:
        """An SAE and its features have another name; None: they are in the trash. ``job``: that made one from there.

        Its folders are where they belong by now, and what they say is read anew.
        """
        numbers = {}
        for row in db.execute(f"select id, noun, name from artifacts where {_OF_SAE} order by noun desc", {"sae": old}):
            if new is None:
                self.forget(db, row)
            else:
                name = new + row["name"][len(old or "") :]
                db.execute("update or replace artifacts set name = ? where id = ?", (name, row["id"]))
                numbers[row["noun"], name] = row["id"]
                tell(db, "artifact", {"noun": row["noun"], "name": row["name"], "id": row["id"], "removed": True})
        if new is None:
            return
        found = self._paths.folder("features").glob(f"{new}/*")
        for noun, name in [("sae", new), *(("features", f"{new}/{path.name}") for path in sorted(found))]:
            if (info := read_info(self._paths, noun, name)) is not None:
                self.put(db, noun, name, info, None if (noun, name) in numbers else (job if noun == "sae" else None))

    async def rebuild(self) -> int:
        """Make the index say what the folders hold; returns how many artifacts there are."""
        found = await asyncio.to_thread(
            lambda: {(noun, name): info for noun in NOUNS for name, info in scan(self._paths, noun)}
        )

        def replace(db: sqlite3.Connection) -> int:
            known = {(row["noun"], row["name"]): row for row in db.execute("select * from artifacts").fetchall()}
            for key in known.keys() - found.keys():
                self.forget(db, known[key])
            for (noun, name), info in found.items():
                row = known.get((noun, name))
                if row is None or json.loads(row["info"]) != info:
                    self.put(db, noun, name, info, row["job"] if row else _job(info))
            return len(found)

        return await self._database.write(replace)

    def put(self, db: sqlite3.Connection, noun: str, name: str, info: dict[str, Any], job: int | None) -> Artifact:
        """As ``add``, of a name that is one."""
        db.execute(
            """insert into artifacts (noun, name, job, created_at, info) values (?,?,?,?,?)
               on conflict (noun, name) do update set info = excluded.info, job = coalesce(excluded.job, job)""",
            (noun, name, job, _created(self._paths.artifact(noun, name)), json.dumps(info)),
        )
        row = db.execute("select * from artifacts where noun = ? and name = ?", (noun, name)).fetchone()
        artifact = self._artifact(row)
        tell(db, "artifact", {**artifact, "noun": noun})
        return artifact

    def forget(self, db: sqlite3.Connection, row: sqlite3.Row) -> None:
        """``row``: id, noun and name of an artifact."""
        db.execute("delete from artifacts where id = ?", (row["id"],))
        tell(db, "artifact", {"noun": row["noun"], "name": row["name"], "id": row["id"], "removed": True})

    def of(self, db: sqlite3.Connection, noun: str, ref: str) -> Artifact:
        """As ``get``."""
        column = "id" if ref.isdecimal() else "name"
        row = db.execute(f"select * from artifacts where noun = ? and {column} = ?", (noun, ref)).fetchone()
        if row is None:
            raise NotFound(f"there is no {noun} {ref!r}{_called_now(db, ref) if noun == 'sae' else ''}")
        return self._artifact(row)

    def _newest_features(self, db: sqlite3.Connection, sae: str) -> Artifact | None:
        query = """select * from artifacts where noun = 'features' and substr(name, 1, length(:sae) + 1) = :sae || '/'
                   order by cast(substr(name, length(:sae) + 2) as integer) desc limit 1"""
        row = db.execute(query, {"sae": sae}).fetchone()
        return self._artifact(row) if row else None

    def _artifact(self, row: sqlite3.Row) -> Artifact:
        folder = self._paths.artifact(row["noun"], row["name"])
        known = {"id": row["id"], "name": row["name"], "created_at": row["created_at"], "job": row["job"]}
        info = json.loads(row["info"])
        for what in BESIDE:
            if row["noun"] == "sae" and isinstance(short := info.get(what), dict):
                info[what] = as_it_stands(what, short, folder)
        return {**info, **known, "folder": str(folder)}


def _called_now(db: sqlite3.Connection, name: str) -> str:
    query = """select artifacts.name from artifacts, json_each(info, '$.earlier') as earlier
               where noun = 'sae' and earlier.value = ? order by artifacts.id desc limit 1"""
    row = db.execute(query, (name,)).fetchone()
    return f"; it is called {row['name']} now" if row else ""


def _forget_said(db: sqlite3.Connection, sae: str) -> None:
    """What only the database knows of an SAE: another one of its name has other features."""
    forget_labels(db, sae)
    forget_ranges(db, sae)


def is_name(noun: str, name: str) -> bool:
    """Whether a name may become a path: a name as job specs have it; features are ``<sae>/<number>``."""
    if noun not in NOUNS:
        return False
    if noun == "features":
        name, _, number = name.partition("/")
        if not (number.isascii() and number.isdecimal()):
            return False
    return _NAME.fullmatch(name) is not None and not name.isdigit() and ".." not in name


def read_json(path: Path) -> Any:
    """What a JSON file says. Raises OSError or ValueError."""
    return from_json(path.read_text("utf-8"))


def from_json(text: str) -> Any:
    """NaN, Infinity and 1e999, which JSON has no word for, are None. Raises ValueError."""
    try:
        return json.loads(text, parse_constant=lambda _: None, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def read_info(paths: Paths, noun: str, name: str) -> dict[str, Any] | None:
    """What an artifact's folder says about itself; None when it is not whole, or the name is none.

    Of an SAE with a certificate or an evaluation, also what that says in short, and what a person has said of it.
    """
    if not is_name(noun, name):
        return None
    folder = paths.artifact(noun, name)
    info = read_object(folder / _FILES[noun])
    if info is not None and noun == "sae":
        for what, file in BESIDE.items():
            if found := read_object(folder / file):
                info[what] = in_short(what, found)
        info |= about.said(read_object(folder / about.ABOUT))
    return info


def read_object(path: Path) -> dict[str, Any] | None:
    """What a JSON file says; None when it is not there, damaged, or says something else than an object."""
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def scan(paths: Paths, noun: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every whole artifact of a noun on disk: (name, info). One whose name cannot be used is logged and left out."""
    top = paths.folder(noun)
    for marker in sorted(top.glob(f"{'*/*' if noun == 'features' else '*'}/{_FILES[noun]}")):
        name = marker.parent.relative_to(top).as_posix()
        if PARTIAL in f"/{name}":
            continue
        if not is_name(noun, name):
            log.warning("%s is not listed: %r is no name of a %s; rename the folder", marker.parent, name, noun)
        elif (info := read_info(paths, noun, name)) is not None:
            yield name, info


def _job(info: dict[str, Any]) -> int | None:
    job = info.get("job")
    return job if isinstance(job, int) and not isinstance(job, bool) and 0 < job < _HIGHEST_JOB else None


def _created(folder: Path) -> str:
    try:
        at = datetime.fromtimestamp(folder.stat().st_mtime, timezone.utc)
    except OSError:
        return now()
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
