"""The index of what lies in the artifact folders. The folder is the truth; this can be rebuilt from it at any time."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import re
import sqlite3
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mistudiod.certificates import CERTIFICATE, as_it_stands, in_short
from mistudiod.database import Database, tell
from mistudiod.errors import Invalid, NotFound
from mistudiod.jobs import now
from mistudiod.label_statements import forget as forget_labels
from mistudiod.paths import PARTIAL, Paths, delete_tree
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
            return self._put(db, noun, name, info, job)

        return await self._database.write(put)

    async def get(self, noun: str, ref: str) -> Artifact:
        """By name or, when it is all digits, by id. Raises NotFound."""
        return await self._database.read(lambda db: self._get(db, noun, ref))

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
            sae = self._get(db, "sae", ref)
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
        """Forget it, an SAE with its features, labels and ranges, then delete the folders.

        A crash between leaves them to the next sweep. Raises NotFound.
        """

        def forget(db: sqlite3.Connection) -> list[Path | None]:
            query = "select id, noun, name from artifacts where noun = ? and name = ?"
            rows = db.execute(query, (noun, name)).fetchall()
            if not rows:
                raise NotFound(f"there is no {noun} {name!r}")
            folders = [self._paths.artifact(noun, name)]
            if noun == "sae":
                _forget_said(db, name)
                like = "select id, noun, name from artifacts where noun = 'features' and substr(name, 1, ?) = ?"
                rows = db.execute(like, (len(name) + 1, f"{name}/")).fetchall() + rows
                folders.insert(0, self._paths.artifact("features", name))
            for row in rows:
                self._forget(db, row)
            return [set_aside(folder) for folder in folders]  # last: what fails before it leaves the folders alone

        for trash in await self._database.write(forget):
            if trash:
                await asyncio.to_thread(delete_tree, trash)

    async def rebuild(self) -> int:
        """Make the index say what the folders hold; returns how many artifacts there are."""
        found = await asyncio.to_thread(
            lambda: {(noun, name): info for noun in NOUNS for name, info in scan(self._paths, noun)}
        )

        def replace(db: sqlite3.Connection) -> int:
            known = {(row["noun"], row["name"]): row for row in db.execute("select * from artifacts").fetchall()}
            for key in known.keys() - found.keys():
                self._forget(db, known[key])
            for (noun, name), info in found.items():
                row = known.get((noun, name))
                if row is None or json.loads(row["info"]) != info:
                    self._put(db, noun, name, info, row["job"] if row else _job(info))
            return len(found)

        return await self._database.write(replace)

    def _put(self, db: sqlite3.Connection, noun: str, name: str, info: dict[str, Any], job: int | None) -> Artifact:
        db.execute(
            """insert into artifacts (noun, name, job, created_at, info) values (?,?,?,?,?)
               on conflict (noun, name) do update set info = excluded.info, job = coalesce(excluded.job, job)""",
            (noun, name, job, _created(self._paths.artifact(noun, name)), json.dumps(info)),
        )
        row = db.execute("select * from artifacts where noun = ? and name = ?", (noun, name)).fetchone()
        artifact = self._artifact(row)
        tell(db, "artifact", {**artifact, "noun": noun})
        return artifact

    def _forget(self, db: sqlite3.Connection, row: sqlite3.Row) -> None:
        db.execute("delete from artifacts where id = ?", (row["id"],))
        tell(db, "artifact", {"noun": row["noun"], "name": row["name"], "id": row["id"], "removed": True})

    def _get(self, db: sqlite3.Connection, noun: str, ref: str) -> Artifact:
        column = "id" if ref.isdecimal() else "name"
        row = db.execute(f"select * from artifacts where noun = ? and {column} = ?", (noun, ref)).fetchone()
        if row is None:
            raise NotFound(f"there is no {noun} {ref!r}")
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
        if row["noun"] == "sae" and isinstance(certificate := info.get("certificate"), dict):
            info["certificate"] = as_it_stands(certificate, folder)
        return {**info, **known, "folder": str(folder)}


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

    Of an SAE with a certificate, also what that says in short.
    """
    if not is_name(noun, name):
        return None
    folder = paths.artifact(noun, name)
    info = _read_object(folder / _FILES[noun])
    if info is not None and noun == "sae" and (found := _read_object(folder / CERTIFICATE)):
        info["certificate"] = in_short(found)
    return info


def _read_object(path: Path) -> dict[str, Any] | None:
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


def set_aside(folder: Path) -> Path | None:
    """Rename a folder to a partial one, for good even if the power fails now; None when there is no folder.

    From then on it is gone for everybody, and the next sweep deletes it if nobody has until then. Raises OSError.
    """
    trash = folder.with_name(f"{PARTIAL}deleted-{folder.name}-{now().replace(':', '')}")
    try:
        folder.rename(trash)
    except FileNotFoundError:
        return None
    handle = os.open(folder.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    return trash


def _job(info: dict[str, Any]) -> int | None:
    job = info.get("job")
    return job if isinstance(job, int) and not isinstance(job, bool) and 0 < job < _HIGHEST_JOB else None


def _created(folder: Path) -> str:
    try:
        at = datetime.fromtimestamp(folder.stat().st_mtime, timezone.utc)
    except OSError:
        return now()
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
