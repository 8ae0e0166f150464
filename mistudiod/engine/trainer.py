"""One sparse autoencoder on its way: its parameters, Adam's moments, what it is shown, and what it says of itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mistudiod.engine.adam import Adam
from mistudiod.engine.architectures import TrainingSae
from mistudiod.engine.architectures.step import StepResult
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.engine.schedule import Schedule

_SAE, _ADAM = "sae.", "adam."  # what names of tensors begin with


@dataclass(frozen=True)
class View:
    """What of a batch an autoencoder sees: columns of the harvested activations, and what they are multiplied by."""

    columns: slice
    scale: float

    def of(self, batch: Tensor) -> Tensor:
        return batch[:, self.columns] * self.scale


class Diverged(RuntimeError):
    """The loss is no longer a number."""


class Trainer:
    """``x`` is what the autoencoder reads, ``y`` what a transcoder rebuilds from it."""

    def __init__(self, sae: TrainingSae, schedule: Schedule, x: View, y: View | None = None) -> None:
        self.sae, self.schedule, self.x, self.y = sae, schedule, x, y
        self._adam = Adam(sae, schedule.peak_lr)
        self._last: StepResult | None = None

    def advance(self, step: int, batch: Tensor, micro_tokens: int | None) -> None:
        """Step number ``step``, from 0: loss and gradients, clipped Adam, the decoder back to unit rows."""
        y = None if self.y is None else self.y.of(batch)
        done = step / self.schedule.steps
        self._last = self.sae.loss_and_grads(self.x.of(batch), y, micro_tokens, done)
        self._adam.update(self._last, self.schedule.lr(step))

    def metrics(self, step: int) -> dict[str, float]:
        """Measurements of the latest step's batch; ``step`` have been made. Raises Diverged."""
        last = self._last
        assert last is not None, "no step has been made"
        measured = torch.stack([last.loss, last.fvu, last.l0, self.sae.dead.float().mean()])
        loss, fvu, l0, dead = measured.tolist()
        if not math.isfinite(loss):
            raise Diverged(f"the loss at step {step} is {loss}")
        return {"loss": loss, "fvu": fvu, "l0": l0, "dead": dead, "lr": self.schedule.lr(step - 1)}

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
            self._adam.state[parameter] = {part: moment.to(parameter.device) for part, moment in moments.items()}

    def to_sae(self, metadata: Mapping[str, object]) -> SparseAutoencoder:
        """The canonical form, for activations as the model has them."""
        return self.sae.to_sae(self.x.scale, metadata, self.y.scale if self.y else None)


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those whose names begin with ``prefix``, which is left out."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
