"""An answer of the session: whole, or as server-sent events while it is made."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from aiohttp import web
from pydantic import Field

from mistudiod.api.fields import Fields
from mistudiod.api.keys import SESSION
from mistudiod.api.refusals import error_text, unforeseen
from mistudiod.api.route import Asked
from mistudiod.api.session import IfBusy, KeepAlive
from mistudiod.api.stream import HEADERS, send
from mistudiod.bus import PING, PING_S, Message
from mistudiod.errors import StudioError
from mistudiod.events import AnyEvent, Progress, Replied, Wrote
from mistudiod.specs import Calibrate, Steer

Result = dict[str, Any]
Finish = Callable[[Result], Awaitable[Result]]


class Asking(Fields):
    """What can be said to the session besides what it is asked."""

    stream: bool = Field(True, description="events as they come; false: the result alone, once it is there")
    keep_alive: KeepAlive = None
    if_busy: IfBusy = "refuse"


async def answered(asked: Asked[Any], spec: Steer | Calibrate, finish: Finish) -> Result | web.StreamResponse:
    """The session's answer, as ``finish`` makes it of the result. Whoever hangs up stops the session's work on it.

    As events: ``progress`` (stage, done, total, unit, eta_s), ``text`` (tokens, texts: row and text, what has been
    added to the text of that row), and at last ``result`` or ``error`` (the body of a refusal). What is refused before
    anything has happened is an ordinary refusal.
    """
    events = asked.app[SESSION].ask(spec, keep_alive=asked.body.keep_alive, if_busy=asked.body.if_busy)
    async with contextlib.aclosing(events):
        if asked.body.stream:
            return await _stream(asked.request, events, finish)
        async for event in events:
            if isinstance(event, Replied):
                return await finish(event.result)
    raise StudioError("the session has ended without an answer")


async def _stream(request: web.Request, events: AsyncIterator[AnyEvent], finish: Finish) -> web.StreamResponse:
    response = web.StreamResponse(headers=HEADERS)
    first = asyncio.ensure_future(anext(events))
    pinging = None
    try:
        await asyncio.wait({first}, timeout=PING_S)
        if first.done():
            first.result()  # what is refused at once is an ordinary refusal
        await response.prepare(request)
        pinging = asyncio.create_task(_ping(request, response))
        await _tell_all(request, response, _after(first, events), finish)
    finally:
        for task in filter(None, (first, pinging)):
            task.cancel()
            await asyncio.wait({task})
    return response


async def _tell_all(
    request: web.Request, response: web.StreamResponse, events: AsyncIterator[AnyEvent], finish: Finish
) -> None:
    try:
        async for event in events:
            await _tell(request, response, event, finish)
    except ConnectionError:
        pass  # the reader has gone
    except Exception as error:  # noqa: BLE001 - it is told
        refused = error if isinstance(error, StudioError) else unforeseen(request)
        with contextlib.suppress(ConnectionError):
            await send(request, response, f"event: error\ndata: {error_text(request, refused)}\n\n".encode())


async def _after(first: Awaitable[AnyEvent], events: AsyncIterator[AnyEvent]) -> AsyncIterator[AnyEvent]:
    yield await first
    async for event in events:
        yield event


async def _tell(request: web.Request, response: web.StreamResponse, event: AnyEvent, finish: Finish) -> None:
    if isinstance(event, Progress):
        name, data = "progress", event.model_dump(exclude={"event"})
    elif isinstance(event, Wrote):
        name, data = "text", event.model_dump(exclude={"event", "request"})
    elif isinstance(event, Replied):
        name, data = "result", await finish(event.result)
    else:
        return
    await send(request, response, Message(None, name, data).record)


async def _ping(request: web.Request, response: web.StreamResponse) -> None:
    """Until cancelled: a large model is loaded for minutes without a word."""
    with contextlib.suppress(ConnectionError):
        while True:
            await asyncio.sleep(PING_S)
            await send(request, response, PING.record)
