"""What runs at this moment, and what memory it takes."""

from __future__ import annotations

import asyncio
from typing import Any

from mistudiod.api import answers
from mistudiod.api.keys import JOBS, SCHEDULER, SESSION
from mistudiod.api.route import Asked, route
from mistudiod.busy import name_of
from mistudiod.errors import NotFound
from mistudiod.jobs import LIVE
from mistudiod.memory import measured
from mistudiod.tokens import Scope


@route("GET", "/api/ps", scope=Scope.READ, answer=answers.RunningList)
async def list_running(asked: Asked[None]) -> Any:
    """List the jobs that run, how far they are, and their memory; and the session."""
    jobs, found = asked.app[JOBS], []
    for id in await jobs.in_state(*LIVE):
        try:
            job = await jobs.get(id)
        except NotFound:
            continue  # it has ended and was removed while the others were measured
        if job["state"] not in LIVE:
            continue
        pid = asked.app[SCHEDULER].pids().get(id)  # none yet while the job's plan is made
        memory_bytes, gpu_bytes = (None, None) if pid is None else await asyncio.to_thread(measured, pid)
        progress = job["progress"] or dict.fromkeys(("stage", "done", "total", "unit", "eta_s"))
        about = {"job": id, "kind": job["kind"], "name": name_of(job), "state": job["state"], "pid": pid}
        predicted = (job["plan"] or {}).get("peak_bytes")
        memory = {"predicted_bytes": predicted, "measured_bytes": memory_bytes, "gpu_bytes": gpu_bytes}
        found.append({**about, **progress, **memory})
    return {"running": found, "session": await asked.app[SESSION].measured()}
