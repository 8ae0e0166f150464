"""Jobs: submit, list, show, stop, pause, resume, retry, remove; their logs and metrics."""

from __future__ import annotations

import asyncio

from aiohttp import web

from mistudiod.api.body import answer, query_int, read_body
from mistudiod.api.keys import JOBS, PATHS, SCHEDULER
from mistudiod.errors import NotFound
from mistudiod.runner import TAIL_BYTES, read_tail
from mistudiod.specs import JobRequest

_MAX_LOG_BYTES = 16 << 20


def _id(request: web.Request) -> int:
    text = request.match_info["id"]
    if not text.isdigit() or len(text) > 18:
        raise NotFound(f"there is no job {text!r}")
    return int(text)


async def submit(request: web.Request) -> web.Response:
    job = await request.app[SCHEDULER].submit(await read_body(request, JobRequest))
    return answer(job, 201)


async def list_jobs(request: web.Request) -> web.Response:
    limit = query_int(request, "limit", 100, 1, 1000)
    found = await request.app[JOBS].newest(limit + 1, query_int(request, "before", 2**62, 1, 2**62))
    return answer({"jobs": found[:limit], "next": found[limit - 1]["id"] if len(found) > limit else None})


async def show(request: web.Request) -> web.Response:
    return answer(await request.app[JOBS].get(_id(request)))


async def stop(request: web.Request) -> web.Response:
    return answer(await request.app[SCHEDULER].stop(_id(request)))


async def pause(request: web.Request) -> web.Response:
    return answer(await request.app[SCHEDULER].pause(_id(request)))


async def resume(request: web.Request) -> web.Response:
    return answer(await request.app[SCHEDULER].resume(_id(request)))


async def retry(request: web.Request) -> web.Response:
    return answer(await request.app[SCHEDULER].retry(_id(request)))


async def remove(request: web.Request) -> web.Response:
    await request.app[SCHEDULER].remove(_id(request))
    return web.Response(status=204)


async def logs(request: web.Request) -> web.Response:
    job = await request.app[JOBS].get(_id(request))
    size = query_int(request, "tail_bytes", TAIL_BYTES, 1, _MAX_LOG_BYTES)
    text = await asyncio.to_thread(read_tail, request.app[PATHS].run(job["id"]) / "log.txt", size)
    return answer({"job": job["id"], "log": text})


async def metrics(request: web.Request) -> web.Response:
    after, limit = query_int(request, "after_step", -1, -1, 2**62), query_int(request, "limit", 5000, 1, 50_000)
    found = await request.app[JOBS].metrics(_id(request), after, limit)
    return answer({"metrics": found, "next": found[-1]["step"] if len(found) == limit else None})
