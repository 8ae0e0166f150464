"""One pass of a training on its way: checkpoints, what is told of it, and the step back when it diverges."""

from __future__ import annotations

import logging
import math
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from mistudiod.engine import checkpoint
from mistudiod.engine.activations import ActivationBatches
from mistudiod.engine.checkpoint import Checkpoint
from mistudiod.engine.harvest import outlier_norms
from mistudiod.engine.train import Metrics, Training, fit
from mistudiod.engine.trainer import Diverged, Trainer
from mistudiod.paths import is_disk_full, publish, require_space
from mistudiod.worker.link import Asked, Held, Link
from mistudiod.worker.train_begin import Pass, begin, extended, found_checkpoint, gone_on_with

EVALUATIONS = 10  # of a training, when nobody says how often

log = logging.getLogger(__name__)


class Watch(Protocol):
    """``train_watch.Watch``: looks at trainers, told apart by their numbers, and changes nothing."""

    def evaluate(self, number: int, trainer: Trainer) -> dict[str, float | None]: ...

    def live(self, number: int, trainer: Trainer, batch: Tensor, where: Tensor) -> list[dict[str, Any]] | None: ...


class Running:
    """The trainers of a pass, from their latest checkpoint on.

    ``lost`` says of those that diverged twice, and were left behind, why. ``to_extend`` reads the checkpoint of the
    training that goes on, when there is one.
    """

    def __init__(
        self,
        one_pass: Pass,
        batches: ActivationBatches,
        link: Link,
        watch: Callable[[Pass], Watch] | None = None,
        to_extend: Callable[[], Checkpoint] | None = None,
    ) -> None:
        self.one_pass, self.batches, self.lost = one_pass, batches, dict[str, str]()
        self._link, self._to_extend, self._make_watch = link, to_extend, watch
        self._folder, self._first = link.run / "checkpoints", batches.state()
        self._slowed: dict[str, float] = {}  # learning rates of those that diverged once
        self._figures: dict[str, dict[str, float | None]] = {}  # from the latest evaluation, not told yet
        self._held_out_fvu: float | None = None
        self.checkpoint: int | None = None  # the latest one
        self.training = self._start()
        self._watch = watch(one_pass) if watch else None  # outliers are known by now

    @property
    def is_saved(self) -> bool:
        """Whether the latest checkpoint has the state."""
        return self.checkpoint == self._number

    def train(self) -> None:
        """Go on to the end of the schedule. Raises Asked, Held, NoActivations."""
        self._progress()
        while self.training.trainers:
            try:
                every_s = self.one_pass.spec.checkpoint_every_s
                fit(self.training, self._report, self._save, every_s, self._after_step)
                self.keep()
                return
            except Diverged as diverged:
                self._step_back(diverged)

    def keep(self) -> None:
        """Save the state, unless that is done or it is not worth it. Raises Held; Diverged at the very end."""
        training = self.training
        if self.is_saved or not (training.trainers and training.whole and training.step):
            return
        try:
            training.metrics(thorough=True)
        except Diverged:
            if training.step == training.steps:
                raise
            return  # what was saved before is better
        if training.good:
            self._save()

    def _start(self) -> Training:
        """From the latest checkpoint; else from that of the training to extend; else from the beginning."""
        found = found_checkpoint(self._folder, self.one_pass)
        self.checkpoint = found.number if found else None
        known = found or (self._to_extend() if self._to_extend else None)
        self._leave_out_outliers(known)
        if found:
            training = gone_on_with(self.one_pass, self.batches, found)
            self._slowed = found.about["slowed"] | self._slowed
        elif known:
            training = extended(self.one_pass, self.batches, known, str(self.one_pass.spec.extends))
        else:
            self.batches.load(self._first)
            began = time.monotonic()
            training = begin(self.one_pass, self.batches)
            training.seconds = time.monotonic() - began  # the first activations are harvested by now
        for name, trainer in zip(self.one_pass.names, training.trainers, strict=True):
            if name in self._slowed:
                trainer.schedule = replace(trainer.schedule, peak_lr=self._slowed[name])
        return training

    def _leave_out_outliers(self, known: Checkpoint | None) -> None:
        """By the norms that a checkpoint tells, else by those of the first activations."""
        source = self.one_pass.source
        if self.one_pass.spec.outliers:
            return
        if known:
            norms = tuple(known.about["outlier_norms"][hook] for hook in source.hooks)
        else:
            norms = outlier_norms(self.batches.sample(), list(source.widths.values()))
        if norms != self.batches.harvest.outlier_norms:
            self.batches.leave_out(norms)

    def _step_back(self, diverged: Diverged) -> None:
        """Back to the last good checkpoint, once, at half the learning rate; who diverges again is left behind."""
        trainers = dict(zip(self.one_pass.names, self.training.trainers, strict=True))
        which = {self.one_pass.names[number]: what for number, what in diverged.which.items()}
        for name in which.keys() & self._slowed.keys():
            log.warning("%s diverged again (%s): it is left behind", name, which[name])
            self.lost[name] = f"{which[name]} at a learning rate of {trainers[name].schedule.peak_lr:.2g}"
            self.training.trainers.remove(trainers[name])
        self.one_pass = replace(self.one_pass, ones=[one for one in self.one_pass.ones if one.name not in self.lost])
        self._watch = self._make_watch(self.one_pass) if self._make_watch and self.one_pass.ones else None
        slower = {name: trainers[name].schedule.peak_lr / 2 for name in which if name not in self.lost}
        if not slower:
            return  # the others go on from where they are
        self._slowed |= slower
        self.training = self._start()
        for name, lr in slower.items():
            back = f"back to step {self.training.step}, at half the learning rate: {lr:.2g}"
            log.warning("%s diverged (%s): %s", name, which[name], back)

    @property
    def _number(self) -> int:
        """Of a checkpoint of now: later passes have higher ones."""
        return self.one_pass.number * self.training.steps + self.training.step

    def _save(self) -> None:
        one_pass = self.one_pass
        about = self.training.about() | {
            "made_of": one_pass.made_of(),
            "saes": one_pass.names,
            "slowed": self._slowed,
            "held_out_fvu": self._held_out_fvu,
            "outlier_norms": dict(zip(one_pass.source.hooks, self.batches.harvest.outlier_norms or (), strict=False)),
            "threads": torch.get_num_threads(),
        }
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            require_space(self._folder, one_pass.source.state_bytes(one_pass.ones))
            with unbroken():
                checkpoint.save(
                    self._folder, self._number, self.training.tensors(), about, publish, one_pass.spec.keep_checkpoints
                )
                self.checkpoint = self._number
        except Exception as error:
            if is_disk_full(error):
                raise held_by_disk(error, self.checkpoint) from error
            raise

    def _report(self, step: int, values: list[Metrics]) -> None:
        for one, measured in zip(self.one_pass.ones, values, strict=True):
            shared = {"outliers": self.batches.outliers, "memory_bytes": memory_bytes(self.one_pass.source.device)}
            self._link.metric(step, {**measured, **shared, **self._figures.pop(one.name, {})}, sae=one.name)
        self._progress()
        self._link.check()

    def _progress(self) -> None:
        one_pass, training = self.one_pass, self.training
        stage = "train" if one_pass.passes == 1 else f"train, pass {one_pass.number + 1} of {one_pass.passes}"
        self._link.progress(stage, training.tokens, training.steps * one_pass.spec.batch_tokens, "tokens")

    def _after_step(self) -> None:
        if self._watch is None:
            return
        step, batch = self.training.step, self.training.batch
        every = self.one_pass.spec.evaluate_every or max(1, self.training.steps // EVALUATIONS)
        for number, (one, trainer) in enumerate(zip(self.one_pass.ones, self.training.trainers, strict=True)):
            if step % every == 0 and step < self.training.steps:  # at the end all is measured
                self._figures[one.name] = self._watch.evaluate(number, trainer)
            if features := self._watch.live(number, trainer, batch, self.batches.where):
                self._link.live(one.name, step, features)
        if step % every == 0 and step < self.training.steps:
            fvus = [figures["eval_fvu"] for figures in self._figures.values()]
            known = [fvu for fvu in fvus if fvu is not None]
            self._held_out_fvu = math.fsum(known) / len(known) if len(known) == len(fvus) else None


def held_by_disk(error: Exception, newest: int | None) -> Held:
    """What a person is told when there is no room for a checkpoint or an SAE."""
    what = str(error) if str(error).startswith("the disk is full") else "the disk is full"
    kept = "nothing was kept yet" if newest is None else "the checkpoint before this one is kept"
    return Held("disk_full", f"{what}: {kept}; free some space, then resume the job")


@contextmanager
def unbroken() -> Iterator[None]:
    """SIGTERM waits until the block has ended: what is being saved then would be lost otherwise."""
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
    if heard:
        raise Asked("stop")


def memory_bytes(device: torch.device) -> int:
    """Memory that this process has now: on the GPU, or where there is none, of the machine."""
    if device.type == "cuda":
        return int(torch.cuda.memory_reserved(device))
    resident = Path("/proc/self/statm").read_text().split()[1]
    return int(resident) * resource.getpagesize()
