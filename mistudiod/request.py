"""One thing that a resident worker is asked, from its place in the line to its end."""

from __future__ import annotations

import asyncio
import json

from mistudiod.errors import StudioError
from mistudiod.events import AnyEvent, Replied, Wrote
from mistudiod.specs import Complete, Steer
from mistudiod.wanted import Ask


class Request:
    """``next()`` gives what the worker says of it, as it says it; ``over`` once it has its answer or its refusal."""

    def __init__(self, spec: Ask) -> None:
        self.spec = spec
        self.number = 0  # which the session gives it
        self.over = False
        self.abandoned = False  # nobody waits for the answer any more
        self.again = False  # it was asked a second time, of a worker that does less at once
        self._error: StudioError | None = None
        self._told: dict[int, int] = {}  # characters of each row
        self._known: dict[int, int] = {}  # of them those that the worker writes a second time
        self._events: asyncio.Queue[AnyEvent | None] = asyncio.Queue()

    @property
    def rows(self) -> int:
        """Texts that it asks for."""
        if isinstance(self.spec, Steer):
            return self.spec.samples * (1 + self.spec.variants)
        return self.spec.samples if isinstance(self.spec, Complete) else 1

    @property
    def line(self) -> str:
        """As the worker reads it."""
        return json.dumps({"request": self.number, "kind": self.spec.kind, "spec": self.spec.model_dump()})

    def tell(self, event: AnyEvent) -> None:
        """What is not new is left out."""
        if event.event == "wrote":
            event = self._new(event)
        if not self.over:
            self._events.put_nowait(event)

    def answered(self, event: Replied | None = None) -> None:
        """``event`` None: there was nothing to ask."""
        if event is not None:
            self.tell(event)
        self._end()

    def refused(self, error: StudioError) -> None:
        if not self.over:
            self._error = error
        self._end()

    def once_more(self) -> None:
        self.again, self._known = True, dict(self._told)

    async def next(self) -> AnyEvent | None:
        """What the worker says next; None once it is answered. Raises what it was refused with."""
        event = await self._events.get()
        if event is None and self._error is not None:
            raise self._error
        return event

    def _end(self) -> None:
        if not self.over:
            self.over = True
            self._events.put_nowait(None)

    def _new(self, event: Wrote) -> Wrote:
        texts = []
        for one in event.texts:
            known = min(self._known.get(one.row, 0), len(one.text))
            self._known[one.row] = self._known.get(one.row, 0) - known
            self._told[one.row] = self._told.get(one.row, 0) + len(one.text) - known
            texts.append(one.model_copy(update={"text": one.text[known:]}))
        return event.model_copy(update={"texts": texts})
