"""What can be deleted without losing an SAE, by group: what it is, what is lost by it, and doing it."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from mistudiod import trash
from mistudiod.database import Database
from mistudiod.disk import bytes_of
from mistudiod.index import Index, read_object
from mistudiod.jobs import ENDED, State
from mistudiod.kept_backups import backups_in
from mistudiod.moving import FORMATS
from mistudiod.paths import PARTIAL, Paths, delete_tree, set_aside
from mistudiod.statements import marks, values
from mistudiod.trash import Trash
from mistudiod.users import users

What = Literal["trash", "checkpoints", "extractions", "exports", "activations", "maxima", "logs", "backups"]
WHAT: tuple[What, ...] = get_args(What)
LOST: dict[What, str] = {
    "trash": "SAEs that were removed, with their labels: they cannot be restored any more",
    "checkpoints": "SAEs as they were at earlier steps of a training that is over (SAE@STEP); the newest one stays",
    "extractions": "what earlier extractions have found, where a newer one of the SAE as it is shows its features",
    "exports": "SAEs as they were written for others: mistudio sae export writes them again",
    "activations": "activations that were kept for later trainings, which then run the model again",
    "maxima": "largest activations for steering: found again when they are needed, unless an extraction has them",
    "logs": "what the workers of jobs said that ended over 30 days ago; their records and metrics stay",
    "backups": "older backups, and the database as it was before it was upgraded or restored; the newest stay",
}
LOGS_KEPT = timedelta(days=30)
Clock = Callable[[], datetime]


class Thing(NamedTuple):
    """One thing that can go; ``features``: what the index calls it, of an extraction."""

    what: What
    path: Path
    features: str | None = None


def _utc() -> datetime:
    return datetime.now(timezone.utc)


class Cleaning:
    def __init__(self, database: Database, paths: Paths, index: Index, bin: Trash, clock: Clock = _utc) -> None:
        self._database, self._paths, self._index, self._trash, self._clock = database, paths, index, bin, clock
        self._one_at_a_time = asyncio.Lock()

    async def groups(self, what: Collection[What] = WHAT) -> list[dict[str, Any]]:
        """``[{"what", "things": how many, "bytes", "lost"}]`` of each of ``what``, in the order of ``WHAT``."""
        async with self._one_at_a_time:
            found = await self._database.read(lambda db: self._things(db, what))
            sizes = await asyncio.to_thread(lambda: [(thing.what, bytes_of(thing.path)) for thing in found])
        return _summed(sizes, what)

    async def clean(self, what: Collection[What]) -> list[dict[str, Any]]:
        """Delete what is of these groups now; returns what went, as ``groups`` has it."""
        async with self._one_at_a_time:
            sizes = await self._empty_trash() if "trash" in what else []
            things = [one for one in what if one != "trash"]
            taken = await self._database.write(lambda db: [self._take(db, one) for one in self._things(db, things)])
            for group, size, path in taken:
                if path is not None:
                    size = await asyncio.to_thread(bytes_of, path)
                    await asyncio.to_thread(delete_tree, path)
                sizes.append((group, size))
        return _summed(sizes, what)

    async def _empty_trash(self) -> list[tuple[What, int]]:
        sizes = {}
        for folder in await asyncio.to_thread(lambda: list(trash.folders(self._paths))):
            sizes[folder.name] = await asyncio.to_thread(bytes_of, folder)
        return [("trash", sizes.get(id, 0)) for id in await self._trash.empty()]

    def _take(self, db: sqlite3.Connection, thing: Thing) -> tuple[What, int, Path | None]:
        """Its group, its size, and where it is now: a file is gone; of a folder, which is set aside, the size is 0."""
        if thing.features is not None:
            return thing.what, 0, self._index.take_away(db, "features", thing.features)
        if thing.path.is_file():
            size = bytes_of(thing.path)
            thing.path.unlink(missing_ok=True)  # the nightly backup tidies too
            return thing.what, size, None
        return thing.what, 0, set_aside(thing.path)

    def _things(self, db: sqlite3.Connection, what: Collection[What]) -> list[Thing]:
        find: dict[What, Callable[[], Iterator[Path | Thing]]] = {
            "trash": lambda: trash.folders(self._paths),
            "checkpoints": lambda: _checkpoints(db, self._paths),
            "extractions": lambda: _extractions(db, self._paths),
            "exports": lambda: _exports(db, self._paths),
            "activations": lambda: _activations(db, self._paths),
            "maxima": lambda: (self._paths.data / "steering").glob("*.json"),
            "logs": lambda: _logs(db, self._paths, self._clock()),
            "backups": lambda: _backups(self._paths),
        }
        return [
            one if isinstance(one, Thing) else Thing(group, one)
            for group in WHAT
            if group in what
            for one in find[group]()
        ]


def _summed(sizes: list[tuple[What, int]], what: Collection[What]) -> list[dict[str, Any]]:
    found: dict[What, list[int]] = defaultdict(list)
    for group, size in sizes:
        found[group].append(size)
    return [
        {"what": group, "things": len(found[group]), "bytes": sum(found[group]), "lost": LOST[group]}
        for group in WHAT
        if group in what
    ]


def _checkpoints(db: sqlite3.Connection, paths: Paths) -> Iterator[Path]:
    """Of trainings that are over all but the newest whole one, of each group of SAEs that are trained together; where
    the training is done and none of its SAEs is left, here or in the trash, all of them. Those of an SAE that an
    unfinished job reads stay: it may read the SAE as it was at a checkpoint.
    """
    made = db.execute("select name, job from artifacts where noun = 'sae' and job is not null").fetchall()
    alive = {one.job for one in trash.trashed(paths)} | {row["job"] for row in made}
    read = {row["job"] for row in made if users(db, "sae", row["name"])}
    query = f"select id, state from jobs where kind = 'train' and state in ({marks(ENDED)}) order by id"
    for row in db.execute(query, values(ENDED)).fetchall():
        if row["id"] in read:
            continue
        of_use = row["state"] != State.DONE or row["id"] in alive
        folder = paths.run(row["id"]) / "checkpoints"
        numbers = sorted((int(one.name) for one in folder.glob("*") if one.name.isdecimal()), reverse=True)
        seen = set()
        for number in numbers:
            group = _whole(folder / str(number))
            if of_use and group not in seen:
                seen |= {group} - {None}  # of one that is damaged nobody knows which it could stand for: it stays
            else:
                yield folder / str(number)


def _whole(checkpoint: Path) -> str | None:
    """Of which SAEs a checkpoint is; None when it is damaged, as far as can be seen without reading it."""
    manifest = read_object(checkpoint / "manifest.json") or {}
    try:
        whole = (checkpoint / "state.safetensors").stat().st_size == manifest["bytes"]
        return json.dumps(manifest["about"].get("saes")) if whole else None
    except (OSError, KeyError, AttributeError):
        return None


def _extractions(db: sqlite3.Connection, paths: Paths) -> Iterator[Thing]:
    """Those before the newest, where that is of the SAE as it is and no unfinished job reads any."""
    for row in db.execute("select name, info from artifacts where noun = 'sae' order by id").fetchall():
        sae, sha256 = row["name"], json.loads(row["info"]).get("sae_sha256")
        query = (
            "select name, info from artifacts where noun = 'features' and substr(name, 1, length(?1) + 1) = ?1 || '/'"
        )
        found = sorted(db.execute(query, (sae,)).fetchall(), key=lambda one: -int(one["name"].rpartition("/")[2]))
        if len(found) < 2 or users(db, "sae", sae):
            continue
        if sha256 is None or json.loads(found[0]["info"]).get("sae_sha256") == sha256:
            yield from (Thing("extractions", paths.artifact("features", one["name"]), one["name"]) for one in found[1:])


def _exports(db: sqlite3.Connection, paths: Paths) -> Iterator[Path]:
    """Those that can be written again: of SAEs that are here, and that no unfinished job reads."""
    here = {row["name"] for row in db.execute("select name from artifacts where noun = 'sae'")}
    for folder in sorted(paths.exports.glob("*")):
        sae, _ = export_of(folder.name) or ("", "")
        if not folder.name.startswith(PARTIAL) and folder.is_dir() and sae in here and not users(db, "sae", sae):
            yield folder


def export_of(folder: str) -> tuple[str, str] | None:
    """SAE and format of a folder of exports; None when that is not one of ours."""
    sae, _, format = folder.rpartition("-")
    return (sae, format) if sae and format in FORMATS else None


def _activations(db: sqlite3.Connection, paths: Paths) -> Iterator[Path]:
    """Those of hooks that no unfinished training reads, which takes what it finds."""
    query = f"select spec from jobs where kind = 'train' and state not in ({marks(ENDED)})"
    hooks: set[str | None] = set()
    for row in db.execute(query, values(ENDED)).fetchall():
        spec = json.loads(row["spec"])
        hook = spec["hook"]
        hooks |= {spec.get("hook_out"), *([hook] if isinstance(hook, str) else hook)}
    for folder in sorted(paths.activations.glob("*")):
        belongs_to = (read_object(folder / "manifest.json") or {}).get("belongs_to")
        hook = belongs_to.get("hook") if isinstance(belongs_to, dict) else None
        if folder.is_dir() and not folder.name.startswith(PARTIAL) and (not hooks or hook not in {None, *hooks}):
            yield folder


def _backups(paths: Paths) -> Iterator[Path]:
    yield from backups_in(paths.backups)[:-1]
    yield from sorted(paths.backups.glob("*.db"))[:-1]
    for replaced in sorted(paths.data.glob(f"{paths.database.name}.until-*[0-9]"))[:-1]:
        yield from sorted(paths.data.glob(f"{replaced.name}*"))  # with its log


def _logs(db: sqlite3.Connection, paths: Paths, at: datetime) -> Iterator[Path]:
    before = (at - LOGS_KEPT).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    query = f"select id from jobs where state in ({marks(ENDED)}) and ended_at < ? order by id"
    for row in db.execute(query, (*values(ENDED), before)).fetchall():
        if (log := paths.run(row["id"]) / "log.txt").is_file():
            yield log
