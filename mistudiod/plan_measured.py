"""What one run taught: how much memory it took, and how fast it was. It takes the place of the formula's guesses.

A record belongs to a ``key``; of those under the same key the one most like the new run is used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Measured:
    """One training that came to its end. ``asdict`` of it is ready for JSON."""

    width: int
    k: int
    batch_tokens: int
    peak_bytes: int  # on the device that the budget is of
    formula_bytes: int  # ``Plan.formula_bytes`` of the same run
    tokens_per_s: float | None = None  # harvesting and training together
    other_s: float | None = None  # before the first step and after the last

    @property
    def excess_bytes(self) -> int:
        """What the formula did not know, or made too much of."""
        return self.peak_bytes - self.formula_bytes


def key(
    model: Mapping[str, Any], precision: str, context: int, hook: str, device: str, versions: Mapping[str, str]
) -> str:
    """What must be the same for a measurement to hold: the model's very weights, how it is read, where, and by what.

    ``model`` is ``model.json``, ``device`` names the device and its memory, ``versions`` are those of torch,
    transformers and the like. Returns 32 hexadecimal digits.
    """
    weights = [model.get(name) for name in ("revision", "source", "path", "parameters", "size_bytes")]
    parts = [weights, precision, context, hook, device, sorted(versions.items())]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def nearest(remembered: Iterable[Measured], width: int, k: int, batch_tokens: int) -> Measured | None:
    """The record whose memory is most like that of a run of these sizes; the last of equal ones."""

    def distance(one: Measured) -> float:
        pairs = ((one.width, width), (one.batch_tokens, batch_tokens), (one.k, k))
        return sum(max(a, b) / min(a, b) for a, b in pairs)

    return min(reversed(list(remembered)), key=distance, default=None)


def as_fast(remembered: Iterable[Measured], width: int, k: int, batch_tokens: int) -> Measured | None:
    """The last record that says how fast a run of exactly these sizes is; None when there is none."""
    sizes = (width, k, batch_tokens)
    known = [one for one in remembered if (one.width, one.k, one.batch_tokens) == sizes and one.tokens_per_s]
    return known[-1] if known else None
