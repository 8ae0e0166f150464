"""Server-sent events (WHATWG HTML, section 9.2): what happens, as it happens, and what a reader has missed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from typing import Any

from aiohttp import web
from pydantic import BaseModel, Field

from mistudiod.api import answers, measured
from mistudiod.api.doors import authenticate, while_good
from mistudiod.api.fields import Fields
from mistudiod.api.keys import BUS, DATABASE, INDEX, JOBS
from mistudiod.api.route import Asked, route
from mistudiod.bus import Bus, Message, Subscription
from mistudiod.errors import Invalid, NotFound, TooMany
from mistudiod.index import NOUNS
from mistudiod.jobs import ENDED, State
from mistudiod.missed import missed
from mistudiod.tokens import Scope


class ProgressOfJob(answers.Progress):
    job: int


class MetricOfJob(measured.Metric):
    job: int


class LiveOfJob(measured.Live):
    job: int


class LabelsOfJob(Fields):
    job: int
    sae: str = Field(description="whose features have been labelled or scored")
    labels: int = Field(description="that this run of the job has given so far")
    scores: int


class ArtifactOfNoun(answers.Artifact):
    noun: str


class Snapshot(Fields):
    jobs: list[answers.Job]
    artifacts: list[dict[str, Any]]


# Of each event: its data, whether it has an id, and what it tells.
TOPIC_MODELS: dict[str, tuple[type[BaseModel], bool, str]] = {
    "job": (answers.Job, True, "a job's state; of one that was removed only `id` and `removed`"),
    "artifact": (ArtifactOfNoun, True, "a model, dataset, tokenization, SAE or its features came, or was `removed`"),
    "progress": (ProgressOfJob, False, "how far a stage of a job has come"),
    "metric": (MetricOfJob, False, "what was measured at a step of training, of each SAE"),
    "live": (LiveOfJob, False, "what an SAE is learning: some features and their strongest windows so far"),
    "labels": (LabelsOfJob, False, "labels of an SAE's features, or scores of them, have come: how many so far"),
    "system": (answers.System, False, "a reading of the machine, each second, as `GET /api/system` gives it"),
    "session": (answers.SessionShown, False, "what the session is doing; null when there is none"),
    "reset": (Snapshot, True, "you have missed too much: unfinished and newest jobs, and what artifacts there are"),
}
_ALWAYS = frozenset({"reset"})
TOPICS = frozenset(TOPIC_MODELS) - _ALWAYS
_SEND_LIMIT_S = 60.0  # a peer that takes nothing for this long is gone
_STREAMS = 256
_SNAPSHOT_JOBS = 100
HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


class EventsQuery(Fields):
    topics: str = Field(
        ",".join(sorted(TOPICS)),
        max_length=200,
        description="which events: job, progress, metric, live, labels, artifact, session, system",
    )
    after: int | None = Field(None, ge=0, description="resume after this event, as Last-Event-ID does")


@route(
    "GET", "/api/events", scope=Scope.READ, query=EventsQuery, media="text/event-stream", refusals=(TooMany,),
    headers={"Last-Event-ID": "the last event that the reader has seen"},
)  # fmt: skip
async def events(asked: Asked[EventsQuery]) -> web.StreamResponse:
    """Follow what happens. State events have an id and are replayed to a reader who comes back with the last."""
    topics = frozenset(asked.query.topics.split(","))
    if unknown := sorted(topics - TOPICS):
        known = ", ".join(sorted(TOPICS))
        raise Invalid(f"there is no topic {unknown[0]!r}; topics are {known}", {"topics": "unknown"})
    bus = asked.app[BUS]
    if len(bus) >= _STREAMS:
        raise TooMany(f"{_STREAMS} event streams are open already; close one")
    response = web.StreamResponse(headers=HEADERS)
    granted = await authenticate(asked.request)
    with bus.subscribe(topics) as subscription, while_good(asked.app, granted, subscription.close):
        await response.prepare(asked.request)
        try:
            await send(asked.request, response, b"retry: 2000\n\n")
            last = bus.newest
            if (seen := _last_seen(asked)) is None:
                await send(asked.request, response, f"id: {last}\n\n".encode())
            else:
                async for message in _replay(asked.app, seen, topics | _ALWAYS):
                    await send(asked.request, response, message.record)
                    last = message.id or last
            await _follow(asked.request, response, subscription, last)
        except ConnectionError:
            pass  # the reader has gone
    return response


async def _follow(request: web.Request, response: web.StreamResponse, subscription: Subscription, last: int) -> None:
    """``last`` is the newest state event that the reader has: what has been queued meanwhile may be older."""
    while messages := await subscription.take():
        records = [message.record for message in messages if message.id is None or message.id > last]
        if records:
            await send(request, response, b"".join(records))


def _last_seen(asked: Asked[EventsQuery]) -> int | None:
    header = asked.request.headers.get("Last-Event-ID", "")
    if header.isascii() and header.isdigit() and len(header) <= 18:
        return int(header)
    return asked.query.after


async def _replay(app: web.Application, seen: int, topics: Iterable[str]) -> AsyncIterator[Message]:
    bus = app[BUS]
    async for message in missed(bus, app[DATABASE], seen):
        if message is None:
            yield await _reset(app, bus)
        elif message.topic in topics:
            yield message


async def _reset(app: web.Application, bus: Bus) -> Message:
    """What there is, for a reader whose knowledge is too old to be mended."""
    newest = bus.newest
    jobs = await app[JOBS].newest(_SNAPSHOT_JOBS)
    shown = {job["id"] for job in jobs}
    for id in await app[JOBS].in_state(*(set(State) - ENDED)):
        if id not in shown:
            with contextlib.suppress(NotFound):  # it has ended and was removed meanwhile
                jobs.append(await app[JOBS].get(id))
    artifacts = [
        {"noun": noun, "id": one["id"], "name": one["name"]} for noun in NOUNS for one in await app[INDEX].all(noun, -1)
    ]
    return Message(newest, "reset", {"jobs": jobs, "artifacts": artifacts})


async def send(request: web.Request, response: web.StreamResponse, data: bytes) -> None:
    """Raises ConnectionError when the reader has gone, or has taken nothing for too long."""
    transport = request.transport
    if transport is None:
        raise ConnectionResetError
    limit = asyncio.get_running_loop().call_later(_SEND_LIMIT_S, transport.abort)
    try:
        await response.write(data)
    finally:
        limit.cancel()
