"""What a backup holds, as it was at one moment: a copy of the database, and links to files that nobody writes to again.

Files of artifacts and records are only ever replaced, so a second name keeps each as it is while the studio goes on. Of
what is large a backup has only what says what it was.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from mistudiod import __version__, schema
from mistudiod.backup_file import Piece, is_plain
from mistudiod.errors import Conflict, StoreError
from mistudiod.jobs import now
from mistudiod.paths import PARTIAL, Paths, delete_tree, require_space

log = logging.getLogger("mistudiod.snapshot")
DATABASE = "mistudio.db"
SMALL_BYTES = 1 << 20  # what is not larger is taken whole; of what is, the JSON files
_THINGS = {"models": "*", "datasets": "*", "tokens": "*", "saes": "*", "features": "*/*"}
_WITH_SAES = ("saes", "features")
_ALWAYS = (".json", ".jsonl")
_PAGES = 256  # of the database, copied at once
_TRIES, _WAIT_S = 10, 0.3


class Stopped(Exception):
    """Nobody wants it any more."""


class LeftOut(NamedTuple):
    """``what``: a folder or a file below the data folder; ``bytes`` of it are not in the backup."""

    what: str
    bytes: int


class Contents(NamedTuple):
    files: list[Piece]
    left_out: list[LeftOut]


class Snapshot(NamedTuple):
    """``folder`` is to be deleted when the backup is written. ``about``: what the backup says of itself."""

    folder: Path
    about: dict[str, object]
    pieces: list[Piece]


def contents(paths: Paths, saes: bool) -> Contents:
    """The files that a backup would have now, beside the database. ``saes``: with SAEs' weights and features."""
    found = Contents([], [])
    if paths.settings.is_file():
        _add(found, paths.data, [paths.settings])
    _add(found, paths.data, [one for one in sorted((paths.data / "templates").glob("*.txt")) if one.is_file()])
    for place, pattern in _THINGS.items():
        for folder in sorted((paths.data / place).glob(pattern)):
            if folder.is_dir() and PARTIAL not in folder.relative_to(paths.data).as_posix():
                _add_thing(found, paths.data, folder, saes and place in _WITH_SAES)
    for run in sorted((paths.data / "runs").glob("[0-9]*")):
        if run.is_dir():
            _add_run(found, paths.data, run)
    return found


def take(paths: Paths, saes: bool, stop: threading.Event) -> Snapshot:
    """Raises Conflict when SAEs are moved all the while, StoreError, DiskFull, OSError; Stopped after ``stop``."""
    paths.backups.mkdir(exist_ok=True)
    folder = paths.backups / f"{PARTIAL}backup-{os.getpid()}-{time.time_ns()}"
    for _ in range(_TRIES):
        try:
            if (snapshot := _taken(paths, saes, stop, folder)) is not None:
                return snapshot
        except FileNotFoundError:
            log.info("what was to be in the backup was removed meanwhile; it is begun anew")
            delete_tree(folder)
        except BaseException:
            delete_tree(folder)
            raise
        if stop.wait(_WAIT_S):
            raise Stopped
    raise Conflict("SAEs or jobs are renamed or removed all the while: make the backup once that is over")


def database_bytes(paths: Paths) -> int:
    """What a copy takes at most: what is not in the database's own file yet lies in its log."""
    return sum(_size(path) for path in paths.data.glob(f"{DATABASE}*") if path.name in (DATABASE, f"{DATABASE}-wal"))


def copy_database(source: Path, target: Path, stop: threading.Event) -> list[str]:
    """As it is at one moment, while it is written to; returns its migrations. Neither readers nor the writer wait.

    Raises StoreError when it is damaged, Stopped.
    """

    def went_on(_status: int, _left: int, _total: int) -> None:
        if stop.is_set():
            raise Stopped

    try:
        uri = f"{source.absolute().as_uri()}?mode=ro"
        with (
            closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as db,
            closing(sqlite3.connect(target)) as copy,
        ):
            db.execute("begin")  # of this moment: otherwise each write would have the copy begin anew
            db.execute("select count(*) from sqlite_master").fetchone()
            db.backup(copy, pages=_PAGES, progress=went_on)
            copy.execute("pragma journal_mode = delete")  # one file
            problem = copy.execute("pragma quick_check(1)").fetchone()[0]
            if problem != "ok":
                raise sqlite3.DatabaseError(problem)
            return sorted(schema.applied(copy))
    except sqlite3.Error as error:
        raise StoreError(f"the database {source} cannot be copied: {error}; mistudiod doctor says more") from error


