"""Jobs: submit, list, show, edit, stop, pause, resume, finalize, retry, remove; their logs; what is measured."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

from pydantic import Field

from mistudiod.api import answers, measured
from mistudiod.api.asks import JobPath, PageQuery
from mistudiod.api.body import matches
from mistudiod.api.fields import Fields
from mistudiod.api.keys import JOBS, PATHS, SCHEDULER, SETTINGS, UPLOADS
from mistudiod.api.route import Asked, route
from mistudiod.checkpoints import checkpoints
from mistudiod.errors import Changed, Conflict, Invalid, NotFound, TooMany
from mistudiod.jobs import State
from mistudiod.peer import same_user
from mistudiod.runner import TAIL_BYTES, read_tail
from mistudiod.sources import let_go, resolve
from mistudiod.specs import JobRequest, Name, Priority
from mistudiod.statements import Key
from mistudiod.tokens import Scope

_MAX_LOG_BYTES = 16 << 20
_KEY_LENGTH = 128
_ID = JobPath


class JobsQuery(PageQuery):
    state: State | None = Field(None, description="only jobs in this state")


class LogQuery(Fields):
    tail_bytes: int = Field(TAIL_BYTES, ge=1, le=_MAX_LOG_BYTES, description="how much of the log's end")


class MetricsQuery(Fields):
    after_step: int = Field(-1, ge=-1, lt=2**62, description="only later steps")
    sae: Name | None = Field(None, description="only those of this SAE")
    limit: int = Field(
        5000,
        ge=1,
        le=50_000,
        description="how many at most; a step is never cut in two, and comes whole if it has more",
    )


class JobEdit(Fields):
    """What may be changed of a queued job."""

    priority: Priority


@route(
    "POST", "/api/jobs", scope=Scope.WRITE, body=JobRequest, answer=answers.Job, status=201,
    refusals=(Conflict, NotFound, TooMany),
    headers={"Idempotency-Key": "the same key and body again give the same job (200), not another"},
)  # fmt: skip
async def submit_job(asked: Asked[None]) -> tuple[int, Any]:
    """Queue a job. It waits by itself for the jobs that make what it reads."""
    key = _key(asked)
    if key and (known := await asked.app[JOBS].submitted(key)):
        return 200, known
    spec = await resolve(
        asked.body.spec,
        same_user(asked.request),
        asked.app[SETTINGS].allowed_folders,
        asked.app[PATHS],
        asked.app[UPLOADS],
    )
    job, new = await asked.app[SCHEDULER].submit(asked.body.model_copy(update={"spec": spec}), key)
    return (201 if new else 200), job


def _key(asked: Asked[None]) -> Key | None:
    text = asked.request.headers.get("Idempotency-Key")
    if text is None:
        return None
    if not (0 < len(text) <= _KEY_LENGTH and text.isprintable()):
        raise Invalid(f"the Idempotency-Key must be 1 to {_KEY_LENGTH} printable characters")
    return Key(text, hashlib.sha256(asked.body.model_dump_json().encode()).hexdigest())


@route("GET", "/api/jobs", scope=Scope.READ, query=JobsQuery, answer=answers.JobPage)
async def list_jobs(asked: Asked[JobsQuery]) -> Any:
    """List jobs, the newest first."""
    limit, cursor = asked.query.limit, asked.query.cursor
    found = await asked.app[JOBS].newest(limit + 1, int(cursor) if cursor else 2**62, asked.query.state)
    return {"jobs": found[:limit], "next": str(found[limit - 1]["id"]) if len(found) > limit else None}


@route("GET", "/api/jobs/{id}", scope=Scope.READ, path=_ID, answer=answers.Job, tagged=True, refusals=(NotFound,))
async def show_job(asked: Asked[None]) -> Any:
    """Show a job."""
    return await asked.app[JOBS].get(asked.path.id)


@route(
    "PATCH", "/api/jobs/{id}", scope=Scope.WRITE, path=_ID, body=JobEdit, answer=answers.Job, tagged=True,
    refusals=(NotFound, Conflict, Changed), headers={"If-Match": "the ETag of the job as the caller knows it"},
)  # fmt: skip
async def edit_job(asked: Asked[None]) -> Any:
    """Give a queued job another priority."""
    tag = asked.request.headers.get("If-Match")
    return await asked.app[SCHEDULER].edit(
        asked.path.id, asked.body.priority, lambda job: tag is not None and not matches(tag, job)
    )


@route("DELETE", "/api/jobs/{id}", scope=Scope.WRITE, path=_ID, refusals=(NotFound, Conflict))
async def remove_job(asked: Asked[None]) -> None:
    """Delete an ended job's record, log and checkpoints; what it made stays."""
    await let_go(asked.app[UPLOADS], asked.app[JOBS], asked.path.id)
    await asked.app[SCHEDULER].remove(asked.path.id)


