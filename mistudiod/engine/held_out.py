"""Held-out activations that an SAE is judged by when its training is over: harvested once, kept in bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mistudiod.engine.harvest import Harvest, Windows

HELD_BYTES = 128 << 20  # of activations in memory, unless LEAST_TOKENS take more
LEAST_TOKENS = 16_384
APART_FROM = 8_192  # tokens: of fewer, a threshold's share would be too few to say anything
ROWS = 4_096  # tokens of it that are taken at once


@dataclass(frozen=True)
class HeldOut:
    """Activations of held-out text: those to choose a threshold by, and those to measure on.

    Both are the same where there are fewer than APART_FROM, and ``apart`` says so. Windows of one kind alternate with
    those of the other. ``outliers`` is the share of text tokens that were left out for their norm.
    """

    calibration: Tensor  # (tokens, d) float32
    test: Tensor  # (tokens, d) float32
    apart: bool
    outliers: float


def most_tokens(width: int) -> int:
    """How many tokens are kept of activations ``width`` wide."""
    return max(LEAST_TOKENS, HELD_BYTES // (4 * width))


def harvest_held_out(
    harvest: Harvest, numbers: NDArray[np.integer], tokens: int, columns: slice, heard: Callable[[int], None]
) -> HeldOut:
    """Of windows of ``numbers``, drawn, that hold up to ``tokens`` text tokens; ``columns`` of them.

    ``heard`` is told how many tokens have come so far.
    """
    sides, text = sides_of(harvest.windows, numbers, tokens)
    parts, came = [], 0
    for some in sides:
        found = []
        for x in harvest.first(some, harvest.windows.context * len(some)):
            found.append(x[:, columns].clone())  # a view would keep the other columns
            came += len(x)
            heard(came)
        parts.append(torch.cat(found) if found else torch.empty(0, harvest.d_in)[:, columns])
    return HeldOut(parts[0], parts[-1], len(sides) > 1, 1 - came / text if text else 0.0)


def sides_of(windows: Windows, numbers: NDArray[np.integer], tokens: int) -> tuple[list[NDArray[np.integer]], int]:
    """Windows of ``numbers``, drawn, that hold up to ``tokens`` text tokens, and how many those are: those to choose a
    threshold by, then those to measure on, where there are enough for both.
    """
    chosen, text = with_text(windows, numbers, tokens)
    apart = text >= APART_FROM and len(chosen) > 1
    return [chosen[0::2], chosen[1::2]] if apart else [chosen], text


def with_text(windows: Windows, numbers: NDArray[np.integer], tokens: int) -> tuple[NDArray[np.integer], int]:
    """Windows of ``numbers``, drawn, with up to ``tokens`` text tokens, one at least, and how many those are."""
    found, text = [], 0
    for number in np.random.default_rng(0).permutation(numbers):
        held = int((~windows.special_mask(windows.rows([number]))).sum())
        if found and text + held > tokens:
            break
        found.append(number)
        text += held
    return np.sort(np.array(found)), text
