"""Training a sparse autoencoder: one step, its state, and the loop around both.

Knows neither files nor jobs: where activations come from, where checkpoints go and who listens are the caller's.
Nothing in a step waits for the device; only ``metrics`` does, about twice a second.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from mistudiod.engine.activations import ActivationBatches
from mistudiod.engine.architectures.topk import StepResult, TopK
from mistudiod.engine.schedule import Schedule

METRICS_EVERY_S = 0.5
CLIP_NORM = 1.0
BETAS, EPS = (0.9, 0.999), 6.25e-10  # Gao et al. 2024, appendix A: the gradients of rare latents are tiny
_TOPK, _ADAM = "topk.", "adam."  # what names in a checkpoint begin with


class Batches(Protocol):
    """Endless batches (batch_tokens, d_in) that know where they are: ``activations.ActivationBatches``."""

    def __next__(self) -> Tensor: ...

    def state(self) -> dict[str, int]: ...

    def load(self, state: dict[str, int]) -> None: ...


class Diverged(RuntimeError):
    """The loss is no longer a number."""


class Training:
    """An autoencoder on its way: parameters, Adam's moments, and how far it has come.

    ``tensors`` and ``about`` together are its exact state; ``load`` takes both. x is multiplied by ``scale`` first.
    ``micro_tokens`` of a batch are taken at once, for memory's sake; all when not given.
    """

    def __init__(
        self, topk: TopK, batches: Batches, schedule: Schedule, scale: float, micro_tokens: int | None = None
    ) -> None:
        self.topk, self.batches, self.schedule, self.scale = topk, batches, schedule, scale
        self._micro_tokens = micro_tokens
        self.step = 0
        self.tokens = 0
        self.seconds = 0.0  # spent so far, harvesting and checkpoints included
        self.whole = True  # False while a step is half done: the state must not be saved then
        self._adam = torch.optim.Adam(topk.params.values(), betas=BETAS, eps=EPS, fused=True)
        self._last: StepResult | None = None
        self._began = (0, 0.0)  # tokens and seconds when this process took over

    def advance(self) -> None:
        """One step: batch, loss and gradients, clipped Adam, the decoder back to unit rows.

        When an exception breaks off the harvesting, the state is that before the step, and ``whole``.
        """
        before = self.batches.state()
        self.whole = False
        try:
            x = next(self.batches) * self.scale
        except BaseException:
            self.batches.load(before)
            self.whole = True
            raise
        self._last = self.topk.loss_and_grads(x, self._micro_tokens)
        self._update(self._last.grads)
        self.topk.after_step()
        self.step += 1
        self.tokens += len(x)
        self.whole = True

    def _update(self, grads: Mapping[str, Tensor]) -> None:
        for name, parameter in self.topk.params.items():
            parameter.grad = grads[name]
        self._adam.param_groups[0]["lr"] = self.schedule.lr(self.step)
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(grad) for grad in grads.values()]))
        # The fused kernel divides the gradients by grad_scale as it reads them: clipping without a pass or a wait.
        self._adam.grad_scale = (norm / CLIP_NORM).clamp_(min=1.0)  # type: ignore[attr-defined]
        self._adam.step()

    def metrics(self) -> dict[str, float | None]:
        """Measurements of the latest step's batch, and the mean speed of this process. Raises Diverged."""
        assert self._last is not None, "no step has been made"
        fired = (self._last.values > 0).sum() / len(self._last.values)
        measured = torch.stack([self._last.loss, self._last.fvu, fired, self.topk.dead.float().mean()])
        loss, fvu, l0, dead = measured.tolist()
        if not math.isfinite(loss):
            raise Diverged(f"the loss at step {self.step} is {loss}")
        tokens, seconds = self.tokens - self._began[0], self.seconds - self._began[1]
        return {
            "loss": loss,
            "fvu": fvu,
            "l0": l0,
            "dead": dead,
            "lr": self.schedule.lr(self.step - 1),
            "tokens": self.tokens,
            "tokens_per_s": tokens / seconds if seconds else None,
        }

    def tensors(self) -> dict[str, Tensor]:
        """All tensors of the state by name; not copies, the next step changes them."""
        named = {f"{_TOPK}{name}": tensor for name, tensor in self.topk.state_dict().items()}
        for name, parameter in self.topk.params.items():
            named |= {f"{_ADAM}{name}.{part}": tensor for part, tensor in self._adam.state[parameter].items()}
        return named

    def about(self) -> dict[str, object]:
        """The rest of the state, JSON-ready."""
        return {
            "step": self.step,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "scale": self.scale,
            "batches": self.batches.state(),
        }

    def load(self, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """Go on, bit for bit, from ``tensors`` and ``about`` of a run with the same shapes, schedule and batches."""
        self.topk.load_state_dict(_under(_TOPK, tensors))
        for name, parameter in self.topk.params.items():
            moments = _under(f"{_ADAM}{name}.", tensors)
            self._adam.state[parameter] = {part: moment.to(parameter.device) for part, moment in moments.items()}
        self.step, self.tokens, self.seconds = about["step"], about["tokens"], about["seconds"]
        self.scale = about["scale"]
        self.batches.load(about["batches"])
        self._began = (self.tokens, self.seconds)


def begin(
    batches: ActivationBatches, width: int, k: int, seed: int, schedule: Schedule, micro_tokens: int | None = None
) -> Training:
    """A new training on the device of ``batches``: x scaled to a mean norm of sqrt(d_in), b_dec at its mean.

    Raises NoActivations.
    """
    began = time.monotonic()
    scale, mean = batches.statistics()
    topk = TopK.init(len(mean), width, k, seed, b_dec=mean * scale, device=mean.device)
    training = Training(topk, batches, schedule, scale, micro_tokens)
    training.seconds = time.monotonic() - began  # the first block is harvested by now
    return training


def fit(
    training: Training,
    report: Callable[[int, dict[str, float | None]], None],
    save: Callable[[], None],
    checkpoint_every_s: float,
) -> None:
    """Train to the end of the schedule, and ``save`` every ``checkpoint_every_s`` seconds and at the end.

    ``report`` hears (step, metrics) of the first step and the last, and every METRICS_EVERY_S seconds between. It and
    the harvesting may raise to end the run; ``training`` is then good to save if it is ``whole``. A state whose loss
    is no number is never saved: Diverged is raised.
    """
    ticked = saved_at = time.monotonic()
    reported_at = -math.inf
    while training.step < training.schedule.steps:
        training.advance()
        now = time.monotonic()
        training.seconds += now - ticked
        ticked = now
        last = training.step == training.schedule.steps
        reporting = last or now - reported_at >= METRICS_EVERY_S
        saving = last or now - saved_at >= checkpoint_every_s
        metrics = training.metrics() if reporting or saving else {}
        if reporting:
            report(training.step, metrics)
            reported_at = now
        if saving:
            save()
            saved_at = time.monotonic()


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
