"""Where the time of a training goes: inside ``next(batches)``, or between two of them. Standard library only."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Timed:
    """``of`` is put around whatever gives a batch; ``harvested`` counts tokens that went through the model."""

    def __init__(self) -> None:
        self.harvest_s = 0.0
        self.steps: list[float] = []
        self.harvested = 0
        self._ended: float | None = None

    def of(self, give: Callable[[], T]) -> T:
        began = time.perf_counter()
        if self._ended is not None:
            self.steps.append(began - self._ended)
        batch = give()
        self._ended = time.perf_counter()
        self.harvest_s += self._ended - began
        return batch

    def told(self, batch_tokens: int, kept: float) -> dict[str, float]:
        """Tokens a second of both and of the whole. The first step, in which memory is got, is not counted.

        Harvesting is counted by what was harvested, not by what was trained on: a buffer holds more at the end.
        ``kept``: share of tokens that are text.
        """
        train = batch_tokens * len(self.steps[1:]) / sum(self.steps[1:])
        harvest = self.harvested * kept / self.harvest_s
        return {"harvest": harvest, "train": train, "whole": 1 / (1 / harvest + 1 / train)}
