"""Workers that a dead daemon has left: they are ended before anything else is started."""

from __future__ import annotations

import asyncio
import logging

from mistudiod import runner
from mistudiod.leases import Held, Leases
from mistudiod.store import Attempt, Jobs

log = logging.getLogger("mistudiod.orphans")


async def end_orphans(store: Jobs, leases: Leases) -> None:
    """Those of jobs and that of a session. What has the GPU has ended then."""
    left: dict[str, Attempt | Held] = {f"job {one.job}": one for one in await store.unfinished()}
    left |= {f"session {one.id}": one for one in await leases.left() if one.job is None}
    for whose, one in left.items():
        if await asyncio.to_thread(runner.kill_orphan, one.pid, one.pid_starttime, one.boot_id):
            log.warning("%s: ended the worker that the last daemon left", whose)
