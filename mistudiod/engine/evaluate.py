"""An SAE measured on held-out text: every figure with the interval that its documents leave, beside what it must beat.

Figures are ``{"value", "interval"}``, of which either may be None; ``FORMULAS`` says what each is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mistudiod.engine import legacy
from mistudiod.engine.beside_baselines import Beside, Sample, beside_components, beside_random
from mistudiod.engine.by_document import Bootstrap, Interval, LossSums, Sums, difference, without_empty
from mistudiod.engine.document_sums import Batch, Measured, Part, Text, measured, rebuilding
from mistudiod.engine.legacy import Legacy
from mistudiod.engine.measure import DENSE_SHARE, density_histogram, nearest
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.engine.splice import Splice
from mistudiod.engine.verdict import COPIES

Told = Callable[[str, int, int], None]  # a stage, how many tokens of it are done, and of how many; it may raise
Found = dict[str, Any]
_LATENTS = 8_192  # of an encoder and a decoder, whose rows are normalized at once
# Of each figure its unit and formula. y is what is to be rebuilt, y_hat what is made of it; sums and means are over the
# tokens that count.
FORMULAS: dict[str, tuple[str, str]] = {
    "fvu": ("", "sum ||y - y_hat||^2 / sum ||y - mean y||^2, one mean for all tokens"),
    "fvu_first": ("", "the same over the first text token of each window alone, about their own mean"),
    "fvu_later": ("", "the same over all other tokens"),
    "l0": ("latents", "mean over tokens of how many latents fire"),
    "l1": ("", "mean over tokens of the sum of the latents"),
    "cosine": ("", "mean over tokens of <y, y_hat> / (||y|| ||y_hat||)"),
    "l2_ratio": ("", "mean over tokens of ||y_hat|| / ||y||"),
    "bias": ("", "sum ||y_hat||^2 / sum <y, y_hat> (Rajamanoharan et al. 2024, arXiv:2404.16014, equation 10)"),
    "alive": ("share of latents", "fired at least once"),
    "dead": ("share of latents", "never fired on these tokens"),
    "dense": ("share of latents", f"fired on more than {DENSE_SHARE} of the tokens"),
    "dense_mass": ("share of firings", "of the dense latents, of all that fire"),
    "decoder_cosine": ("", "largest cosine of a decoder row with another one, mean over up to 1,024 rows"),
    "decoder_copies": ("share of latents", f"of those rows, with a largest cosine of {COPIES} or more"),
    "encoder_cosine": ("", "largest cosine of an encoder column with another one, mean over up to 1,024 columns"),
    "encoder_copies": ("share of latents", f"of those columns, with a largest cosine of {COPIES} or more"),
    "encoder_decoder": ("", "cosine of a latent's encoder column and decoder row, mean over latents"),
    "ce_clean": ("nats", "the model's cross-entropy, mean over the tokens that have text after them"),
    "ce_delta": ("nats", "cross-entropy with y_hat in the place of y, less ce_clean"),
    "ce_zero": ("nats", "cross-entropy with zeros in the place of y, less ce_clean"),
    "ce_mean": ("nats", "cross-entropy with mean y in the place of y, less ce_clean"),
    "ce_recovered_zero": ("share", "1 - ce_delta / ce_zero"),
    "ce_recovered_mean": ("share", "1 - ce_delta / ce_mean"),
    "kl": ("nats", "KL(p || p_hat) of the next token, mean over the same tokens"),
    "pca_fvu": ("", "FVU of the first round(l0) principal components of other tokens, on baseline_tokens"),
    "pca_margin": ("", "pca_fvu less the SAE's FVU on the same tokens"),
    "random_fvu": ("", "FVU of round(l0) of d_sae random directions, by least squares, on random_tokens"),
    "random_margin": ("", "random_fvu less the SAE's FVU on the same tokens"),
}


def evaluate(
    sae: SparseAutoencoder,
    text: Text,
    tokens: int,
    train: Callable[[], Iterable[Tensor]] | None,
    seed: int,
    told: Told,
) -> Found:
    """What the SAE makes of a text of about ``tokens`` tokens, JSON-ready.

    ``train``: activations (n, d_in) of other tokens, float32, to fit principal components to; None for a transcoder,
    which no baseline stands beside. Raises ValueError where nothing can be measured.
    """
    sample = Sample(text, tokens, sae.d_in) if train else None
    parts, old = (Part(), Part()), Legacy()

    def also(batch: Batch, y_hat: Tensor, lost: Tensor) -> None:
        old.add(batch.y, y_hat)
        for part, of in zip(parts, (batch.first, ~batch.first), strict=True):
            part.add(batch.y[of], lost[of])
        if sample:
            sample.add(batch, lost)

    found = measured(sae, text, lambda came: told("measure", came, tokens), also)
    fired, n = found.measures.fired, found.measures.tokens
    beside = _baselines(sae, sample, train, found.measures.l0, seed, told) if sample and train else {"figures": {}}
    alone = {name: _figure(part.fvu()) for name, part in zip(("fvu_first", "fvu_later"), parts, strict=True)}
    return {
        **beside,
        "figures": {**_of_tokens(found), **alone, **_of_latents(sae, fired, n), **beside["figures"]},
        "tokens": n,
        "first_tokens": parts[0].tokens,
        "outliers_left_out": found.left_out,
        "units": len(without_empty(found.sums)[0].tokens),
        "density": density_histogram(fired, n),
        "legacy": {
            name: {"value": x if math.isfinite(x) else None, "formula": legacy.FORMULAS[name]}
            for name, x in old.figures().items()
        },
    }


def with_losses(sae: SparseAutoencoder, splice: Splice, hook: str, hook_out: str) -> Found:
    """What the SAE costs the language model, JSON-ready. Raises ValueError when no token has text after it."""
    loss, by_document = splice.loss_by_document(hook, rebuilding(sae), hook_out)
    (sums,) = without_empty(by_document)
    values = {**loss.figures(), "ce_zero": loss.zero - loss.clean, "ce_mean": loss.mean - loss.clean}
    return {"figures": _figures(values, sums), "ce_tokens": loss.tokens, "ce_units": len(sums.tokens)}


def _of_tokens(found: Measured) -> Found:
    (sums,) = without_empty(found.sums)
    of, l1 = found.measures, float(sums.l1.sum() / sums.tokens.sum())
    values = {"fvu": of.fvu, "l0": of.l0, "l1": l1, "cosine": of.cosine, "l2_ratio": of.l2_ratio, "bias": of.bias}
    return _figures(values, sums)


def _figures(values: dict[str, float | None], sums: Sums | LossSums) -> Found:
    bootstrap, figures = Bootstrap(len(sums.tokens)), sums.figures()
    return {name: _figure(value, bootstrap.interval(figures[name])) for name, value in values.items()}


def _of_latents(sae: SparseAutoencoder, fired: Tensor, tokens: int) -> Found:
    dense = fired > DENSE_SHARE * tokens
    found = {
        "alive": (fired > 0).double().mean().item(),
        "dead": (fired == 0).double().mean().item(),
        "dense": dense.double().mean().item(),
        "dense_mass": (fired[dense].sum() / fired.sum()).item() if fired.any() else None,
        "encoder_decoder": None if sae.transcodes else _aligned(sae),
    }
    for name, rows in (("decoder", sae.W_dec), ("encoder", sae.W_enc.t())):
        cosines = nearest(rows).double() if sae.d_sae > 1 else None
        found[f"{name}_cosine"] = None if cosines is None else cosines.mean().item()
        found[f"{name}_copies"] = None if cosines is None else (cosines >= COPIES).double().mean().item()
    return {name: _figure(value) for name, value in found.items()}


@torch.no_grad()
def _aligned(sae: SparseAutoencoder) -> float:
    parts = zip(sae.W_enc.split(_LATENTS, dim=1), sae.W_dec.split(_LATENTS), strict=True)
    return torch.cat([torch.cosine_similarity(one.t(), other, dim=1) for one, other in parts]).double().mean().item()


def _baselines(
    sae: SparseAutoencoder, sample: Sample, train: Callable[[], Iterable[Tensor]], l0: float, seed: int, told: Told
) -> Found:
    """Their figures, how many tokens of the sample they are of, and how large they are."""
    pca, mean = beside_components(sample, train(), l0, partial(told, "measure principal components"))
    random = beside_random(sample, mean, sae.d_sae, l0, seed, partial(told, "measure random directions"))
    return {
        "figures": {**_beside("pca", pca), **_beside("random", random)},
        "baseline_tokens": int(pca.sae.tokens.sum()),
        "random_tokens": int(random.sae.tokens.sum()),
        "components": pca.size,
        "directions": random.size,
    }


def _beside(name: str, found: Beside) -> Found:
    baseline, sae = without_empty(found.baseline, found.sae)
    bootstrap, figures = Bootstrap(len(sae.tokens)), {"fvu": baseline.fvu, "margin": difference(baseline.fvu, sae.fvu)}
    return {f"{name}_{of}": _figure(bootstrap.value(one), bootstrap.interval(one)) for of, one in figures.items()}


def _figure(value: float | None, interval: Interval | None = None) -> Found:
    if value is None or not math.isfinite(value):
        return {"value": None, "interval": None}
    return {"value": value, "interval": None if interval is None else list(interval)}
