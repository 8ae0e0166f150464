"""Fan-out of what happens to everyone who listens. Bounded: a reader that stalls never costs memory.

State events (job, artifact) have an id and are never dropped: a reader that is too far behind is closed, and resumes.
Of the others only the newest of each job, and of each SAE that it trains, counts: it replaces the one before it, and
none goes out more often than 10 times a second.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Any

RING = 1024  # state events kept in memory for those who resume; older ones come out of the database (missed.py)
_QUEUE = 1024  # state events a subscriber may be behind
_EVERY_S = 0.1
PING_S = 15.0


class Message:
    """``id``: of a state event; others have none. ``topic``: job, artifact; progress, metric, live, labels, session,
    system; reset, ping. ``key``: what a newer one of the same key replaces; a state event is like no other.

    Its data is let go of once it is a record: a thousand of them wait for those who resume, and take a sixth so.
    """

    __slots__ = ("_record", "data", "id", "key", "topic")

    def __init__(self, id: int | None, topic: str, data: dict[str, Any]) -> None:
        self.id, self.topic = id, topic
        self.key: Hashable = (topic, data.get("job"), data.get("sae")) if id is None else id
        self.data: dict[str, Any] | None = data
        self._record = b""

    @property
    def record(self) -> bytes:
        """As a server-sent event; made once for all readers."""
        if self.data is not None:
            self._record, self.data = self._encoded(self.data), None
        return self._record

    def _encoded(self, data: dict[str, Any]) -> bytes:
        if self.topic == "ping":
            return b": ping\n\n"
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
        number = "" if self.id is None else f"id: {self.id}\n"
        return f"{number}event: {self.topic}\ndata: {text}\n\n".encode(errors="replace")


PING = Message(None, "ping", {})  # tells a reader, and whatever lies between, that the stream lives


class Subscription:
    """Messages of some topics, in order. One that falls behind is ``closed``, after what is waiting."""

    def __init__(self, topics: frozenset[str]) -> None:
        self._topics = topics | {PING.topic}
        self._waiting: dict[Hashable, Message] = {}
        self._arrived = asyncio.Event()
        self.closed = False

    def put(self, message: Message) -> None:
        if self.closed or message.topic not in self._topics:
            return
        if message.id is None:
            self._waiting.pop(message.key, None)  # the newest comes last: after the states that led to it
        elif len(self._waiting) >= _QUEUE:
            self.close()
            return
        self._waiting[message.key] = message
        self._arrived.set()

    def close(self) -> None:
        self.closed = True
        self._arrived.set()

    async def take(self) -> list[Message]:
        """All that waits, once something does; nothing when the subscription is closed."""
        if not self._waiting and not self.closed:
            self._arrived.clear()
            await self._arrived.wait()
        taken = list(self._waiting.values())
        self._waiting.clear()
        return taken


class Bus:
    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()
        self._ring: deque[Message] = deque(maxlen=RING)
        self._held: dict[Hashable, Message] = {}
        self._quiet: dict[Hashable, asyncio.TimerHandle] = {}
        self.newest = 0  # id of the last state event
        self._closed = False

    def state(self, id: int, topic: str, data: dict[str, Any]) -> None:
        """Tell of a state that the database has taken; ``id`` is its number there."""
        for key in list(self._held):  # what was measured before this comes before it
            self._fan_out(self._held.pop(key))
        message = Message(id, topic, data)
        _ = message.record  # also when nobody listens: only the record is to wait in the ring
        self._ring.append(message)
        self.newest = id
        self._fan_out(message)

    def reading(self, topic: str, data: dict[str, Any]) -> None:
        """Tell of a progress, a metric or a reading of the machine: now, or as the newest once it is time."""
        message = Message(None, topic, data)
        if message.key in self._quiet:
            self._held[message.key] = message
        else:
            self._fan_out(message)
            self._be_quiet(message.key)

    def _be_quiet(self, key: Hashable) -> None:
        self._quiet[key] = asyncio.get_running_loop().call_later(_EVERY_S, self._speak, key)

    def _speak(self, key: Hashable) -> None:
        del self._quiet[key]
        if message := self._held.pop(key, None):
            self._fan_out(message)
            self._be_quiet(key)

    async def ping(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(PING_S)
            self._fan_out(PING)

    def _fan_out(self, message: Message) -> None:
        for subscription in self._subscriptions:
            subscription.put(message)

    def since(self, id: int) -> list[Message] | None:
        """The state events after ``id``; None when the ring does not reach back that far."""
        if id == self.newest:
            return []
        if not self._ring or id > self.newest or (self._ring[0].id or 0) > id + 1:
            return None
        return [message for message in self._ring if (message.id or 0) > id]

    @contextmanager
    def subscribe(self, topics: frozenset[str]) -> Iterator[Subscription]:
        subscription = Subscription(topics)
        self._subscriptions.add(subscription)
        if self._closed:  # a reader that came while the daemon was going
            subscription.close()
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    def close(self) -> None:
        self._closed = True
        for timer in self._quiet.values():
            timer.cancel()
        for subscription in self._subscriptions:
            subscription.close()

    def __len__(self) -> int:
        return len(self._subscriptions)
