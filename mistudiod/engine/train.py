"""Training sparse autoencoders, one or several from the same batches: one step, its state, and the loop around both.

Knows neither files nor jobs: where activations come from, where checkpoints go and who listens are the caller's.
Nothing in a step waits for the device; only ``metrics`` does, about twice a second.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from mistudiod.engine.trainer import WORST_FVU, Diverged, Trainer, under

METRICS_EVERY_S = 0.5
Metrics = dict[str, float | None]


class Batches(Protocol):
    """Endless batches (batch_tokens, width) that know where they are: ``activations.ActivationBatches``."""

    def __next__(self) -> Tensor: ...

    def state(self) -> dict[str, int]: ...

    def load(self, state: dict[str, int]) -> None: ...


class Training:
    """Trainers that are shown the same batches, and how far they have come. All have schedules of as many steps.

    ``tensors`` and ``about`` together are the exact state; ``load`` takes both. ``micro_tokens`` of a batch are taken
    at once, for memory's sake; all when not given.
    """

    def __init__(self, trainers: Sequence[Trainer], batches: Batches, micro_tokens: int | None = None) -> None:
        self.trainers, self.batches = list(trainers), batches
        self.steps = self.trainers[0].schedule.steps
        self._micro_tokens = micro_tokens
        self.batch = Tensor()  # the latest
        self.step = 0
        self.tokens = 0
        self.seconds = 0.0  # spent so far, harvesting and checkpoints included
        self.good = True  # False while, in the warm-up, an FVU is so bad that the state is not worth saving
        self.whole = True  # False while a step is half done: the state must not be saved then
        self._began = (0, 0.0)  # tokens and seconds when this process took over

    def advance(self) -> None:
        """One step of every trainer.

        When an exception breaks off the harvesting, the state is that before the step, and ``whole``.
        """
        before = self.batches.state()
        self.whole = False
        try:
            batch = self.batch = next(self.batches)
        except BaseException:
            self.batches.load(before)
            self.whole = True
            raise
        for trainer in self.trainers:
            trainer.advance(self.step, batch, self._micro_tokens)
        self.step += 1
        self.tokens += len(batch)
        self.whole = True

    def metrics(self, thorough: bool = False) -> list[Metrics]:
        """Of each trainer: measurements of the latest batch, and the mean speed of this process. Raises Diverged.

        ``thorough``: look at every parameter, before the state is saved.
        """
        measured = [trainer.metrics(self.step) for trainer in self.trainers]
        pairs = list(zip(self.trainers, measured, strict=True))
        wrong = {number: trainer.wrong(self.step, one, thorough) for number, (trainer, one) in enumerate(pairs)}
        if which := {number: what for number, what in wrong.items() if what}:
            raise Diverged(which)
        self.good = all(one["fvu"] <= WORST_FVU for one in measured)
        tokens, seconds = self.tokens - self._began[0], self.seconds - self._began[1]
        way = {"tokens": self.tokens, "tokens_per_s": tokens / seconds if seconds else None}
        return [{**one, **way} for one in measured]

    def tensors(self) -> dict[str, Tensor]:
        """All tensors of the state by name; not copies, the next step changes them."""
        return {
            f"{number}.{name}": tensor
            for number, trainer in enumerate(self.trainers)
            for name, tensor in trainer.tensors().items()
        }

    def about(self) -> dict[str, object]:
        """The rest of the state, JSON-ready."""
        return {
            "step": self.step,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "batches": self.batches.state(),
            "scales": [[one.x.scale, one.y.scale if one.y else None] for one in self.trainers],
            "schedules": [[one.schedule.peak_lr, one.schedule.start] for one in self.trainers],
        }

    def load(self, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """Go on, bit for bit, from ``tensors`` and ``about`` of a run with the same trainers and batches."""
        for number, trainer in enumerate(self.trainers):
            trainer.load(under(f"{number}.", tensors))
        self.step, self.tokens, self.seconds = about["step"], about["tokens"], about["seconds"]
        self.batches.load(about["batches"])
        self._began = (self.tokens, self.seconds)


def fit(
    training: Training,
    report: Callable[[int, list[Metrics]], None],
    save: Callable[[], None],
    checkpoint_every_s: float,
    after_step: Callable[[], None] = lambda: None,
) -> None:
    """Train to the end of the schedule, and ``save`` every ``checkpoint_every_s`` seconds and at the end.

    ``report`` hears (step, metrics of each trainer) of the first step and the last, and every METRICS_EVERY_S seconds
    between; ``after_step`` is called after every step. Both and the harvesting may raise to end the run; ``training``
    is then good to save if it is ``whole``. Raises Diverged, and never saves a state that is not good.
    """
    ticked = saved_at = time.monotonic()
    reported_at = -math.inf
    while training.step < training.steps:
        training.advance()
        now = time.monotonic()
        training.seconds += now - ticked
        ticked = now
        last = training.step == training.steps
        reporting = last or now - reported_at >= METRICS_EVERY_S
        saving = last or now - saved_at >= checkpoint_every_s
        metrics = training.metrics(thorough=saving) if reporting or saving else []
        after_step()
        if saving and training.good:
            save()
            saved_at = time.monotonic()
        if reporting:
            report(training.step, metrics)
            reported_at = now
