"""Which features of one SAE are those of another: rows of two decoders matched by cosine.

Of every row the best match in the other decoder is found, exactly; two rows that are each other's best are a pair. The
mean of the best cosines is MMCS (Cunningham et al. 2023, arXiv:2309.08600). Paulo and Belrose (2025, arXiv:2501.16615)
match seeds one to one with the Hungarian algorithm, whose cost is cubic; pairs are the cheap form of it: a row that is
second best to everybody stays without one here, so there are no more pairs than one-to-one matching has, mostly fewer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

MATCHED, CLOSELY = 0.7, 0.9  # cosines above which a row counts as found again, and as nearly the same
HISTOGRAM_EDGES = [edge / 20 for edge in range(21)]  # of best cosines; those below 0 count in the first bin
RANDOM_ROWS = 1_024  # directions that are looked for in a random dictionary
LISTED = 20  # features in each list of a result
_ROWS, _COLUMNS = 1_024, 8_192  # of a tile: 32 MiB of cosines
Json = dict[str, object]
_floors: dict[tuple[int, int], Tensor] = {}  # ``random_cosines`` by width and d_out: SAEs compared are often as wide


@dataclass(frozen=True)
class Best:
    """Of each row of one decoder the row of another with the largest cosine, of equal ones the first.

    cosine (rows,) float32 and index (rows,) int64, both on the CPU. A row of zeros matches nothing and nothing matches
    it: cosine 0, index -1.
    """

    cosine: Tensor
    index: Tensor


@dataclass(frozen=True)
class Side:
    """One of two SAEs, as far as it is matched."""

    W_dec: Tensor  # (d_sae, d_out)
    density: Tensor  # (d_sae,), on the CPU: the share of tokens on which each latent fires

    @property
    def alive(self) -> Tensor:
        """(d_sae,) bool."""
        return self.density > 0


@torch.no_grad()
def best_matches(W_a: Tensor, W_b: Tensor, heard: Callable[[int], None] | None = None) -> tuple[Best, Best]:
    """Of each row of W_a (n, d) the best in W_b (m, d), and of each of W_b the best in W_a.

    ``heard`` is told how many rows of W_a are done. Beside both there are never more than a few tiles in memory. Raises
    ValueError when the rows are not of one width.
    """
    if W_a.shape[1] != W_b.shape[1]:
        raise ValueError(f"the one writes {W_a.shape[1]} numbers, the other {W_b.shape[1]}: that is not one space")
    inverse_a, inverse_b = _inverse_norms(W_a), _inverse_norms(W_b)
    one, other = _Running(len(W_a), W_a.device), _Running(len(W_b), W_a.device)
    for start in range(0, len(W_a), _ROWS):
        some = slice(start, min(start + _ROWS, len(W_a)))
        rows = W_a[some] * inverse_a[some, None]
        for first in range(0, len(W_b), _COLUMNS):
            columns = slice(first, min(first + _COLUMNS, len(W_b)))
            tile = torch.mm(rows, W_b[columns].t()).mul_(inverse_b[columns])
            tile.masked_fill_((inverse_b[columns] == 0) | (inverse_a[some, None] == 0), -torch.inf)
            one.take(some, *tile.max(1), first)
            other.take(columns, *tile.max(0), start)
        if heard:
            heard(some.stop)
    return one.best(), other.best()


@torch.no_grad()
def random_cosines(
    width: int, d_out: int, seed: int = 0, rows: int = RANDOM_ROWS, heard: Callable[[], None] | None = None
) -> Tensor:
    """Best cosines of random directions in a dictionary of ``width`` random rows, d_out wide: (rows,), ascending.

    All directions are as likely, so that it is the floor for any fixed direction, whatever it is. ``heard`` is called
    after each block of the dictionary; it may raise.
    """
    generator = torch.Generator().manual_seed(seed)
    sought = torch.nn.functional.normalize(torch.randn(rows, d_out, generator=generator))
    best = torch.full((rows,), -torch.inf)
    for first in range(0, width, _COLUMNS):
        drawn = torch.randn(min(_COLUMNS, width - first), d_out, generator=generator)
        best = torch.maximum(best, (sought @ torch.nn.functional.normalize(drawn).t()).amax(1))
        if heard:
            heard()
    return best.sort().values


def matching(a: Side, b: Side, heard: Callable[[int], None] | None = None) -> Json:
    """How far the features of a and b are the same, JSON-ready: alive rows of each in all rows of the other, pairs of
    alive rows, and beside that what random directions find. ``heard``: as in ``best_matches``, and again with all rows
    while random directions are looked for. Raises ValueError as ``best_matches`` does.
    """
    in_b, in_a = best_matches(a.W_dec, b.W_dec, heard)
    ours = (a.alive & (in_b.index >= 0)).nonzero().squeeze(1)
    theirs = in_b.index[ours]
    mutual = b.alive[theirs] & (in_a.index[theirs] == ours)
    ours, theirs = ours[mutual], theirs[mutual]
    cosines = in_b.cosine[ours]
    in_random_b, in_random_a = (
        _random(*side.W_dec.shape, (lambda: heard(len(a.W_dec))) if heard else None) for side in (b, a)
    )
    return {
        "a_in_b": _found(a, in_b) | {"random": in_random_b},
        "b_in_a": _found(b, in_a) | {"random": in_random_a},
        "pairs": len(ours),
        "pairs_matched": int((cosines > MATCHED).sum()),
        "pairs_closely": int((cosines > CLOSELY).sum()),
        "pairs_mean": float(cosines.mean()) if len(ours) else None,
        "best_pairs": _pairs(a, b, ours, theirs, cosines),
        "edges": HISTOGRAM_EDGES,
    }


def moved(a: Side, b: Side) -> Json:
    """How far each row of a has turned in b, which is a trained on or began as it did: row by row, JSON-ready.

    Cosines are of rows that are alive in both; ``born`` are alive in b alone, ``died`` in a alone.
    """
    inverse_a, inverse_b = _inverse_norms(a.W_dec), _inverse_norms(b.W_dec)
    parts = [
        (a.W_dec[some] * b.W_dec[some]).sum(1) * inverse_a[some] * inverse_b[some]
        for some in (slice(start, start + _COLUMNS) for start in range(0, len(a.W_dec), _COLUMNS))
    ]
    cosine = torch.cat(parts).cpu().clamp(-1, 1)
    both = (a.alive & b.alive).nonzero().squeeze(1)
    least = both[cosine[both].argsort(stable=True)][:LISTED]
    found = cosine[both]
    return {
        "alive_in_both": len(both),
        "mean": float(found.mean()) if len(both) else None,
        "median": float(found.median()) if len(both) else None,
        "matched": float((found > MATCHED).double().mean()) if len(both) else None,
        "closely": float((found > CLOSELY).double().mean()) if len(both) else None,
        "histogram": histogram(found),
        "born": int((~a.alive & b.alive).sum()),
        "died": int((a.alive & ~b.alive).sum()),
        "changed": [
            {
                "feature": n,
                "cosine": float(cosine[n]),
                "density_a": float(a.density[n]),
                "density_b": float(b.density[n]),
            }
            for n in least.tolist()
        ],
    }


def histogram(cosines: Tensor) -> list[int]:
    """How many of cosines (n,) lie in each bin of HISTOGRAM_EDGES."""
    bins = (cosines.double().clamp(0, 1) * (len(HISTOGRAM_EDGES) - 1)).floor().long()
    bins = bins.clamp(max=len(HISTOGRAM_EDGES) - 2)
    return torch.bincount(bins, minlength=len(HISTOGRAM_EDGES) - 1).tolist()


class _Running:
    """The best so far of some rows, as tiles come in order."""

    def __init__(self, rows: int, device: torch.device) -> None:
        self._cosine = torch.full((rows,), -torch.inf, device=device)
        self._index = torch.full((rows,), -1, dtype=torch.int64, device=device)

    def take(self, some: slice, values: Tensor, indices: Tensor, first: int) -> None:
        better = values > self._cosine[some]
        self._cosine[some] = torch.where(better, values, self._cosine[some])
        self._index[some] = torch.where(better, indices + first, self._index[some])

    def best(self) -> Best:
        cosine = torch.where(self._index >= 0, self._cosine, 0.0)
        return Best(cosine.clamp(-1, 1).cpu(), self._index.cpu())


def _inverse_norms(W: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm(W, dim=1)
    return torch.where(norm > 0, 1 / norm, 0.0)


def _found(side: Side, best: Best) -> Json:
    """What of a side's alive rows is in the other, and which of those that are not fire most."""
    alive = side.alive
    cosines = best.cosine[alive]
    lost = (alive & (best.cosine <= MATCHED)).nonzero().squeeze(1)
    most = lost[side.density[lost].argsort(descending=True, stable=True)][:LISTED]
    return {
        "alive": len(cosines),
        "mean": float(cosines.mean()) if len(cosines) else None,
        "matched": float((cosines > MATCHED).double().mean()) if len(cosines) else None,
        "closely": float((cosines > CLOSELY).double().mean()) if len(cosines) else None,
        "histogram": histogram(cosines),
        "unmatched": [
            {
                "feature": n,
                "density": float(side.density[n]),
                "nearest": int(best.index[n]),
                "cosine": float(best.cosine[n]),
            }
            for n in most.tolist()
        ],
    }


def _random(width: int, d_out: int, heard: Callable[[], None] | None) -> Json:
    if (width, d_out) not in _floors:
        _floors[width, d_out] = random_cosines(width, d_out, heard=heard)
    cosines = _floors[width, d_out]
    high = cosines[int(0.99 * (len(cosines) - 1))]
    return {"mean": float(cosines.mean()), "high": float(high), "histogram": histogram(cosines)}


def _pairs(a: Side, b: Side, ours: Tensor, theirs: Tensor, cosines: Tensor) -> list[Json]:
    order = cosines.argsort(descending=True, stable=True)[:LISTED].tolist()
    return [
        {
            "a": int(ours[n]),
            "b": int(theirs[n]),
            "cosine": float(cosines[n]),
            "density_a": float(a.density[ours[n]]),
            "density_b": float(b.density[theirs[n]]),
        }
        for n in order
    ]
