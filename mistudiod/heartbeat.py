"""The service manager is told, again and again, that the daemon is well and what it works at; or to wait for it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Sequence

from mistudiod.busy import described
from mistudiod.database import Database
from mistudiod.errors import StoreError
from mistudiod.notify import Notify
from mistudiod.statements import Job
from mistudiod.store import Jobs

log = logging.getLogger("mistudiod.heartbeat")
_EVERY_S = 5.0
_ANSWER_S = 4.0  # for the writer: less than it waits for another program's lock, which is no answer
_WAIT_S = 30.0  # that the manager is asked for at once
_NAMED = 3  # jobs, in the line of what is at work


async def beat(notify: Notify, database: Database, jobs: Jobs) -> None:
    """Until cancelled. A daemon whose event loop stands still, or whose writer does, is not well: it is not said."""
    every_s = min(_EVERY_S, notify.watchdog_s / 4) if notify.watchdog_s else _EVERY_S
    said = ""
    while notify.address:
        lag_s = await _lag(every_s)
        if lag_s >= every_s:
            log.warning("the event loop stood still for %.1f s", lag_s)
        elif not await _answers(database, min(_ANSWER_S, every_s)):
            log.warning("the writer of the database does not answer; if it stays so, the service is started again")
        else:
            notify.say(WATCHDOG=1)
        with contextlib.suppress(StoreError, sqlite3.Error):
            if (found := at_work(await jobs.at_work())) != said:
                notify.say(STATUS=found)
                said = found


def at_work(jobs: Sequence[Job]) -> str:
    """As ``job 7 (train s: train, 45 %, about 3 min left)``."""
    if not jobs:
        return "nothing is at work"
    more = f"; and {len(jobs) - _NAMED} more" if len(jobs) > _NAMED else ""
    return "; ".join(map(described, jobs[:_NAMED])) + more


@contextlib.asynccontextmanager
async def patience(notify: Notify, what: str, limit_s: float) -> AsyncIterator[None]:
    """While the block runs, for ``limit_s`` at most, the manager is asked to wait for it and told what it is."""

    async def ask() -> None:
        end = time.monotonic() + limit_s
        while (left_s := min(_WAIT_S, end - time.monotonic())) > 0:
            notify.say(STATUS=what, EXTEND_TIMEOUT_USEC=int(left_s * 1e6))
            await asyncio.sleep(_WAIT_S / 3)

    asking = asyncio.create_task(ask())
    try:
        yield
    finally:
        asking.cancel()


async def _lag(every_s: float) -> float:
    """Seconds by which the event loop woke us late, after ``every_s``."""
    begun = time.monotonic()
    await asyncio.sleep(every_s)
    return time.monotonic() - begun - every_s


async def _answers(database: Database, limit_s: float) -> bool:
    try:
        await asyncio.wait_for(database.ping(), limit_s)
    except asyncio.TimeoutError:
        return False
    except StoreError:  # a full disk, say: another daemon would be refused too
        return True
    return True
