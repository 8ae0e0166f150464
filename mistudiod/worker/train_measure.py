"""What a trained SAE is worth, on held-out text, beside what costs nothing to beat."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mistudiod.engine.baselines import pca_fvu, random_dictionary_fvu
from mistudiod.engine.calibrate import calibrated
from mistudiod.engine.document_sums import rebuilding
from mistudiod.engine.harvest import Harvest
from mistudiod.engine.held_out import ROWS, HeldOut, harvest_held_out, most_tokens
from mistudiod.engine.measure import decoder_cosine, density_histogram, measure
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.engine.splice import NO_FIGURES, Splice
from mistudiod.engine.trainer import View
from mistudiod.engine.verdict import verdict
from mistudiod.specs.train import BY_L1, One
from mistudiod.worker.link import Link
from mistudiod.worker.train_source import HELD_OUT_TOKENS, held_out_windows

RANDOM_TOKENS = 8_192  # of those for the random dictionary, whose least squares cost k^2 d_in a token
CALIBRATED = ("batchtopk", "matryoshka", "transcoder", "topk_transcoder")  # architectures of one threshold
SPLICE_TOKENS = 16_384  # that the language model's loss is measured on, in windows
FEW_TOKENS = 8_192  # for an SAE whose training was stopped
# What a measure is called in recipe.json, the result and the database; ``measured`` gives all of them.
MEASURES = (
    *("fvu", "l0", "alive", "dead", "dense", "cosine", "l2_ratio", "bias", "decoder_cosine"),
    *NO_FIGURES,
    *("pca_fvu", "random_fvu", "held_out_tokens", "ce_tokens", "calibration_tokens", "outliers"),
    *("density", "verdict"),
)


class Bench:
    """What the SAEs of a training are measured on, one after another; held-out activations stay while hooks do.

    ``tokens`` at most are measured on. ``train`` are training activations (n, all columns) for the principal
    components; ``splice``: the whole language model on held-out windows, None when there is only a part of it.
    """

    def __init__(
        self,
        harvest: Harvest,
        numbers: range,
        train: Tensor,
        link: Link,
        splice: Splice | None = None,
        tokens: int = HELD_OUT_TOKENS,
    ) -> None:
        self.train, self.splice, self.link = train, splice, link
        self._harvest, self._numbers, self._tokens = harvest, np.array(numbers), tokens
        self._held: tuple[tuple[slice, slice], HeldOut] | None = None
        self._done = self._total = 0  # tokens gone through, of the SAE at hand

    def held_out(self, x: slice, y: slice) -> tuple[HeldOut, slice, slice]:
        """Held-out activations, and where in them x and y lie."""
        whole = slice(min(x.start, y.start), max(x.stop, y.stop))
        if self._held is None or self._held[0] != (x, y):
            self._held = None  # two are never in memory
            most = min(self._tokens, most_tokens(whole.stop - whole.start))

            def heard(came: int) -> None:
                self.link.progress("measure", min(came, most), most, "tokens")

            self._held = ((x, y), harvest_held_out(self._harvest, self._numbers, most, whole, heard))
        x, y = (slice(one.start - whole.start, one.stop - whole.start) for one in (x, y))
        return self._held[1], x, y

    def begin(self, tokens: int) -> None:
        """Measuring an SAE goes through so many tokens."""
        self._done, self._total = 0, tokens
        self.link.progress("measure", 0, tokens, "tokens")

    def batches(self, tokens: Tensor, columns: slice) -> Iterator[Tensor]:
        """Columns of ``tokens`` (n, d), some rows at a time; a wish to end is heard between them."""
        for rows in tokens.split(ROWS):
            yield rows[:, columns]
            self._done += len(rows)
            self.link.progress("measure", min(self._done, self._total), self._total, "tokens")
            self.link.check()


def splice_numbers(windows: Any, tokens: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The held-out windows that the language model's loss is measured on: spread, of ``tokens`` in all."""
    held_out = held_out_windows(windows)
    count = min(len(held_out), max(1, tokens // windows.context))
    return np.linspace(held_out.start, held_out.stop - 1, count).round().astype(np.int64)


def measured(
    sae: SparseAutoencoder,
    one: One,
    x: View,
    y: View | None,
    bench: Bench,
    dead: float | None = None,
    tanh: bool = False,
) -> tuple[SparseAutoencoder, dict[str, Any], Tensor]:
    """The SAE with its threshold, its measures (MEASURES, JSON-ready), and each latent's firing share (d_sae,).

    ``sae`` is as it was trained, ``one`` its point of the grid, ``x`` and ``y`` what it read and rebuilt, ``dead`` the
    share of latents that training counts as dead. The threshold is chosen on other held-out tokens than it is measured
    on, when there are enough. Beside it: as many principal components as latents fire, and a random dictionary of its
    width and k; nothing is beside a transcoder.
    """
    held, reads, rebuilds = bench.held_out(x.columns, (y or x).columns)
    calibrating, n = one.architecture in CALIBRATED, len(held.test)
    bench.begin(2 * len(held.calibration) * calibrating + n + (0 if y else n + min(n, RANDOM_TOKENS)))
    if calibrating:
        sae = calibrated(sae, one.k, lambda: bench.batches(held.calibration, reads))
    found = measure(sae, ((rows[:, reads], rows[:, rebuilds]) for rows in bench.batches(held.test, slice(None))))
    measures: dict[str, Any] = {
        "fvu": found.fvu,
        "l0": found.l0,
        "alive": found.alive,
        "dead": dead,
        "dense": found.dense,
        "cosine": found.cosine,
        "l2_ratio": found.l2_ratio,
        "bias": found.bias,
        "decoder_cosine": decoder_cosine(sae),
        "held_out_tokens": found.tokens,
        "calibration_tokens": len(held.calibration) if calibrating and held.apart else None,
        "outliers": held.outliers,
        "density": density_histogram(found.fired, found.tokens),
        **_losses(sae, one, bench),
        **(dict.fromkeys(("pca_fvu", "random_fvu")) if y else _beside(one, found.l0, x.columns, held, bench)),
    }
    asked = None if one.architecture in BY_L1 or tanh else one.k
    measures = {name: None if isinstance(value, float) and not math.isfinite(value) else value
                for name, value in measures.items()}  # fmt: skip
    measures["verdict"] = verdict(measures | {"asked_l0": asked})
    return sae, measures, found.fired.double() / found.tokens


def _losses(sae: SparseAutoencoder, one: One, bench: Bench) -> dict[str, Any]:
    """What the language model loses; None when it is not whole."""
    if bench.splice is None:
        return {**NO_FIGURES, "ce_tokens": None}
    loss = bench.splice.loss(one.hook, rebuilding(sae), one.hook_out)
    return {**loss.figures(), "ce_tokens": loss.tokens}


def _beside(one: One, l0: float, columns: slice, held: HeldOut, bench: Bench) -> dict[str, Any]:
    """FVU of the baselines on the same tokens."""
    train = bench.train[:, columns]
    d_in, whole = train.shape[1], slice(0, train.shape[1])
    pca = pca_fvu(torch.split(train, 4096), bench.batches(held.test, whole), min(round(l0), d_in))
    mean, k = train.mean(0, dtype=torch.float64), min(one.k, d_in, one.width)
    random = random_dictionary_fvu(bench.batches(held.test[:RANDOM_TOKENS], whole), mean, one.width, k, one.seed)
    return {"pca_fvu": pca, "random_fvu": random}
