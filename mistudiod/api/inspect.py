"""Read a text with an SAE and answer at once: a job that goes before the others, if the GPU lane is free."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

from pydantic import Field, create_model

from mistudiod.api.asks import RefPath
from mistudiod.api.fields import Fields
from mistudiod.api.keys import BUS, INDEX, JOBS, SCHEDULER, SESSION, SETTINGS
from mistudiod.api.route import Asked, route
from mistudiod.bus import Subscription
from mistudiod.busy import described
from mistudiod.errors import Conflict, Invalid, NotFound, StudioError, TooMany
from mistudiod.jobs import ENDED, LIVE, State
from mistudiod.specs import Inspect, JobRequest
from mistudiod.statements import Job
from mistudiod.tokens import Scope

LEAST_LIMIT_S = 60.0  # to load a model may take longer than any preview
_LOOK_S = 0.2  # how often we look whether whoever asked is still there
_PRIORITY = 100


class InspectFailed(StudioError):
    status, code = 500, "inspect_failed"


class StillInspecting(StudioError):
    """It takes longer than anybody waits; the job goes on."""

    status, code = 504, "still_running"


class Fires(Fields):
    index: int = Field(description="of the feature")
    value: float = Field(description="its activation")


class ReadToken(Fields):
    id: int
    text: str = Field(description="empty for all tokens of a character but the last; joined they are the whole text")
    special: bool = Field(description="whether it is a special token, as BOS is: on those no feature fires")
    outlier: bool = Field(description="whether it is an outlier, which training left out: on those no feature fires")
    features: list[Fires] = Field(description="the strongest first")


class Pooled(Fields):
    index: int = Field(description="of the feature")
    max: float = Field(description="its largest activation on the text")
    tokens: int = Field(description="on how many tokens it fires")
    peak: int = Field(description="number of the token on which it is strongest")


class Inspected(Fields):
    sae: str
    top: int = Field(description="features of a token that are shown at most; fewer than asked for of a long text")
    tokens: list[ReadToken]
    pooled: list[Pooled] = Field(description="features of the text as a whole, the strongest first, 1,000 at most")
    left_out: int = Field(description="features that fire on the text and were ignored, as too dense")
    l0: float = Field(description="features that fire on a token of the text, ignored ones too")


_ASKED: dict[str, Any] = {
    name: (field.annotation, field) for name, field in Inspect.model_fields.items() if name not in ("kind", "sae")
}
InspectBody = create_model("InspectBody", __base__=Fields, **_ASKED)


@route(
    "POST", "/api/saes/{ref}/inspect", scope=Scope.WRITE, path=RefPath, body=InspectBody, answer=Inspected,
    refusals=(NotFound, Conflict, TooMany, InspectFailed, StillInspecting),
)  # fmt: skip
async def inspect_text(asked: Asked[None]) -> Any:
    """Show which features of an SAE fire on which token of a text. Only while nothing else has the GPU lane."""
    sae = (await asked.app[INDEX].get("sae", asked.path.ref))["name"]
    await _refuse_when_busy(asked, sae)
    request = JobRequest(spec=Inspect(sae=sae, **asked.body.model_dump()), priority=_PRIORITY)
    with asked.app[BUS].subscribe(frozenset({"job"})) as told:
        job, _ = await asked.app[SCHEDULER].submit(request)
        return _answer(await _ended(asked, told, job), sae)


async def _refuse_when_busy(asked: Asked[None], sae: str, but: int | None = None) -> None:
    """Raises Conflict when a job other than ``but`` has the GPU lane, or a session that gives way to none."""
    session = asked.app[SESSION].shown()
    if session is not None and session["held_until"] is not None:
        raise Conflict(
            f"the session with {session['model']} holds the GPU until {session['held_until']}: end it with "
            f"mistudio session stop, or queue this text behind it with mistudio feature inspect {sae}"
        )
    jobs = asked.app[JOBS]
    for id in await jobs.in_state(*LIVE):
        with contextlib.suppress(NotFound):
            job = await jobs.get(id)
            if job["lane"] == "gpu" and job["state"] in LIVE and id != but:
                raise Conflict(
                    f"{described(job)} has the GPU lane: wait for it, or queue this text behind it with "
                    f"mistudio feature inspect {sae}"
                )


async def _ended(asked: Asked[None], told: Subscription, job: Job) -> Job:
    """The job at its end; it is stopped when whoever asked has gone, or another job was faster to the lane."""
    jobs, id = asked.app[JOBS], job["id"]
    limit_s = max(asked.app[SETTINGS].preview_limit_s, LEAST_LIMIT_S)
    end = time.monotonic() + limit_s
    while job["state"] not in ENDED:
        if told.closed:
            raise Conflict(f"the studio is stopping; job {id} goes on when it is up again")
        if time.monotonic() > end:
            raise StillInspecting(
                f"job {id} is not done after {limit_s:.0f} s and goes on: its result will be in mistudio job show {id}"
            )
        try:
            if _is_gone(asked):
                raise Conflict(f"job {id} was stopped: nobody waits for it any more")
            if job["state"] == State.QUEUED:
                await _refuse_when_busy(asked, job["spec"]["sae"], but=id)
        except Conflict:
            with contextlib.suppress(Conflict, NotFound):  # it has ended meanwhile
                await asked.app[SCHEDULER].stop(id)
            raise
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(told.take(), _LOOK_S)
        job = await jobs.get(id)
    return job


def _is_gone(asked: Asked[None]) -> bool:
    transport = asked.request.transport
    return transport is None or transport.is_closing()


def _answer(job: Job, sae: str) -> dict[str, Any]:
    if job["state"] == State.DONE and job["result"] is not None:
        result: dict[str, Any] = job["result"]
        return result
    if job["state"] == State.STOPPED:
        raise Conflict(f"job {job['id']}, which read the text with {sae}, was stopped")
    error = job["error"] or {"code": "internal", "message": "the worker ended without an answer"}
    if error["code"] == "invalid":
        field = error.get("field")
        raise Invalid(error["message"], {field: error["message"]} if field else None)
    raise InspectFailed(f"job {job['id']}: {error['message']}")


ROUTES = (inspect_text,)
