"""The index of what lies in the artifact folders. The folder is the truth; this can be rebuilt from it at any time."""

from __future__ import annotations

import json
import shutil
import sqlite3
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mistudiod.database import Database
from mistudiod.errors import NotFound
from mistudiod.jobs import now
from mistudiod.paths import PARTIAL, Paths

NOUNS = ("model", "dataset", "tokenization", "sae", "features")
# The file without which a folder is no artifact; its content is what the index shows.
_FILES = {
    "model": "model.json",
    "dataset": "dataset.json",
    "tokenization": "tokenization.json",
    "sae": "recipe.json",
    "features": "manifest.json",
}
Artifact = dict[str, Any]


class Index:
    def __init__(self, database: Database, paths: Paths) -> None:
        self._database, self._paths = database, paths

    async def add(self, noun: str, name: str, info: dict[str, Any], job: int | None) -> Artifact:
        def insert(db: sqlite3.Connection) -> Artifact:
            db.execute(
                """insert into artifacts (noun, name, job, created_at, info) values (?,?,?,?,?)
                   on conflict (noun, name) do update set info = excluded.info, job = excluded.job""",
                (noun, name, job, _created(self._paths.artifact(noun, name)), json.dumps(info)),
            )
            return self._get(db, noun, name)

        return await self._database.write(insert)

    async def get(self, noun: str, ref: str) -> Artifact:
        """By name or, when it is all digits, by id. Raises NotFound."""
        return await self._database.read(lambda db: self._get(db, noun, ref))

    async def all(self, noun: str, limit: int = 1000) -> list[Artifact]:
        return await self._database.read(
            lambda db: [
                self._artifact(row)
                for row in db.execute("select * from artifacts where noun = ? order by id limit ?", (noun, limit))
            ]
        )

    async def remove(self, noun: str, name: str) -> None:
        """Forget it, then delete the folder; a crash between leaves a folder that the next sweep removes."""
        folder = self._paths.artifact(noun, name)

        def delete(db: sqlite3.Connection) -> Path | None:
            db.execute("delete from artifacts where noun = ? and name = ?", (noun, name))
            if not folder.exists():
                return None
            trash = folder.with_name(f"{PARTIAL}deleted-{folder.name}-{now().replace(':', '')}")
            folder.rename(trash)
            return trash

        trash = await self._database.write(delete)
        if trash:
            shutil.rmtree(trash, ignore_errors=True)

    async def rebuild(self) -> int:
        """Make the index say what the folders hold; returns how many artifacts there are."""
        found = {(noun, name): info for noun in NOUNS for name, info in scan(self._paths, noun)}

        def replace(db: sqlite3.Connection) -> int:
            for row in db.execute("select id, noun, name from artifacts").fetchall():
                if (row["noun"], row["name"]) not in found:
                    db.execute("delete from artifacts where id = ?", (row["id"],))
            for (noun, name), info in found.items():
                db.execute(
                    """insert into artifacts (noun, name, job, created_at, info) values (?,?,?,?,?)
                       on conflict (noun, name) do update set info = excluded.info""",
                    (noun, name, info.get("job"), _created(self._paths.artifact(noun, name)), json.dumps(info)),
                )
            return len(found)

        return await self._database.write(replace)

    def _get(self, db: sqlite3.Connection, noun: str, ref: str) -> Artifact:
        column = "id" if ref.isdigit() else "name"
        row = db.execute(f"select * from artifacts where noun = ? and {column} = ?", (noun, ref)).fetchone()
        if row is None:
            raise NotFound(f"there is no {noun} {ref!r}")
        return self._artifact(row)

    def _artifact(self, row: sqlite3.Row) -> Artifact:
        folder = self._paths.artifact(row["noun"], row["name"])
        known = {"id": row["id"], "name": row["name"], "created_at": row["created_at"], "job": row["job"]}
        return {**json.loads(row["info"]), **known, "folder": str(folder)}


def read_info(paths: Paths, noun: str, name: str) -> dict[str, Any] | None:
    """What an artifact's folder says about itself; None when it is not whole."""
    try:
        info = json.loads((paths.artifact(noun, name) / _FILES[noun]).read_text())
    except (OSError, ValueError):
        return None
    return info if isinstance(info, dict) else None


def scan(paths: Paths, noun: str) -> list[tuple[str, dict[str, Any]]]:
    """Every whole artifact of a noun on disk: (name, info)."""
    top = paths.folder(noun)
    pattern = "*/*" if noun == "features" else "*"
    names = [p.relative_to(top).as_posix() for p in sorted(top.glob(pattern)) if PARTIAL not in p.as_posix()]
    read = [(name, read_info(paths, noun, name)) for name in names]
    return [(name, info) for name, info in read if info is not None]


def _created(folder: Path) -> str:
    try:
        at = datetime.fromtimestamp(folder.stat().st_mtime, timezone.utc)
    except OSError:
        return now()
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
