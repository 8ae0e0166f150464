"""Workers that a dead daemon has left: they are ended before anything else is started."""

from __future__ import annotations

import asyncio
import logging

from mistudiod import runner
from mistudiod.leases import Leases
from mistudiod.store import Jobs

log = logging.getLogger("mistudiod.orphans")


async def end_orphans(store: Jobs, leases: Leases) -> None:
    """Those of jobs and that of a session. What has the GPU has ended then."""
    left = [(f"job {one.job}", one) for one in await store.unfinished()]
    for whose, one in [*left, *(("the session", lease) for lease in await leases.left() if lease.job is None)]:
        if await asyncio.to_thread(runner.kill_orphan, one.pid, one.pid_starttime, one.boot_id):
            log.warning("%s: ended the worker that the last daemon left", whose)
