"""Take in what a worker says: write it, a batch at a time, and pass it on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from mistudiod.bus import Bus
from mistudiod.errors import StoreError
from mistudiod.index import Index, read_info
from mistudiod.label_statements import Found
from mistudiod.paths import Paths
from mistudiod.readings import Live, Metric
from mistudiod.runner import Worker
from mistudiod.said import Gathered, Said
from mistudiod.statements import Job
from mistudiod.store import Jobs
from mistudiod.turn import Turn

log = logging.getLogger("mistudiod.hearing")
_OF_AN_SAE = ("certify", "evaluate")  # kinds of jobs that write beside an SAE
_OF_LABELS = ("label", "score")  # kinds of jobs that are about the labels of an SAE
FLUSH_S = 0.25  # how often what a worker says is written and passed on
Written = Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]  # runs a write until the database takes it


def _saes(job: Job) -> list[str]:
    """Those that a job may tell of."""
    if job["kind"] == "extract":
        return [str(job["spec"]["sae"])]
    makes = job["makes"] or {"noun": None}
    return list(makes["names"]) if makes["noun"] == "sae" else []


class Hearing:
    """What one job's worker says, from its start to its end."""

    def __init__(
        self, job: Job, paths: Paths, store: Jobs, index: Index, bus: Bus, written: Written, turn: Turn | None
    ) -> None:
        """``turn``: None of a job that does not take the GPU."""
        self._job, self._paths, self._store, self._index, self._bus = job["id"], paths, store, index, bus
        self._written, self._turn = written, turn
        self._labelled: str | None = job["spec"]["sae"] if job["kind"] in _OF_LABELS else None
        self._measured: str | None = job["spec"]["sae"] if job["kind"] in _OF_AN_SAE else None
        self._said = Said(_saes(job), self._labelled is not None)
        self._counted = {"labels": 0, "scores": 0}  # of what has been written
        self._over, self._flushing = asyncio.Event(), asyncio.Lock()

    async def hear(self, worker: Worker) -> dict[str, Any] | None:
        """Listen until the worker has ended; returns the failure it told of, if any."""
        flusher = asyncio.create_task(self._flush_regularly())
        try:
            async with contextlib.aclosing(worker.events()) as events:
                async for event in events:
                    if event.event == "artifact":
                        await self._written(self._flush)
                        await self._add_artifact(event.noun, event.name)
                        continue
                    self._said.take(event)
                    if event.event == "progress" and self._turn is not None:
                        self._turn.sees(self._job, event.stage, event.done, event.total)
        finally:
            self._over.set()  # not cancelled: what it is writing would not be told
            await asyncio.gather(flusher, return_exceptions=True)
        await self._written(self._flush)
        return self._said.failure

    @property
    def partial(self) -> dict[str, Any] | None:
        """The error of a job of which only a part was done, though its worker is content."""
        return self._said.partial

    async def _flush_regularly(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._over.wait(), FLUSH_S)
            with contextlib.suppress(StoreError):  # it is kept, and tried again with the next
                await self._flush()

    async def _flush(self) -> None:
        async with self._flushing:  # what the database refuses comes before, and not after, what has been said since
            if said := self._said.collect():
                await self._write(said)

    async def _write(self, said: Gathered) -> None:
        metrics = [Metric.of(one) for one in said.metrics]
        live = [Live.of(one) for one in said.live.values()]
        try:
            found = Found(self._labelled, said.labels, said.scores) if self._labelled else None
            await self._store.record(self._job, said.progress, said.result, metrics, live, found)
        except StoreError:
            self._said.put_back(said)
            raise
        self._tell(said)

    def _tell(self, said: Gathered) -> None:
        if said.progress:
            self._bus.reading("progress", {"job": self._job, **said.progress})
        for topic, readings in (("metric", said.metrics), ("live", said.live.values())):
            for one in readings:
                about = one.model_dump(exclude={"event"})
                self._bus.reading(topic, {"job": self._job, **about, "sae": about["sae"] or None})
        if said.labels or said.scores:
            self._counted = {name: so_far + said.counted[name] for name, so_far in self._counted.items()}
            self._bus.reading("labels", {"job": self._job, "sae": self._labelled, **self._counted})

    async def _add_artifact(self, noun: str, name: str) -> None:
        info = await asyncio.to_thread(read_info, self._paths, noun, name)
        if info is None:
            log.error("job %s told of a %s %r that is not there", self._job, noun, name)
            return
        maker = None if (noun, name) == ("sae", self._measured) else self._job  # it was there before
        await self._written(lambda: self._index.add(noun, name, info, maker))
