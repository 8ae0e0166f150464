"""The studio's state, and the machine's."""

from __future__ import annotations

import sys

from aiohttp import web

from mistudiod import __version__
from mistudiod.api.body import answer
from mistudiod.api.keys import JOBS, MONITOR, PATHS
from mistudiod.jobs import LIVE, State


async def status(request: web.Request) -> web.Response:
    jobs = request.app[JOBS]
    counts = {state.value: len(await jobs.in_state(state)) for state in (State.QUEUED, *sorted(LIVE))}
    python = ".".join(map(str, sys.version_info[:3]))
    data = str(request.app[PATHS].data)
    return answer({"name": "mistudio", "version": __version__, "python": python, "data": data, "jobs": counts})


async def now(request: web.Request) -> web.Response:
    history = request.app[MONITOR].history
    return answer(history[-1] if history else None)


async def history(request: web.Request) -> web.Response:
    return answer({"samples": list(request.app[MONITOR].history)})
