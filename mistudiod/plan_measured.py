"""What one run taught: how much memory it took, and how fast it was. It takes the place of the formula's guesses.

A record belongs to a ``key``; of those under the same key the one most like the new run is used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Measured:
    """One training that came to its end, of one SAE or of several. ``asdict`` of it is ready for JSON."""

    parameters: int  # of the SAEs that were trained at once
    entries: int  # their active latents of a token
    batch_tokens: int
    peak_bytes: int  # on the device that the budget is of
    formula_bytes: int  # ``Plan.formula_bytes`` of the same run
    sizes: str = ""  # all that speed hangs on, as ``plan_train.like`` says it
    tokens_per_s: float | None = None  # harvesting and training together, in a pass over the text
    other_s: float | None = None  # before the first step and after the last

    @property
    def excess_bytes(self) -> int:
        """What the formula did not know, or made too much of."""
        return self.peak_bytes - self.formula_bytes


def key(
    model: Mapping[str, Any],
    precision: str,
    context: int,
    hooks: Sequence[str],
    device: str,
    versions: Mapping[str, str],
) -> str:
    """What must be the same for a measurement to hold: the model's very weights, how it is read, where, and by what.

    ``model`` is ``model.json``, ``device`` names the device and its memory, ``versions`` are those of miStudio, torch,
    transformers and the like: another formula has another excess. Returns 32 hexadecimal digits.
    """
    weights = [model.get(name) for name in ("revision", "source", "path", "parameters", "size_bytes")]
    parts = [weights, precision, context, list(hooks), device, sorted(versions.items())]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def nearest(remembered: Iterable[Measured], parameters: int, entries: int, batch_tokens: int) -> Measured | None:
    """The record whose memory is most like that of a run of these sizes; the last of equal ones."""

    def distance(one: Measured) -> float:
        pairs = ((one.parameters, parameters), (one.batch_tokens, batch_tokens), (one.entries, entries))
        return sum(max(a, b) / min(a, b) for a, b in pairs)

    return min(reversed(list(remembered)), key=distance, default=None)


def as_fast(remembered: Iterable[Measured], sizes: str) -> Measured | None:
    """The last record that says how fast a run of exactly these sizes is; None when there is none."""
    known = [one for one in remembered if one.sizes == sizes and one.tokens_per_s]
    return known[-1] if known else None
