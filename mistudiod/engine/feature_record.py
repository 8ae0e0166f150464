"""What is known of one feature once a text has been read: the evidence that a feature store keeps of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TOP, BAND, RANDOM, NEAR = range(4)  # kinds of examples

U32 = NDArray[np.uint32]
F32 = NDArray[np.float32]


@dataclass(frozen=True)
class Examples:
    """Windows of one feature, in the order in which they are shown: all the strongest first, then by kind.

    Arrays of n examples: ``kind``; ``band`` (of BAND: n-th fifth of the maximum, 0 the lowest; else 0); ``row``, which
    of the windows read; ``first``, the position in it of the first token shown; ``length``, tokens shown; ``peak``, the
    position in the window of the token that the example is about, where the feature is strongest (of NEAR: where it
    could have fired and did not); ``value``, the activation there. ``tokens`` (sum of length,) are the ids of the
    tokens shown, one example after the other. ``fires`` (n,) is on how many of them the feature fires; ``where``
    (sum of fires,) is the place of each of these in its example, from 0, ``values`` its activation.
    """

    kind: NDArray[np.uint8]
    band: NDArray[np.uint8]
    row: U32
    first: U32
    length: U32
    peak: U32
    value: F32
    tokens: U32
    fires: U32
    where: NDArray[np.uint16]
    values: F32


@dataclass(frozen=True)
class Logits:
    """What a feature's direction does to the model's next token; values in nats per unit of activation."""

    top: U32  # token ids, the most promoted first
    top_values: F32
    bottom: U32  # the most suppressed first
    bottom_values: F32
    low: float  # of the smallest of all tokens
    high: float
    counts: U32  # (50,) tokens of the vocabulary in equal bins from low to high


@dataclass(frozen=True)
class FeatureRecord:
    """Over all tokens read: ``fired`` counts those on which it fires, ``total`` and ``squares`` sum its activations and
    their squares. ``histogram`` (64,) counts activations by the bins of ``pages.EDGES``. Of the tokens on which it
    fires most: ids, on how many of each it fires, and how many of each there are.
    """

    fired: int
    total: float
    squares: float
    maximum: float
    histogram: U32
    examples: Examples
    tokens: U32
    tokens_fired: U32
    tokens_read: U32
    label_fired: int  # the same of windows that labels may be made from: tokens on which it fires,
    label_tokens: U32  # those on which it fires most
    label_tokens_fired: U32
    label_tokens_read: U32
    cofiring: U32  # other features, the likeliest to fire with it first
    cofiring_share: F32  # of the tokens on which this one fires, on which the other does too
    cofiring_jaccard: F32  # tokens with both / tokens with either
    decoder: U32  # features with the nearest decoder rows, the nearest first
    decoder_cosine: F32
    logits: Logits | None  # None where what is rebuilt is not in the residual stream
