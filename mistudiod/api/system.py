"""The studio's state, and the machine's."""

from __future__ import annotations

import hashlib
import sys
from typing import Any

from mistudiod import __version__
from mistudiod.api import answers
from mistudiod.api.keys import JOBS, MONITOR, PATHS
from mistudiod.api.route import Asked, route
from mistudiod.jobs import LIVE, State
from mistudiod.peer import same_user
from mistudiod.runner import boot_id
from mistudiod.tokens import Scope


@route("GET", "/api/status", scope=Scope.READ, answer=answers.Status)
async def show_status(asked: Asked[None]) -> Any:
    """Say what the studio is, and how many jobs wait or run."""
    jobs = asked.app[JOBS]
    return {
        "name": "mistudio",
        "version": __version__,
        "python": ".".join(map(str, sys.version_info[:3])),
        "data": str(asked.app[PATHS].data),
        "jobs": {state.value: len(await jobs.in_state(state)) for state in (State.QUEUED, *sorted(LIVE))},
        "same_user": same_user(asked.request),
        # Through a tunnel somebody elsewhere looks like this user: the client compares this with its own.
        "machine": hashlib.sha256(boot_id().encode()).hexdigest()[:16],
    }


@route("GET", "/api/system", scope=Scope.READ, answer=answers.System)
async def show_system(asked: Asked[None]) -> Any:
    """Show the latest reading of the machine."""
    history = asked.app[MONITOR].history
    return history[-1] if history else None


@route("GET", "/api/system/history", scope=Scope.READ, answer=answers.SystemHistory)
async def show_history(asked: Asked[None]) -> Any:
    """Show the readings of the last ten minutes, one a second."""
    return {"samples": list(asked.app[MONITOR].history)}


ROUTES = (show_status, show_system, show_history)
