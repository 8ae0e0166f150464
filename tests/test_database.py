"""The database: migrations, backups, refusals, one writer."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from mistudiod import schema
from mistudiod.database import Database
from mistudiod.errors import Conflict, StoreError
from mistudiod.jobs import LIVE, MOVES, State
from mistudiod.specs import AddDataset, JobRequest
from mistudiod.store import Jobs
from mistudiod.turn import Turn


async def opened(path: Path) -> Database:
    database = Database(path / "mistudio.db", path / "backups")
    await database.open()
    return database


async def test_a_new_database_is_migrated_and_needs_no_backup(tmp_path: Path) -> None:
    database = await opened(tmp_path)
    assert await database.read(lambda db: db.execute("select count(*) from jobs").fetchone()[0]) == 0
    await database.close()
    assert not (tmp_path / "backups").exists()


async def test_pragmas_are_those_of_a_machine_that_may_be_unplugged(tmp_path: Path) -> None:
    database = await opened(tmp_path)

    def pragmas(db: sqlite3.Connection) -> list[object]:
        return [db.execute(f"pragma {p}").fetchone()[0] for p in ("journal_mode", "synchronous", "foreign_keys")]

    assert await database.write(pragmas) == ["wal", 2, 1]
    await database.close()


async def test_a_migration_of_a_used_database_is_preceded_by_a_copy(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "mistudio.db")) as db:
        schema.migrate(db)

    @schema.migrations()
    def m999_only_here(db: object) -> None:
        db.execute("create table extra (x)")  # type: ignore[attr-defined]

    try:
        database = await opened(tmp_path)
        await database.close()
        copies = list((tmp_path / "backups").iterdir())
        assert len(copies) == 1
        with closing(sqlite3.connect(copies[0])) as db:
            assert db.execute("select count(*) from sqlite_master where name = 'extra'").fetchone() == (0,)
        schema.migrations._migrations.pop()
        with pytest.raises(StoreError, match="newer miStudio"):
            await opened(tmp_path)
    finally:
        schema.migrations._migrations = [m for m in schema.migrations._migrations if m.name != "m999_only_here"]


def asked(name: str) -> JobRequest:
    return JobRequest(spec=AddDataset(source="s", name=name))


async def test_a_cancelled_await_does_not_cancel_the_write(tmp_path: Path) -> None:
    database = await opened(tmp_path)
    jobs = Jobs(database, Turn(0))
    task = asyncio.create_task(jobs.add(asked("n"), []))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await jobs.add(asked("m"), []))[0]["id"] == 2
    await database.close()


async def test_readers_cannot_write(tmp_path: Path) -> None:
    database = await opened(tmp_path)
    with pytest.raises(sqlite3.OperationalError):
        await database.read(lambda db: db.execute("delete from jobs"))
    await database.close()


async def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    database = await opened(tmp_path)

    def half(db: sqlite3.Connection) -> None:
        db.execute("insert into artifacts (noun, name, created_at, info) values ('sae', 'x', '', '{}')")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await database.write(half)
    assert await database.read(lambda db: db.execute("select count(*) from artifacts").fetchone()[0]) == 0
    await database.close()


@pytest.mark.parametrize("old", list(State))
async def test_the_store_makes_every_legal_move_and_refuses_every_other(tmp_path: Path, old: State) -> None:
    database = await opened(tmp_path)
    jobs = Jobs(database, Turn(0))
    for i, new in enumerate(State):
        job = (await jobs.add(asked(f"n{i}"), []))[0]["id"]
        await database.write(lambda db, job=job: db.execute("update jobs set state = ? where id = ?", (old.value, job)))
        if new in MOVES[old]:
            assert (await jobs.move(job, new))["state"] == new.value
        else:
            with pytest.raises(Conflict, match=f"is {old.value} and cannot become {new.value}"):
                await jobs.move(job, new)
    await database.close()


def test_every_live_state_can_be_interrupted_and_no_end_is_a_trap_but_done() -> None:
    assert all(State.INTERRUPTED in MOVES[state] for state in LIVE)
    assert [state for state, moves in MOVES.items() if not moves] == [State.DONE]


async def test_what_one_job_made_and_measured_before_there_were_grids_is_known_as_its_saes(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "mistudio.db")) as db:
        schema.migrations.apply(schema._wrap(db), stop_before="m004_grids_of_saes")
        query = """insert into jobs (id, kind, lane, spec, state, created_at, noun, name)
                   values (?, ?, 'gpu', '{}', ?, '', ?, ?)"""
        db.execute(query, (1, "train", "running", "sae", "S"))
        db.execute(query, (2, "steer", "done", None, None))
        db.execute(query, (3, "add_dataset", "done", "dataset", "d"))
        db.executemany("insert into metrics values (?, ?, '{}')", [(1, 0), (1, 5), (2, 0), (3, 0)])
        db.commit()
    database = await opened(tmp_path)
    jobs = Jobs(database, Turn(0))
    assert (await jobs.get(1))["makes"] == {"noun": "sae", "name": "S", "names": ["S"]}
    assert ((await jobs.get(2))["makes"], (await jobs.get(1))["finalize"]) == (None, False)
    assert await jobs.maker_of("sae", "s") == 1, "and its name is still claimed, whatever the case"
    assert (await jobs.metrics(1, -1, 10))["metrics"] == [
        {"step": 0, "sae": "S", "values": {}}, {"step": 5, "sae": "S", "values": {}},
    ]  # fmt: skip
    assert [(await jobs.metrics(job, -1, 10))["metrics"][0]["sae"] for job in (2, 3)] == [None, None]
    await database.close()
