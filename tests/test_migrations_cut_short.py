"""An upgrade that is cut short, by a kill or a full disk, changes nothing: the version before can go on."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from test_database import opened

from mistudiod import schema
from mistudiod.errors import StoreError

OLD = Path(__file__).parent / "data" / "v0.1.0" / "data" / "mistudio.db"
# Killed before the statement of that number, of all that the migrations run.
KILLED = """
import os, sqlite3, sys
from mistudiod import schema
path, dies_at = sys.argv[1], int(sys.argv[2])
db = sqlite3.connect(path, isolation_level=None)
db.execute("pragma journal_mode = wal")
db.execute("pragma synchronous = off")  # a kill is no power cut
db.execute("pragma cache_size = 1")  # what is changed goes to the disk before it is committed
steps = 0
def count(statement):
    global steps
    if not statement.lower().startswith(("select", "pragma", "--")):
        if steps == dies_at:
            os._exit(9)
        steps += 1
db.set_trace_callback(count)
schema.migrate(db)
"""


def state_of(path: Path) -> tuple[set[str], list[tuple[str, str]], list[tuple[object, ...]]]:
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("pragma integrity_check").fetchone() == ("ok",)
        tables = db.execute("select name, sql from sqlite_master where sql is not null order by name").fetchall()
        return schema.applied(db), tables, db.execute("select * from jobs order by id").fetchall()


def test_one_that_is_killed_before_any_of_its_statements_has_changed_nothing(tmp_path: Path) -> None:
    before = state_of(OLD)
    assert schema.known() - before[0]
    driver = tmp_path / "driver.py"
    driver.write_text(
        "import os, shutil, sys\n"
        "from mistudiod import schema\n"
        f"code = {KILLED!r}\n"
        "old, step, ended = sys.argv[1], 0, False\n"
        "while not ended:\n"
        "    path = sys.argv[2] + f'/{step}.db'\n"
        "    shutil.copyfile(old, path)\n"
        "    if (child := os.fork()) == 0:\n"
        "        sys.argv = ['', path, str(step)]\n"
        "        exec(code)\n"
        "        os._exit(0)\n"
        "    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0\n"
        "    step += 1\n"
    )
    subprocess.run([sys.executable, str(driver), str(OLD), str(tmp_path)], check=True)
    *killed, whole = sorted(tmp_path.glob("*.db"), key=lambda path: int(path.stem))
    assert len(killed) > 30, "it has many statements"
    for path in killed:
        assert state_of(path) == before, path.name
    assert state_of(whole)[0] == schema.known()


async def test_on_a_full_disk_it_is_refused_and_the_version_before_can_go_on(tmp_path: Path) -> None:
    shutil.copyfile(OLD, tmp_path / "mistudio.db")
    before = state_of(tmp_path / "mistudio.db")

    @schema.migrations()
    def m999_larger_than_the_disk(db: object) -> None:
        db.execute("create table large (x)")  # type: ignore[attr-defined]
        db.execute("pragma max_page_count = 60")  # type: ignore[attr-defined]
        db.execute("insert into large select zeroblob(10000000)")  # type: ignore[attr-defined]

    try:
        with pytest.raises(StoreError, match=r"cannot be brought up to date \(.*full\); nothing in it was changed"):
            await opened(tmp_path)
    finally:
        schema.migrations._migrations.pop()
    assert state_of(tmp_path / "mistudio.db") == before
    (copy,) = (tmp_path / "backups").iterdir()
    assert state_of(copy)[2] == before[2]
    await (await opened(tmp_path)).close()
    assert state_of(tmp_path / "mistudio.db")[0] == schema.known()


async def test_a_copy_that_cannot_be_finished_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would pass for the newest one, and be put back."""
    shutil.copyfile(OLD, tmp_path / "mistudio.db")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mistudiod.database.sync", full)
    with pytest.raises(StoreError, match="cannot be brought up to date"):
        await opened(tmp_path)
    assert list((tmp_path / "backups").iterdir()) == []


async def test_a_database_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    await (await opened(tmp_path)).close()
    with closing(sqlite3.connect(tmp_path / "mistudio.db")) as db:
        query = (
            "insert into _sqlite_migrations (migration_set, name, applied_at) values ('mistudio', 'm901_of_later', '')"
        )
        db.execute(query)
        db.commit()
    before = state_of(tmp_path / "mistudio.db")
    with pytest.raises(StoreError, match=r"written by a newer miStudio \(it has m901_of_later\); install that version"):
        await opened(tmp_path)
    assert state_of(tmp_path / "mistudio.db") == before and not (tmp_path / "backups").exists()
