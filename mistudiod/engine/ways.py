"""The ways in which a published SAE may have been meant: its files leave things open, and its readers may be wrong.

A way says what differs from what is declared. Weights are shared with the declared SAE wherever they are the same; a
scale is not folded in for a trial: x is scaled before it is read, and what is rebuilt afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from mistudiod.engine.norms import NORMS
from mistudiod.engine.rules import JumpReLURule, Rule
from mistudiod.engine.sae import SparseAutoencoder

SCALES = ("sqrt_d", "one", "undone")  # one number for the whole text, from the activations' size
_WORDS = {
    "orientation": {
        "W_enc": "with the encoder transposed",
        "W_dec": "with the decoder transposed",
        "both": "with encoder and decoder transposed",
    },
    "b_dec": {"subtracted": "with b_dec subtracted", "kept": "without b_dec subtracted"},
    "normalisation": {
        "none": "without normalisation",
        "layer_norm": "with layer_norm",
        "constant_norm_rescale": "with constant_norm_rescale",
        "sqrt_d": "with activations scaled to a mean norm of sqrt(d)",
        "one": "with activations scaled to a mean square norm of 1",
        "undone": "with the scale to a mean norm of sqrt(d) taken out of the weights",
    },
    "threshold": {
        "times_scale": "with the threshold times the scale of the activations",
        "over_scale": "with the threshold over the scale of the activations",
        "logarithm": "with the threshold read as a logarithm",
    },
    "bos": {"with": "with BOS before the text", "without": "without BOS before the text"},
}


@dataclass(frozen=True)
class Way:
    """What differs from what is declared; None: nothing does there. Each field is one thing that may be mistaken."""

    orientation: str | None = None
    b_dec: str | None = None
    normalisation: str | None = None  # one of NORMS or of SCALES
    threshold: str | None = None
    bos: str | None = None
    hook: str | None = None

    @property
    def changes(self) -> dict[str, str]:
        """What differs, by its name."""
        return {one.name: value for one in fields(self) if (value := getattr(self, one.name)) is not None}

    @property
    def words(self) -> str:
        """As it stands in a sentence, behind "read"."""
        said = [_WORDS[name][value] if name in _WORDS else f"at {value}" for name, value in self.changes.items()]
        return " and ".join(said) or "as declared"

    def and_also(self, other: Way) -> Way | None:
        """Both; None when they are about the same thing."""
        return None if self.changes.keys() & other.changes.keys() else replace(self, **other.changes)


@dataclass(frozen=True)
class Size:
    """How large the activations at a hook are."""

    width: int
    mean_norm: float
    root_mean_square: float  # of the norms

    @classmethod
    def of(cls, x: Tensor) -> Size:
        """x: (tokens, width)."""
        norms = torch.linalg.vector_norm(x.double(), dim=1)
        least = torch.finfo(torch.float32).tiny
        return cls(x.shape[1], max(norms.mean().item(), least), max(norms.square().mean().sqrt().item(), least))

    def factor(self, scale: str) -> float:
        """By what activations are multiplied, of a scale of SCALES."""
        if scale == "one":
            return 1 / self.root_mean_square
        usual: float = self.width**0.5 / self.mean_norm
        return 1 / usual if scale == "undone" else usual


def single_ways(sae: SparseAutoencoder, hooks: Sequence[str], bos: bool | None) -> list[Way]:
    """Every way that differs from the declared one in one thing.

    ``hooks``: the places near the declared hook; ``bos``: whether the text is declared to begin with BOS, None when
    the model has none. A transcoder takes x as it is, and normalizes each token never.
    """
    ways = [Way(orientation=one) for one in ("W_enc", "W_dec", "both")] if sae.d_in == sae.d_sae == sae.d_out else []
    if not sae.transcodes:
        ways.append(Way(b_dec="kept" if sae.centred else "subtracted"))
        ways += [Way(normalisation=norm) for norm in NORMS if norm != sae.norm]
    ways += [Way(normalisation=scale) for scale in SCALES if scale != "undone" or sae.norm == "none"]
    if isinstance(sae.rule, JumpReLURule):
        ways += [Way(threshold="times_scale"), Way(threshold="over_scale")]
        ways += [Way(threshold="logarithm")] if bool((sae.rule.threshold < 0).any()) else []
    if bos is not None:
        ways.append(Way(bos="without" if bos else "with"))
    return [*ways, *(Way(hook=hook) for hook in hooks)]


def meant(sae: SparseAutoencoder, way: Way, size: Size) -> SparseAutoencoder:
    """The SAE of a way, but for scales (``factors``); ``size`` is that of what it reads."""
    changed = replace(sae, rule=_rule(sae.rule, way.threshold, size))
    for matrix in ("W_enc", "W_dec"):
        if way.orientation in (matrix, "both"):
            setattr(changed, matrix, getattr(sae, matrix).t().contiguous())
    if way.b_dec:
        changed.centred = way.b_dec == "subtracted"
    if way.normalisation:
        changed.norm = way.normalisation if way.normalisation in NORMS else "none"
    return changed


def factors(way: Way, size: Size, size_out: Size) -> tuple[float, float]:
    """By what a way multiplies what is read, and divides what is rebuilt."""
    if way.normalisation not in SCALES:
        return 1.0, 1.0
    return size.factor(way.normalisation), size_out.factor(way.normalisation)


def fold_factors(sae: SparseAutoencoder, read: float, rebuilt: float) -> None:
    """Put the scales of a way into the weights, in place: for good, where they were only tried."""
    sae.W_enc *= read
    sae.W_dec /= rebuilt
    sae.b_dec /= rebuilt
    if sae.W_skip is not None:
        sae.W_skip *= read / rebuilt


def _rule(rule: Rule, threshold: str | None, size: Size) -> Rule:
    if threshold is None or not isinstance(rule, JumpReLURule):
        return rule
    factor = size.factor("sqrt_d")
    changed = {
        "times_scale": lambda: rule.threshold * factor,
        "over_scale": lambda: rule.threshold / factor,
        "logarithm": lambda: rule.threshold.exp(),
    }
    return JumpReLURule(changed[threshold]())
