"""What every library looks like to the benchmarks: one step of training on a batch, and later what it rebuilds.

Imported by the interpreters of all of them: standard library and torch only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Setup:
    """What is trained: the same for every library. Activations have a mean norm of sqrt(d_in)."""

    d_in: int
    width: int
    batch: int
    k: int
    steps: int  # of the whole training, for schedules
    lr: float | None = None  # of its own, when not given
    seed: int = 0

    @property
    def warm_up(self) -> int:
        """Steps of a linear warm-up, and in ``decay`` of the linear way down to 0, for every library."""
        return math.ceil(self.steps / 20)

    @property
    def decay(self) -> int:
        return math.ceil(self.steps / 5)


class Peer(Protocol):
    """A trainer that is ready."""

    def step(self, x: Tensor) -> None:
        """One step on a batch (batch, d_in) float32: all that the library's own loop does for one."""

    def latents(self, x: Tensor) -> Tensor:
        """(tokens, width), as its SAE has them in use; a batch-top-k's before any threshold, but after ReLU."""

    def decode(self, latents: Tensor) -> Tensor:
        """(tokens, d_in)."""
