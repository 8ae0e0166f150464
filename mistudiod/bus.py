"""Fan-out of what happens to everyone who listens. Bounded: a reader that stalls never costs memory."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

_QUEUE = 1024  # messages a subscriber may be behind
_REPLACEABLE = frozenset({"progress", "system"})  # only the newest matters


@dataclass(frozen=True)
class Message:
    id: int
    topic: str  # job, progress, metric, artifact, system
    data: dict[str, Any]


class Subscription:
    """Messages in order. One that falls behind loses progress and readings first, then is ``closed``."""

    def __init__(self) -> None:
        self._waiting: deque[Message] = deque()
        self._arrived = asyncio.Event()
        self.closed = False

    def put(self, message: Message) -> None:
        if self.closed:
            return
        if len(self._waiting) >= _QUEUE:
            self._waiting = deque(m for m in self._waiting if m.topic not in _REPLACEABLE)
        if len(self._waiting) >= _QUEUE:
            self.closed = True  # it must fetch the state anew
        else:
            self._waiting.append(message)
        self._arrived.set()

    def close(self) -> None:
        self.closed = True
        self._arrived.set()

    async def get(self, timeout_s: float) -> Message | None:
        """The next message; None when nothing came in time or the subscription is closed."""
        if not self._waiting and not self.closed:
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), timeout_s)
            except asyncio.TimeoutError:
                return None
        return self._waiting.popleft() if self._waiting else None


class Bus:
    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()
        self._ids = itertools.count(1)

    def publish(self, topic: str, data: dict[str, Any]) -> None:
        message = Message(next(self._ids), topic, data)
        for subscription in self._subscriptions:
            subscription.put(message)

    @contextmanager
    def subscribe(self) -> Iterator[Subscription]:
        subscription = Subscription()
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    def close(self) -> None:
        for subscription in self._subscriptions:
            subscription.close()

    def __len__(self) -> int:
        return len(self._subscriptions)
