"""What a worker says is written in its order, also where the database refuses for a while."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from mistudiod import insist
from mistudiod.bus import Bus
from mistudiod.database import Database
from mistudiod.errors import StoreError
from mistudiod.events import Progress
from mistudiod.hearing import Hearing
from mistudiod.index import Index
from mistudiod.paths import Paths
from mistudiod.specs import AddDataset, JobRequest
from mistudiod.store import Jobs
from mistudiod.turn import Turn


async def test_what_could_not_be_written_does_not_replace_what_was_said_after_it(tmp_path: Path) -> None:
    database, paths = Database(tmp_path / "mistudio.db", tmp_path / "backups"), Paths(tmp_path)
    await database.open()
    await database.write(lambda db: db.execute("pragma busy_timeout = 1000"))
    jobs = Jobs(database, Turn(0))
    job, _ = await jobs.add(JobRequest(spec=AddDataset(source="s", name="n")), [])
    written = lambda write: insist.written(write, lambda: False)  # noqa: E731
    hearing = Hearing(job, paths, jobs, Index(database, paths), Bus(), written, None)
    with closing(sqlite3.connect(database.path, isolation_level=None)) as other:
        other.execute("begin immediate")
        hearing._said.take(Progress(stage="read", done=1))
        first = asyncio.create_task(hearing._flush())
        await asyncio.sleep(0)
        hearing._said.take(Progress(stage="read", done=2))
        second = asyncio.create_task(written(hearing._flush))  # as an artifact has it, beside what is written regularly
        with pytest.raises(StoreError):
            await first
        other.execute("rollback")
    await second
    await hearing._flush()
    assert (await jobs.get(job["id"]))["progress"]["done"] == 2
    await database.close()
