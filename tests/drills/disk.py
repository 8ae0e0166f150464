"""Faults of the disk and what lies on it: full, read-only, cut off from power, damaged, gone."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import time
from pathlib import Path

from tests.drills.arena import Arena, Skipped
from tests.drills.daemon import NotReady
from tests.drills.ground import below, run
from tests.drills.work import Lost

PAGE_BYTES = 4096 + 24  # of the database's log
FLOOR_BYTES = 16 << 20  # what the studio itself leaves free


def full(arena: Arena) -> None:
    """Full to the last byte, or nearly so, for a few seconds."""
    if arena.ground.why_not:
        raise Skipped(arena.ground.why_not)
    arena.ground.fill(arena.random.choice([0, 0, FLOOR_BYTES // 2, FLOOR_BYTES + (1 << 20)]))
    try:
        time.sleep(arena.random.uniform(1, 6))
        if arena.random.random() < 0.3:  # and the daemon dies meanwhile
            arena.daemon.end(signal.SIGKILL)
    finally:
        arena.ground.free()
    if arena.daemon.process.poll() is not None:
        arena.again()


def full_at_start(arena: Arena) -> None:
    """The daemon comes up, or says in a sentence why not."""
    if arena.ground.why_not:
        raise Skipped(arena.ground.why_not)
    arena.cut()
    arena.ground.fill(0)
    try:
        arena.start().end(signal.SIGKILL)
    except NotReady as refused:
        in_a_sentence(refused)
    finally:
        arena.ground.free()
    arena.again()


def read_only_at_start(arena: Arena) -> None:
    """As a file system is that was found damaged: the daemon does not start, and says why."""
    if arena.ground.why_not:
        raise Skipped(arena.ground.why_not)
    arena.cut()
    arena.ground.remount("ro")
    try:
        arena.start().end(signal.SIGKILL)
    except NotReady as refused:
        in_a_sentence(refused)
    else:
        raise Lost("the daemon has started in a folder that is read-only")
    finally:
        arena.ground.remount("rw")
    arena.again()


def read_only(arena: Arena) -> None:
    """No file can be made or changed for a while, but those that are open."""
    folders = [path for path in [arena.data, *below(arena.data)] if path.is_dir() and not path.is_symlink()]
    was = {path: path.stat().st_mode for path in folders}
    try:
        for path in folders:
            path.chmod(0o500)
        time.sleep(arena.random.uniform(1, 5))
    finally:
        for path, mode in reversed(was.items()):  # what is above last: nobody may rename one that is not given back yet
            with contextlib.suppress(FileNotFoundError):  # a worker has gone meanwhile, and its folders with it
                path.chmod(mode)


def database_held(arena: Arena) -> None:
    """Another program writes to the database, for longer than its patience of 5 s at times."""
    with contextlib.closing(sqlite3.connect(arena.data / "mistudio.db", isolation_level=None, timeout=30)) as db:
        db.execute("begin immediate")
        time.sleep(arena.random.uniform(0.5, 8))
        db.execute("rollback")


def power_cut(arena: Arena) -> None:
    """What has not been written to the disk by now is gone."""
    if arena.ground.why_not:
        raise Skipped(arena.ground.why_not)
    arena.cut()
    arena.ground.lose_power()
    arena.again()


def copied_while_written(arena: Arena) -> None:
    """A copy of the folder, made file by file while workers go on; the daemon only is held still."""
    copy = arena.data.with_name("copy")
    os.kill(arena.daemon.pid, signal.SIGSTOP)
    copy_tree(arena.data, copy)
    arena.cut()
    in_place_of(arena.data, copy)
    arena.again()


def log_torn(arena: Arena) -> None:
    """The database's log ends in garbage that was about to be written; or its last pages never came to the disk, for
    that lied: what they told of is forgotten then, and all else goes on.
    """
    arena.cut()
    wal = arena.data / "mistudio.db-wal"
    size = wal.stat().st_size if wal.exists() else 0
    if size < 3 * PAGE_BYTES:
        arena.again()
        raise Skipped("the log was empty just now")
    with wal.open("r+b") as file:
        if arena.random.random() < 0.5:
            file.seek(0, os.SEEK_END)
            file.write(os.urandom(arena.random.randrange(1, 2 * PAGE_BYTES)))
        else:
            file.truncate(size - arena.random.randrange(1, 2 * PAGE_BYTES))
    arena.again()
    arena.forgotten("the torn end of the log told of it alone")


def database_deleted(arena: Arena) -> None:
    """Everything comes back from the folders; what was under way is stopped, and retried by a person."""
    arena.cut()
    waiting = arena.not_begun()
    for path in arena.data.glob("mistudio.db*"):
        path.unlink()
    if arena.random.random() < 0.5:
        arena.reindex()
    arena.again()
    arena.forgotten("a job that has not begun is in the database alone", waiting)


def copy_tree(source: Path, copy: Path) -> None:
    """As ``cp -a`` while others write: what goes away meanwhile is left out."""
    for path in below(source):
        target = copy / path.relative_to(source)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if path.is_dir():
                target.mkdir(parents=True, exist_ok=True)
            elif path.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, target)


def in_place_of(data: Path, copy: Path) -> None:
    shutil.rmtree(data)
    copy.rename(data)
    run("sync", "-f", str(data))  # it is a copy that has been made some time ago, should the power fail next


def in_a_sentence(refused: NotReady) -> None:
    last = refused.said.strip().splitlines()[-1:] or [""]
    if refused.code != 78 or "Traceback" in refused.said or len(last[0]) < 20:
        raise Lost(f"the daemon ended with {refused.code}, and no sentence: {refused.said}")