@route("POST", "/api/jobs/{id}/stop", scope=Scope.WRITE, path=_ID, answer=answers.Job, refusals=(NotFound, Conflict))
async def stop_job(asked: Asked[None]) -> Any:
    """End a job; what it has finished stays."""
    return await asked.app[SCHEDULER].stop(asked.path.id)


@route("POST", "/api/jobs/{id}/pause", scope=Scope.WRITE, path=_ID, answer=answers.Job, refusals=(NotFound, Conflict))
async def pause_job(asked: Asked[None]) -> Any:
    """Let a running job save where it is and make room."""
    return await asked.app[SCHEDULER].pause(asked.path.id)


@route(
    "POST", "/api/jobs/{id}/resume", scope=Scope.WRITE, path=_ID, answer=answers.Job,
    refusals=(NotFound, Conflict, TooMany),
)  # fmt: skip
async def resume_job(asked: Asked[None]) -> Any:
    """Let a paused job go on."""
    return await asked.app[SCHEDULER].resume(asked.path.id)


@route(
    "POST", "/api/jobs/{id}/finalize", scope=Scope.WRITE, path=_ID, answer=answers.Job,
    refusals=(NotFound, Conflict, TooMany),
)  # fmt: skip
async def finalize_job(asked: Asked[None]) -> Any:
    """End a training now, measured and saved as if it had come to its end; also one that paused, stopped or failed."""
    return await asked.app[SCHEDULER].finalize(asked.path.id)


@route(
    "POST", "/api/jobs/{id}/retry", scope=Scope.WRITE, path=_ID, answer=answers.Job,
    refusals=(NotFound, Conflict, TooMany),
)  # fmt: skip
async def retry_job(asked: Asked[None]) -> Any:
    """Queue a failed or stopped job again; it goes on from its last checkpoint."""
    return await asked.app[SCHEDULER].retry(asked.path.id)


@route(
    "GET", "/api/jobs/{id}/log", scope=Scope.READ, path=_ID, query=LogQuery, answer=answers.Log, refusals=(NotFound,)
)
async def show_log(asked: Asked[LogQuery]) -> Any:
    """Show the end of what a job's worker wrote."""
    job = await asked.app[JOBS].get(asked.path.id)
    log = asked.app[PATHS].run(job["id"]) / "log.txt"
    return {"job": job["id"], "log": await asyncio.to_thread(read_tail, log, asked.query.tail_bytes)}


@route(
    "GET", "/api/jobs/{id}/metrics", scope=Scope.READ, path=_ID, query=MetricsQuery, answer=measured.MetricPage,
    refusals=(NotFound,),
)  # fmt: skip
async def list_metrics(asked: Asked[MetricsQuery]) -> Any:
    """List a training's measurements, step by step."""
    query = asked.query
    return await asked.app[JOBS].metrics(asked.path.id, query.after_step, query.limit, query.sae)


@route("GET", "/api/jobs/{id}/live", scope=Scope.READ, path=_ID, answer=measured.LiveList, refusals=(NotFound,))
async def list_live(asked: Asked[None]) -> Any:
    """Show what a training's SAEs are learning: features of each, with their strongest windows so far."""
    return {"saes": await asked.app[JOBS].live(asked.path.id)}


@route(
    "GET",
    "/api/jobs/{id}/checkpoints",
    scope=Scope.READ,
    path=_ID,
    answer=measured.CheckpointList,
    refusals=(NotFound,),
)
async def list_checkpoints(asked: Asked[None]) -> Any:
    """List the checkpoints that a training has kept, the newest first."""
    job = await asked.app[JOBS].get(asked.path.id)
    return {"checkpoints": await asyncio.to_thread(checkpoints, asked.app[PATHS].run(job["id"]))}


ROUTES = (
    submit_job, list_jobs, show_job, edit_job, remove_job, stop_job, pause_job, resume_job, finalize_job, retry_job,
    show_log, list_metrics, list_live, list_checkpoints,
)  # fmt: skip
