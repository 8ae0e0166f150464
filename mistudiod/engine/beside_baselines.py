"""What an SAE must beat, on some of the tokens that it was measured on: each FVU and how far the SAE is below it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mistudiod.engine.baselines import Components, RandomDictionary
from mistudiod.engine.by_document import Explained
from mistudiod.engine.document_sums import ROWS, Batch, Tally, Text

KEPT_TOKENS, KEPT_BYTES = 65_536, 128 << 20  # of activations, in bf16
RANDOM_TOKENS = 8_192
RANDOM_WORK = 4e11  # multiplications, at most, for the random dictionary: d_sae d + k^2 d + k^3 a token
LEAST_RANDOM = 256  # tokens


@dataclass
class Sample:
    """Tokens of some windows of a text, evenly spread, as they come by: as many as KEPT_TOKENS and KEPT_BYTES allow.

    ``tokens`` is about how many the text has, ``width`` that of the activations.
    """

    text: Text
    tokens: int
    width: int
    x: list[Tensor] = field(default_factory=list)
    units: list[NDArray[np.int64]] = field(default_factory=list)
    lost: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        most = min(KEPT_TOKENS, KEPT_BYTES // (2 * self.width))
        self.windows = self.text.numbers[:: max(1, -(-self.tokens // most))]

    def add(self, batch: Batch, lost: Tensor) -> None:
        kept = np.isin(batch.windows, self.windows)
        if kept.any():
            at = torch.from_numpy(kept).to(lost.device)
            self.x.append(batch.x[at].bfloat16())  # which holds them exactly: a harvest is rounded to it
            self.units.append(batch.units[kept])
            self.lost.append(lost[at])


@dataclass(frozen=True)
class Beside:
    """A baseline and the SAE on the same tokens."""

    baseline: Explained
    sae: Explained
    size: int  # components, or atoms a token


def beside_components(
    sample: Sample, train: Iterable[Tensor], l0: float, heard: Callable[[int, int], None]
) -> tuple[Beside, Tensor]:
    """As many principal components of ``train`` as latents fire; also the mean of ``train`` (d_in,) float64."""
    x = torch.cat(sample.x)
    size = min(max(round(l0), 0), x.shape[1])
    components = Components.of(train, size)
    return _beside(sample, slice(None), components.residual, ROWS, size, heard), components.mean


def beside_random(
    sample: Sample, mean: Tensor, d_sae: int, l0: float, seed: int, heard: Callable[[int, int], None]
) -> Beside:
    """As many of ``d_sae`` random directions as latents fire, on as many of the tokens as take no more than
    RANDOM_WORK."""
    n, d_in = sum(map(len, sample.x)), len(mean)
    k = min(max(round(l0), 1), d_in, d_sae)
    work = d_sae * d_in + k * k * d_in + k**3  # of a token: atoms are chosen, then its coefficients found
    most = max(LEAST_RANDOM, min(RANDOM_TOKENS, int(RANDOM_WORK / work)))
    random = RandomDictionary.of(mean, d_sae, k, seed)
    return _beside(sample, slice(None, None, max(1, -(-n // most))), random.residual, random.rows, k, heard)


def _beside(
    sample: Sample,
    some: slice,
    residual: Callable[[Tensor], Tensor],
    rows: int,
    size: int,
    heard: Callable[[int, int], None],
) -> Beside:
    x, units, lost = torch.cat(sample.x)[some], np.concatenate(sample.units)[some], torch.cat(sample.lost)[some]
    baseline, sae = (Tally(sample.text.units.count, 1) for _ in range(2))
    for start in range(0, len(x), rows):
        at = slice(start, start + rows)
        y = x[at].double()
        baseline.add(units[at], y, residual(y).square().sum(1, keepdim=True))
        sae.add(units[at], y, lost[at, None])
        heard(start + len(y), len(x))
    return Beside(baseline.explained(), sae.explained(), size)
