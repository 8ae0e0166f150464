"""The process of a session: it keeps a model in memory, and is asked one thing after the other."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mistudiod.errors import Conflict, Invalid, OutOfMemory, SessionFailed, StudioError
from mistudiod.events import AnyEvent, Denied, Failure, Loaded
from mistudiod.keep_alive import Stay
from mistudiod.request import Request
from mistudiod.runner import Exit, Grace, Worker
from mistudiod.specs import Session as Order
from mistudiod.wanted import Wanted

_SAES = 20  # that are loaded before the first request; it brings the others itself


def ordered(wanted: Wanted, precision: str | None, rows_at_once: int | None) -> Order:
    about = {"model": wanted.model, "saes": wanted.saes[:_SAES]}
    return Order.model_validate({**about, "precision": precision, "rows_at_once": rows_at_once})


class Resident:
    """``hearing`` is done when the process has ended. ``changed`` is called whenever there is something new to see.

    It notes in ``stay`` when it has loaded and was used last. ``waiting``: who hears how far loading is.
    """

    def __init__(self, worker: Worker, stay: Stay, waiting: Sequence[Request], changed: Callable[[], None]) -> None:
        self.worker, self._stay, self._waiting, self._changed = worker, stay, waiting, changed
        self.loaded: Loaded | None = None
        self.active: Request | None = None
        self.progress: dict[str, Any] | None = None
        self._said: Denied | Failure | None = None
        self.hearing = asyncio.create_task(self._hear())

    @classmethod
    async def start(
        cls,
        order: Order,
        folder: Path,
        data: Path,
        grace: Grace,
        command: Sequence[str],
        stay: Stay,
        waiting: Sequence[Request],
        changed: Callable[[], None],
    ) -> Resident:
        """Raises SessionFailed."""
        try:
            await asyncio.to_thread(_begin, folder, data, order)
            worker = await Worker.start(folder, grace, command)
        except OSError as error:
            raise SessionFailed(f"the session could not be started: {error.strerror or error}") from error
        return cls(worker, stay, waiting, changed)

    def ask(self, request: Request) -> None:
        self.active = request
        self.worker.say(request.line)
        self._changed()

    def cancel(self) -> None:
        """Nobody wants the answer any more."""
        if self.active is not None:
            self.worker.say(f"cancel {self.active.number}")

    async def end(self) -> Exit:
        if not self.hearing.done():
            self.worker.ask("stop")
        return await self.hearing

    async def _hear(self) -> Exit:
        try:
            async with contextlib.aclosing(self.worker.events()) as events:
                async for event in events:
                    self._take(event)
        except BaseException:
            self.worker.kill()
            raise
        finally:
            ended = await self.worker.ended()
            self._changed()
        return ended

    def _take(self, event: AnyEvent) -> None:
        active = self.active
        if event.event == "progress":
            self.progress = event.model_dump(exclude={"event"})
            for request in [active] if active else self._waiting:
                request.tell(event)
            self._changed()
        elif event.event == "loaded":
            if self.loaded is None:
                self._stay.loaded_at = time.monotonic()
                self._rest()
            self.loaded = event
            self._changed()
        elif event.event == "failure":
            self._said = event
        elif active is None or getattr(event, "request", None) != active.number:
            return  # of a request that is over
        elif event.event == "wrote":
            active.tell(event)
        elif event.event == "replied":
            active.answered(event)
            self._rest()
        elif event.event == "denied" and event.code == "out_of_memory":
            self._said = event  # and the worker ends
        elif event.event == "denied" and event.code == "cancelled" and not active.abandoned:
            return  # the worker ends, and it is told why
        elif event.event == "denied":
            active.refused(_refusal(event))
            self._rest()

    def _rest(self) -> None:
        self.active, self.progress = None, None
        self.worker.resting, self._stay.used_at = True, time.monotonic()
        self._changed()

    def why_ended(self, exit: Exit, of_memory: bool) -> StudioError:
        """What those are told who wait for it. ``of_memory``: there was too little of it."""
        said = self._said
        if of_memory:
            if said is not None:
                return OutOfMemory(said.message)
            if self.active is None:
                return OutOfMemory("the model does not fit into memory: free some, or ask for a lower precision")
            return OutOfMemory("this request does not fit into memory: ask for fewer or shorter texts")
        if said is not None:
            return _refusal(said)
        if exit.hung:
            return SessionFailed(
                f"the session gave no sign of life for {self.worker.grace.progress_s:.0f} s and was ended"
            )
        last = exit.tail.strip().splitlines()[-1:]
        words = f"; its last words: {last[0][:500]}" if last else ""
        how = f"signal {-exit.code}" if exit.code < 0 else f"exit code {exit.code}"
        return SessionFailed(f"the process of the session has died ({how}){words}")


def _begin(folder: Path, data: Path, order: Order) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "log.txt").write_bytes(b"")
    (folder / "spec.json").write_text(json.dumps({"data": str(data), "spec": order.model_dump()}))


def _refusal(said: Denied | Failure) -> StudioError:
    if said.code == "invalid":
        return Invalid(said.message, {said.field: said.message} if said.field else None)
    if said.code == "cancelled":
        return Conflict("nobody waits for the answer any more")
    return SessionFailed(said.message)
