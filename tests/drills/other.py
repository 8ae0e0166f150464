"""Faults of the clock, of the network, and of an upgrade."""

from __future__ import annotations

import contextlib
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from tests.drills import TESTS
from tests.drills.arena import Arena, Skipped
from tests.drills.daemon import Daemon, NotReady
from tests.drills.work import Lost

YEAR_S = 365 * 86_400.0


def clock_jumps(arena: Arena) -> None:
    """As on a board without a battery, which learns the time once it is on the network; and back again."""
    for seconds in (arena.random.choice([-YEAR_S, -3600, -1, 1, 3600, 30 * YEAR_S]), arena.random.uniform(-5, 5)):
        arena.jump(seconds)
        time.sleep(arena.random.uniform(0.2, 3))
    if arena.random.random() < 0.3:
        arena.jump(-YEAR_S)
        arena.restart()
        time.sleep(1)
    arena.jump(0)


def hub_cut(arena: Arena) -> None:
    """The connection breaks in the middle of a download, again and again."""
    if arena.hub is None:
        raise Skipped("there is no Hub in this drill")
    from mistudiod.worker.add_model import BUILTIN

    repository = f"org/m{arena.random.randrange(10**9)}"
    arena.hub.forget()
    arena.hub.add_model(repository, BUILTIN["pico"])
    size = (BUILTIN["pico"] / "model.safetensors").stat().st_size
    arena.hub.bytes_per_s = size / 2
    for _ in range(arena.random.randrange(1, 6)):
        arena.hub.cut_after("model.safetensors", arena.random.randrange(size))
    arena.work.add("model", {"kind": "add_model", "source": repository})
    time.sleep(arena.random.uniform(0, 3))
    if arena.random.random() < 0.5:
        arena.hub.refuse(arena.random.randrange(1, 4), status=503)


def migration_killed(arena: Arena) -> None:
    """The daemon is killed while it brings the database of the first version up to date, at a random statement."""
    folder = arena.home / "old"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(arena.random.choice(sorted(path for path in (TESTS / "data").glob("v*") if path.is_dir())), folder)
    before = rows(folder / "data" / "mistudio.db")
    for _ in range(3):
        killed_at(folder / "data", arena.random.randrange(1, 90))
    try:
        Daemon(folder / "data", arena.log, arena.environ).ready().end(signal.SIGTERM)
    except NotReady as refused:
        raise Lost(f"after a kill in the middle of a migration: {refused}") from refused
    after = rows(folder / "data" / "mistudio.db")
    if lost := [row for row in before if row not in after]:
        raise Lost(f"lost by a migration that was killed: {lost}")
    shutil.rmtree(folder)


def killed_at(data: Path, statement: int) -> int:
    """Migrate, and die without a word before that statement; 0 when there are not so many, else 9."""
    program = f"""
import os, sqlite3, sys
from pathlib import Path
from mistudiod.database import Database
seen = 0
def count(_):
    global seen
    seen += 1
    if seen == {statement}:
        os._exit(9)
connect = sqlite3.connect
def traced(*given, **named):
    connection = connect(*given, **named)
    connection.set_trace_callback(count)
    return connection
sqlite3.connect = traced
data = Path({str(data)!r})
Database(data / "mistudio.db", data / "backups")._open()
"""
    return subprocess.run([sys.executable, "-c", program], cwd=TESTS.parent).returncode


def rows(database: Path) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(database)) as db:
        jobs = db.execute("select id, kind, spec, state from jobs order by id").fetchall()
        return jobs + db.execute("select noun, name from artifacts order by noun, name").fetchall()