def _taken(paths: Paths, saes: bool, stop: threading.Event, folder: Path) -> Snapshot | None:
    """None when an SAE was on its way to another name meanwhile: database and folders would not agree."""
    before = _places(paths)
    require_space(paths.backups, database_bytes(paths))
    folder.mkdir(mode=0o700)
    migrations = copy_database(paths.database, folder / DATABASE, stop)
    found = contents(paths, saes)
    pieces = [_piece(DATABASE, folder / DATABASE)]
    for number, file in enumerate(found.files):
        if stop.is_set():
            raise Stopped
        pieces.append(_piece(file.name, _second_name(file.path, folder / str(number))))
    if before - _places(paths) or paths.moving.exists():
        delete_tree(folder)
        return None
    about: dict[str, object] = {
        "version": __version__, "made_at": now(), "host": socket.gethostname(), "migrations": migrations, "saes": saes,
        "left_out": [one._asdict() for one in found.left_out],
    }  # fmt: skip
    return Snapshot(folder, about, pieces)


def _places(paths: Paths) -> set[tuple[str, int]]:
    """Where artifacts lie, each with what tells it from another one of its name."""
    found = {("moving", 0)} if paths.moving.exists() else set()
    for place, pattern in _THINGS.items():
        for folder in (paths.data / place).glob(pattern):
            if PARTIAL not in folder.as_posix():
                found.add((folder.relative_to(paths.data).as_posix(), folder.stat().st_ino))
    return found


def _second_name(file: Path, other: Path) -> Path:
    try:
        os.link(os.path.realpath(file), other)  # a person may keep prompts elsewhere, and link to them
    except FileNotFoundError:
        raise
    except OSError:  # a file system without links, or another one
        require_space(other.parent, _size(file))
        shutil.copyfile(file, other)
    return other


def _add_thing(found: Contents, data: Path, folder: Path, whole: bool) -> None:
    files = list(_files(folder))
    if whole or sum(map(_size, files)) <= SMALL_BYTES:
        taken = files
    else:
        taken = [file for file in files if file.suffix in _ALWAYS]
    taken = [file for file in taken if is_plain(file.relative_to(data).as_posix())]
    _add(found, data, taken)
    left = set(files) - set(taken) | {path for path in folder.rglob("*") if path.is_symlink()}
    if left:
        found.left_out.append(LeftOut(folder.relative_to(data).as_posix(), sum(map(_size, left))))


def _add_run(found: Contents, data: Path, run: Path) -> None:
    """Of a job its record; neither its checkpoints nor a long log."""
    for path in sorted(run.iterdir()):
        name = path.relative_to(data).as_posix()
        if path.name.startswith(PARTIAL) or path.is_symlink() or not is_plain(name):
            continue
        if path.is_dir():
            found.left_out.extend([LeftOut(name, size)] if (size := sum(map(_size, _files(path)))) else [])
        elif path.suffix in _ALWAYS or _size(path) <= SMALL_BYTES:
            _add(found, data, [path])
        else:
            found.left_out.append(LeftOut(name, _size(path)))


def _add(found: Contents, data: Path, files: list[Path]) -> None:
    found.files.extend(_piece(file.relative_to(data).as_posix(), file) for file in files)


def _piece(name: str, path: Path) -> Piece:
    status = path.stat()
    return Piece(name, path, status.st_size, int(status.st_mtime))


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if PARTIAL not in path.name and stat.S_ISREG(path.lstat().st_mode):
            yield path


def _size(path: Path) -> int:
    return path.lstat().st_size
