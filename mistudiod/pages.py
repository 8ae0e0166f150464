"""A feature store: what one extraction has found of every feature of an SAE. Standard library only.

``engine/feature_store.py`` writes it.
"""

from __future__ import annotations

BINS = 64  # of the histogram of activations, two an octave
# Their edges; what is smaller or larger counts in the first or last bin. An activation's bin is what the leading bits
# of its float32 say, (bits >> 22) - 222: an octave is cut at 1.5 times its beginning.
EDGES = [2.0 ** (n // 2 - 16) * (1.5 if n % 2 else 1.0) for n in range(BINS + 1)]
LOGIT_BINS = 50
KINDS = ("top", "band", "random", "near")  # of examples, by their number


def is_held_out(window: int) -> bool:
    """Whether a window of a tokenization is for scoring labels; the others are what labels are made from."""
    return bool((window * 0x9E3779B1 >> 31) & 1)
