"""What goes into a step of training and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

Params = dict[str, Tensor]


@dataclass(frozen=True)
class Settings:
    """What can be asked of an architecture; each heeds what concerns it."""

    k: int  # latents active on a token: exactly, on average, or to aim at
    dead_after_tokens: int  # a latent that was silent for so many is dead, and AuxK works on it
    l1: float = 0.0  # weight of the L1 loss
    tanh: float | None = None  # weight of the tanh loss, in place of aiming at k


@dataclass(frozen=True)
class Shape:
    """Of the weights; ``d_out`` is another than d_in for a transcoder only, and so is ``skip``."""

    d_in: int
    d_sae: int
    d_out: int
    skip: bool = False


@dataclass(frozen=True)
class StepResult:
    """What one batch says. ``grads`` are the trainer's own buffers, overwritten by the next step."""

    loss: Tensor  # (), what the gradients are of
    fvu: Tensor  # (), of this batch, about the batch's mean
    aux_loss: Tensor  # (), AuxK's, 0 while no latent is dead
    l0: Tensor  # (), latents that fire, mean over tokens
    norm: Tensor  # (), of all the gradients together
    grads: dict[str, Tensor]  # for every entry of params
    silent: Tensor | None  # (d_sae,) uint8, 1 where the gradients' rows of both weights are zero; None: unknown


class Rebuilt(NamedTuple):
    """What a forward pass says, AuxK apart; all ()."""

    loss: Tensor
    fvu: Tensor
    l0: Tensor


@dataclass(frozen=True)
class Batch:
    """One step's tokens, and what is known of them."""

    x: Tensor  # (tokens, d_in)
    y: Tensor  # (tokens, d_out), what is to be rebuilt; x itself but for a transcoder
    parts: list[slice]  # of tokens, taken one after another
    variance: Tensor  # (), sum ||y - mean||^2
    residual: Tensor  # (tokens, d_out), where y_hat - y is written
    done: float  # share of the training that is over
