"""A data folder made of a backup, or only its database put in the place of one that is lost. The studio is down.

All of it is unpacked and checked in ``.partial-restoring`` first, then renamed to its place, the database last. While
that folder is there no studio starts; whoever restores again begins anew.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from mistudiod import backup_file, schema
from mistudiod.backup_file import BadBackup, Told, is_plain
from mistudiod.errors import StoreError
from mistudiod.index import read_object
from mistudiod.kept_backups import newest_copy
from mistudiod.paths import Paths, delete_tree, join, require_space, sync
from mistudiod.settled import settle

DATABASE = "mistudio.db"
_NEXT = f"{DATABASE}.next-"  # and since when it waits to take the place of the one that is there
_PLACES = ("models", "datasets", "tokens", "saes", "features", "incomplete", "runs", "templates", "settings.json")
_OURS = ("mistudiod.lock", "mistudiod.log", "lost+found")  # what an empty data folder may have in it


class Restored(NamedTuple):
    """``missing``: a line for each thing that has to be fetched or made again."""

    made_at: str
    host: str
    files: int
    stopped: int
    missing: list[str]


def restore(file: Path, paths: Paths, told: Told) -> Restored:
    """Fill the data folder, which must be empty and is locked. Raises StoreError; then the folder is as it was."""
    _make_empty(paths)
    staging = paths.restoring
    try:
        with _opened(file) as backup:
            require_space(paths.data, backup_file.about(backup)["bytes"])
            backup.seek(0)
            staging.mkdir(mode=0o700)
            known = backup_file.unpack(backup, staging, told=told)
        inside = Paths(staging)
        _check(inside.database)
        missing = _set_aside(inside, known["left_out"])
        stopped = _settled(inside.database, staging / "runs", known["made_at"])
        _publish(paths)
    except BaseException as error:
        _clear(paths)
        if isinstance(error, BadBackup | OSError):
            raise StoreError(f"{file} cannot be restored: {error}") from error
        raise
    return Restored(known["made_at"], str(known.get("host")), known["files"], stopped, missing)


def restore_database(file: Path | None, paths: Paths, told: Told) -> tuple[Path, list[Path]]:
    """Put the database of a backup, or of the newest copy, in its place. The data folder is locked.

    Returns which it is of, and where what was there is now. Raises StoreError; then nothing is changed.
    """
    source = file or newest_copy(paths.backups)
    if source is None:
        raise StoreError(f"there is no copy in {paths.backups}: name a backup, or run mistudiod reindex without one")
    staging = paths.backups / paths.restoring.name
    delete_tree(staging)
    try:
        staging.mkdir(parents=True, mode=0o700)
        copy = staging / DATABASE
        if source.suffix == ".db":
            require_space(staging, source.stat().st_size)
            shutil.copyfile(source, copy)
            at = datetime.fromtimestamp(source.stat().st_mtime, timezone.utc).isoformat(timespec="seconds")
        else:
            with _opened(source) as backup:
                require_space(staging, backup_file.about(backup)["bytes"])
                backup.seek(0)
                at = backup_file.unpack(backup, staging, lambda name: name == DATABASE, told)["made_at"]
        _check(copy)
        _settled(copy, paths.data / "runs", at)
        sync(copy)
        now = datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S")
        copy.rename(paths.database.with_name(f"{_NEXT}{now}"))
        return source, replace_database(paths)
    except (BadBackup, OSError) as error:
        raise StoreError(f"the database of {source} cannot be restored: {error}") from error
    finally:
        delete_tree(staging)


def replace_database(paths: Paths) -> list[Path]:
    """Put the database that waits beside the present one, if any, in its place; returns where what was there is now.

    It can be killed anywhere, and is called again before anybody opens a database. The old one's log goes with it:
    SQLite must not take it for that of the new one.
    """
    aside: list[Path] = []
    for copy in sorted(paths.data.glob(f"{_NEXT}*")):
        sync(paths.data)
        for ending in ("", "-wal", "-shm"):
            path = paths.database.with_name(f"{DATABASE}{ending}")
            if path.exists():
                aside.append(path.rename(path.with_name(f"{DATABASE}.until-{copy.name.removeprefix(_NEXT)}{ending}")))
        copy.rename(paths.database)
        sync(paths.data)
    return aside


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    """At its beginning, once it is known that this version can use it."""
    with open(file, "rb") as backup:
        known = backup_file.about(backup)
        if set(known["migrations"]) - schema.known():
            raise BadBackup(f"it was made by a newer miStudio ({known['version']:.40}): install that version")
        backup.seek(0)
        yield backup


def _make_empty(paths: Paths) -> None:
    """Take away what an earlier try has left. Raises StoreError when there is anything else."""
    if paths.restoring.exists():
        _clear(paths)
    if others := sorted(path.name for path in paths.data.iterdir() if path.name not in _OURS):
        raise StoreError(
            f"the data folder {paths.data} is not empty (it has {', '.join(others[:3])}): move it away first, or name "
            f"another one with --data; for the database alone say --database"
        )


def _clear(paths: Paths) -> None:
    """Everything in a folder that was empty before; what says that it is half comes last."""
    for name in (*_PLACES, DATABASE):
        delete_tree(paths.data / name)
    delete_tree(paths.restoring)


def _check(database: Path) -> None:
    """Raises BadBackup."""
    try:
        with closing(sqlite3.connect(database)) as db:
            db.execute("pragma journal_mode = delete")
            problem = db.execute("pragma quick_check(1)").fetchone()[0]
            newer = schema.applied(db) - schema.known()
            empty = not schema.applied(db)
    except sqlite3.Error as error:
        raise BadBackup(f"its database is damaged: {error}") from error
    if problem != "ok" or empty:
        raise BadBackup(f"its database is damaged: {problem if problem != 'ok' else 'it is empty'}")
    if newer:
        raise BadBackup(f"its database was written by a newer miStudio (it has {max(newer)}): install that version")


def _settled(database: Path, runs: Path, made_at: str) -> int:
    try:
        with closing(sqlite3.connect(database, isolation_level=None)) as db:
            db.execute("pragma foreign_keys = on")
            schema.migrate(db)  # what is settled is known by its present columns
            return settle(db, runs, made_at)
    except sqlite3.Error as error:
        raise BadBackup(f"its database cannot be used: {error}") from error


def _set_aside(inside: Paths, left_out: list[Mapping[str, Any]]) -> list[str]:
    """Of what is not whole nothing is listed by the studio; says how each thing can be had again."""
    named = {one["what"] for one in left_out if is_plain(one["what"])}
    lacking = {what for what in named if what.partition("/")[0] in _PLACES[:5]}
    for marker in sorted((inside.data / "models").glob("*/model.json")):
        if not Path(str((read_object(marker) or {}).get("path") or "-")).is_dir():
            lacking.add(f"models/{marker.parent.name}")
    gone = {what.partition("/")[2] for what in lacking if what.startswith("saes/")}
    lacking |= {f"features/{sae}/{path.name}" for sae in gone for path in (inside.data / "features" / sae).glob("*")}
    lines = []
    for what in sorted(lacking, key=lambda one: (_PLACES.index(one.partition("/")[0]), one)):
        folder, aside = join(inside.data, what), join(inside.incomplete, what)
        if folder.is_dir():
            aside.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(aside)
        lines.append(_how(what, aside))
    checkpoints = sum(str(one["what"]).endswith("/checkpoints") for one in left_out)
    if checkpoints:
        lines.append(f"checkpoints of {checkpoints} job{'s' * (checkpoints > 1)}: a training that goes on begins anew")
    return lines


def _how(what: str, folder: Path) -> str:
    place, _, name = what.partition("/")
    about = next((found for file in sorted(folder.glob("*.json")) if (found := read_object(file))), {})
    sae, name = _word(name.partition("/")[0]), _word(name)
    if place == "models":
        revision = f" --revision {_word(about['revision'])}" if about.get("revision") else ""
        return f"model {name}: mistudio model add {_word(about.get('source'))}{revision} --name {name}"
    if place == "datasets":
        return f"dataset {name}: mistudio dataset add {_word(about.get('source'))} --name {name}"
    if place == "tokens":
        dataset, model, context = (_word(about.get(word)) for word in ("dataset", "model", "context"))
        words = f"{dataset} --model {model} --context {context}"
        return f"tokenization {name}: mistudio dataset tokenize {words} --name {name}"
    if place == "saes":
        return f"SAE {name}: its weights; its labels wait for its folder in saes/, and its recipe is in incomplete/"
    return f"features of {sae}: mistudio feature extract {sae}"


def _word(found: object) -> str:
    """Of a command that a person may copy into a shell, out of a file that somebody may have given him."""
    return shlex.quote("".join(one if one.isprintable() else "?" for one in str(found)))


def _publish(paths: Paths) -> None:
    """Each to its place; the database comes last."""
    staging = paths.restoring
    os.sync()  # once, not for each of many small files
    for name in _PLACES:
        if (staging / name).exists():
            (staging / name).rename(paths.data / name)
    (staging / DATABASE).rename(paths.database)
    sync(paths.data)
    delete_tree(staging)
    sync(paths.data)
