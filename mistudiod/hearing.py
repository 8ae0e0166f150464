"""Take in what a worker says: write it, a batch at a time, and pass it on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from mistudiod.bus import Bus
from mistudiod.errors import StoreError
from mistudiod.index import Index, read_info
from mistudiod.paths import Paths
from mistudiod.runner import Worker
from mistudiod.said import Said
from mistudiod.store import Jobs

log = logging.getLogger("mistudiod.hearing")
FLUSH_S = 0.25  # how often what a worker says is written and passed on
Written = Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]  # runs a write until the database takes it


class Hearing:
    """What one job's worker says, from its start to its end."""

    def __init__(self, job: int, paths: Paths, store: Jobs, index: Index, bus: Bus, written: Written) -> None:
        self._job, self._paths, self._store, self._index, self._bus = job, paths, store, index, bus
        self._written = written
        self._said = Said()
        self._over = asyncio.Event()

    async def hear(self, worker: Worker) -> dict[str, Any] | None:
        """Listen until the worker has ended; returns the failure it told of, if any."""
        flusher = asyncio.create_task(self._flush_regularly())
        try:
            async with contextlib.aclosing(worker.events()) as events:
                async for event in events:
                    if event.event == "artifact":
                        await self._written(self._flush)
                        await self._add_artifact(event.noun, event.name)
                    else:
                        self._said.take(event)
        finally:
            self._over.set()  # not cancelled: what it is writing would not be told
            await asyncio.gather(flusher, return_exceptions=True)
        await self._written(self._flush)
        return self._said.failure

    async def _flush_regularly(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._over.wait(), FLUSH_S)
            with contextlib.suppress(StoreError):  # it is kept, and tried again with the next
                await self._flush()

    async def _flush(self) -> None:
        progress, result, metrics = self._said.collect()
        if not (progress or result or metrics):
            return
        try:
            await self._store.record(self._job, progress, result, [(step, json.dumps(v)) for step, v in metrics])
        except StoreError:
            self._said.put_back(progress, result, metrics)
            raise
        if progress:
            self._bus.reading("progress", {"job": self._job, **progress})
        for step, values in metrics:
            self._bus.reading("metric", {"job": self._job, "step": step, "values": values})

    async def _add_artifact(self, noun: str, name: str) -> None:
        info = await asyncio.to_thread(read_info, self._paths, noun, name)
        if info is None:
            log.error("job %s told of a %s %r that is not there", self._job, noun, name)
            return
        await self._written(lambda: self._index.add(noun, name, info, self._job))
