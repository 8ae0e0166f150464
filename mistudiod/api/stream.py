"""Server-sent events (WHATWG HTML, section 9.2): what happens, as it happens."""

from __future__ import annotations

import asyncio
import json
import time

from aiohttp import web

from mistudiod.api.keys import BUS
from mistudiod.bus import Message
from mistudiod.errors import Conflict, Invalid

TOPICS = frozenset({"job", "progress", "metric", "artifact", "system"})
_PING_S = 15.0
_SEND_LIMIT_S = 60.0  # a peer that takes nothing for this long is gone
_STREAMS = 64
_HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


async def events(request: web.Request) -> web.StreamResponse:
    topics = frozenset(request.query.get("topics", ",".join(sorted(TOPICS))).split(","))
    if unknown := sorted(topics - TOPICS):
        raise Invalid(
            f"there is no topic {unknown[0]!r}; topics are {', '.join(sorted(TOPICS))}", {"topics": "unknown"}
        )
    bus = request.app[BUS]
    if len(bus) >= _STREAMS:
        raise Conflict(f"{_STREAMS} event streams are open already; close one")
    response = web.StreamResponse(headers=_HEADERS)
    with bus.subscribe() as subscription:
        await response.prepare(request)
        try:
            await _send(response, b"retry: 2000\n\n")
            sent = time.monotonic()
            while not subscription.closed:
                # Counted from the last thing sent: other topics may be lively while these are silent.
                message = await subscription.get(max(0.0, sent + _PING_S - time.monotonic()))
                if message is not None and message.topic in topics:
                    await _send(response, record(message))
                    sent = time.monotonic()
                elif time.monotonic() - sent >= _PING_S:
                    await _send(response, b": ping\n\n")
                    sent = time.monotonic()
        except (ConnectionError, asyncio.TimeoutError):
            pass  # the reader has gone
    return response


def record(message: Message) -> bytes:
    data = json.dumps(message.data, ensure_ascii=False, separators=(",", ":"))
    return f"id: {message.id}\nevent: {message.topic}\ndata: {data}\n\n".encode()


async def _send(response: web.StreamResponse, data: bytes) -> None:
    await asyncio.wait_for(response.write(data), _SEND_LIMIT_S)
