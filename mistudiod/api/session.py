"""The session: a model and SAEs of it that stay in memory."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from mistudiod.api import answers
from mistudiod.api.fields import Fields
from mistudiod.api.keys import INDEX, SESSION
from mistudiod.api.route import Asked, route
from mistudiod.errors import GpuBusy, NotFound, OutOfMemory, SessionBusy, SessionFailed, TooMany
from mistudiod.specs import Name, Precision
from mistudiod.tokens import Scope
from mistudiod.wanted import wanted

Duration = Annotated[str, Field(max_length=40)] | float
KeepAlive = Annotated[
    Duration | None,
    Field(
        description="how long the session stays when nobody uses it: a duration such as 5m, seconds, 0 not at all, -1 "
        "for ever; as it is, or as the daemon's settings say, when not given"
    ),
]
IfBusy = Annotated[
    Literal["refuse", "pause"],
    Field(
        description="when a job has the GPU: refuse, or pause the job for as long as the session lasts (one that "
        "has waited for a session is let get ahead first)"
    ),
]
REFUSALS = (NotFound, GpuBusy, SessionBusy, TooMany, SessionFailed, OutOfMemory)


class SessionBody(Fields):
    """What is to be in memory."""

    model: Name | None = Field(None, description="name of the model; that of the SAEs when not given")
    saes: list[Name] = Field(default_factory=list, max_length=20, description="names of SAEs of that model")
    precision: Precision | None = Field(
        None, description="of the model: that in which the first SAE was trained when not given"
    )
    keep_alive: KeepAlive = None
    hold: Duration | None = Field(None, description="how long, 1h at most, no queued job takes the GPU from it")
    if_busy: IfBusy = "refuse"


@route("GET", "/api/session", scope=Scope.READ, answer=answers.SessionShown)
async def show_session(asked: Asked[None]) -> Any:
    """Show the session, if there is one."""
    return {"session": await asked.app[SESSION].measured()}


@route("POST", "/api/session", scope=Scope.WRITE, body=SessionBody, answer=answers.Session, refusals=REFUSALS)
async def start_session(asked: Asked[None]) -> Any:
    """Load a model and SAEs, and answer when they are in memory. What is there already is not loaded again; a session
    with another model is ended when nobody uses it.
    """
    body = asked.body
    what = await wanted(asked.app[INDEX], body.model, body.saes, body.precision)
    return await asked.app[SESSION].start(what, body.keep_alive, body.hold, body.if_busy)


@route("DELETE", "/api/session", scope=Scope.WRITE)
async def stop_session(asked: Asked[None]) -> None:
    """End the session, if there is one; jobs that were paused for it go on."""
    await asked.app[SESSION].stop()


ROUTES = (show_session, start_session, stop_session)
