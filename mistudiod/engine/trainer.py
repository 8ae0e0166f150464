"""One sparse autoencoder on its way: its parameters, Adam's moments, what it is shown, and what it says of itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mistudiod.engine import native
from mistudiod.engine.adam import Adam
from mistudiod.engine.architectures import TrainingSae
from mistudiod.engine.architectures.step import StepResult
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.engine.schedule import Schedule

WORST_FVU = 100.0  # after the warm-up; the mean alone has 1, and a start may have hundreds
_SAE, _ADAM = "sae.", "adam."  # what names of tensors begin with


@dataclass(frozen=True)
class View:
    """What of a batch an autoencoder sees: columns of the harvested activations, and what they are multiplied by."""

    columns: slice
    scale: float

    def of(self, batch: Tensor) -> Tensor:
        return batch[:, self.columns] * self.scale


class Diverged(RuntimeError):
    """Some autoencoders no longer learn anything: ``which`` says of the number of each what is wrong with it."""

    def __init__(self, which: Mapping[int, str]) -> None:
        super().__init__("; ".join(which.values()))
        self.which = dict(which)


class Trainer:
    """``x`` is what the autoencoder reads, ``y`` what a transcoder rebuilds from it."""

    def __init__(self, sae: TrainingSae, schedule: Schedule, x: View, y: View | None = None) -> None:
        self.sae, self.schedule, self.x, self.y = sae, schedule, x, y
        self._adam = Adam(sae, schedule.peak_lr)
        self._last: StepResult | None = None

    def advance(self, step: int, batch: Tensor, micro_tokens: int | None) -> None:
        """Step number ``step``, from 0: loss and gradients, clipped Adam, the decoder back to unit rows."""
        y = None if self.y is None else self.y.of(batch)
        self._last = self.sae.loss_and_grads(self.x.of(batch), y, micro_tokens, self.schedule.done(step))
        self._adam.update(self._last, self.schedule.lr(step))

    def metrics(self, step: int) -> dict[str, float]:
        """Measurements of the latest step's batch; ``step`` have been made. Waits for the device."""
        last = self._last
        assert last is not None, "no step has been made"
        norm = last.norm.to(last.loss)
        measured = torch.stack([last.loss, last.fvu, last.l0, self.sae.dead.float().mean(), norm])
        loss, fvu, l0, dead, grad_norm = measured.tolist()
        alive = 1 - dead
        named = {"loss": loss, "fvu": fvu, "l0": l0, "alive": alive, "dead": dead, "grad_norm": grad_norm}
        return named | {"lr": self.schedule.lr(step - 1)}

    def wrong(self, step: int, metrics: Mapping[str, float], thorough: bool) -> str | None:
        """What shows that the training has diverged, in the ``metrics`` after ``step`` steps; None when nothing does.

        ``thorough``: look at every parameter as well, which costs a pass over them.
        """
        for name, shown in (("loss", "loss"), ("grad_norm", "norm of the gradient")):
            if not math.isfinite(metrics[name]):
                return f"the {shown} at step {step} is {metrics[name]}"
        warm = step > self.schedule.start + self.schedule.warm_up or step == self.schedule.steps
        if warm and metrics["fvu"] > WORST_FVU:
            return f"the FVU at step {step} is {metrics['fvu']:.3g}"
        if thorough and not all(bool(parameter.isfinite().all()) for parameter in self.sae.params.values()):
            return f"a parameter at step {step} is not finite"
        return None

    def tensors(self) -> dict[str, Tensor]:
        """All tensors of the state by name; not copies, the next step changes them."""
        named = {f"{_SAE}{name}": tensor for name, tensor in self.sae.state_dict().items()}
        for name, parameter in self.sae.params.items():
            named |= {f"{_ADAM}{name}.{part}": tensor for part, tensor in self._adam.state[parameter].items()}
        return named

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from the ``tensors`` of one with the same shapes."""
        self.sae.load_state_dict(under(_SAE, tensors))
        for name, parameter in self.sae.params.items():
            moments = under(f"{_ADAM}{name}.", tensors)
            self._adam.state[parameter] = {
                part: native.in_large_pages(moment.to(parameter.device)) for part, moment in moments.items()
            }

    def to_sae(self, metadata: Mapping[str, object]) -> SparseAutoencoder:
        """The canonical form, for activations as the model has them."""
        return self.sae.to_sae(self.x.scale, metadata, self.y.scale if self.y else None)


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those whose names begin with ``prefix``, which is left out."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
