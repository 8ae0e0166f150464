"""A start that takes long ends when the daemon is told to end, and nothing is half done then."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from service_manager import started
from test_daemon import SERVE

from mistudiod import schema

# A migration that would go on for ever, in a daemon that is otherwise as installed.
SLOW = f"""
from mistudiod import schema
@schema.migrations()
def m999_slow(db):
    db.execute("create table half (x)")
    db.execute("with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n").fetchall()
{SERVE}
"""


def heard(process: subprocess.Popen[str], text: str) -> str:
    """The line with that text, of what a daemon writes."""
    assert process.stderr is not None
    return next(line for line in iter(process.stderr.readline, "") if text in line)


def test_a_migration_that_is_under_way_is_taken_back(tmp_path: Path) -> None:
    file, copies = tmp_path / "mistudio.db", tmp_path / "backups"
    with contextlib.closing(sqlite3.connect(file)) as db:
        schema.migrate(db)
    command = [sys.executable, "-c", SLOW, "--data", str(tmp_path), "--port", "0", "serve"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as daemon:
        try:
            end = time.monotonic() + 30
            while not (copies.is_dir() and any(copies.iterdir()) and (tmp_path / "mistudio.db-wal").exists()):
                assert time.monotonic() < end and daemon.poll() is None
                time.sleep(0.02)
            time.sleep(0.3)  # well within the migration
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(60) == 0
        finally:
            daemon.kill()
    with contextlib.closing(sqlite3.connect(file)) as db:
        assert "m999_slow" not in schema.applied(db)
        assert db.execute("select count(*) from sqlite_master where name = 'half'").fetchone() == (0,)
        assert db.execute("pragma integrity_check").fetchone() == ("ok",)
    with started(tmp_path) as daemon_again:
        daemon_again.ready()


def test_a_daemon_that_waits_for_another_program_to_leave_the_database_ends_when_told_to(
    tmp_path: Path,
) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "mistudio.db", isolation_level=None)) as other:
        schema.migrate(other)
        other.execute("begin immediate")
        with started(tmp_path) as daemon:
            heard(daemon.process, "another program writes to the database")
            daemon.process.send_signal(signal.SIGTERM)
            assert daemon.process.wait(60) == 0


def test_it_goes_on_once_the_other_program_has_left(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "mistudio.db", isolation_level=None)) as other:
        schema.migrate(other)
        other.execute("begin immediate")
        with started(tmp_path) as daemon:
            heard(daemon.process, "another program writes to the database")
            other.execute("rollback")
            assert daemon.ready().call("/api/status")["name"] == "mistudio"
