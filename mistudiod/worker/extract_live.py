"""A few features and their strongest windows so far, told while a text is still being read."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mistudiod.engine.evidence import Runs
from mistudiod.engine.extract import Text
from mistudiod.engine.live import FEATURES, MODERATE, STRONGEST
from mistudiod.engine.lm import LM
from mistudiod.engine.pieces import Pieces
from mistudiod.engine.shards import Entries
from mistudiod.engine.tokens import TokenWindows
from mistudiod.worker.link import Link


class LiveFeatures:
    """Those of one SAE: chosen in the first shard that fires at all, then followed."""

    def __init__(self, sae: str, text: Text, windows: TokenWindows, lm: LM, link: Link) -> None:
        self._sae, self._text, self._windows, self._link = sae, text, windows, link
        self._pieces = Pieces(lambda ids: str(lm.tokenizer.decode(ids)), set(windows.special_ids))
        self._strongest: dict[int, list[tuple[float, int]]] = {}  # of each feature, value and place
        self._fired: dict[int, int] = {}
        self._tokens = 0  # of the shards that were looked at

    def look(self, entries: Entries, tokens: int, done: int) -> None:
        """Take in a shard with ``tokens`` that count, and tell; ``done``: places read by now."""
        self._tokens += tokens
        if not self._strongest:
            self._fired = dict.fromkeys(_moderate(np.diff(entries.edges), tokens), 0)
        for feature in self._fired:
            part = slice(entries.edges[feature], entries.edges[feature + 1])
            found = self._strongest.setdefault(feature, [])
            if part.start < part.stop:
                runs = Runs(entries.places[part], entries.values[part], self._text.context)
                found += zip(runs.values.tolist(), runs.peaks.tolist(), strict=True)
                self._fired[feature] += part.stop - part.start
            self._strongest[feature] = sorted(found, key=lambda one: (-one[0], one[1]))[:STRONGEST]
        told = [
            {
                "feature": feature,
                "density": self._fired[feature] / self._tokens,
                "windows": [self._window(*one) for one in strongest],
            }
            for feature, strongest in self._strongest.items()
        ]
        if told:
            self._link.live(self._sae, done, told)

    def _window(self, value: float, place: int) -> dict[str, object]:
        row, position = divmod(place, self._text.context)
        ids = self._windows.rows([self._text.numbers[row]])[0].tolist()
        before, token, after = self._pieces.at(ids, position)
        return {"value": value, "before": before, "token": token, "after": after}


def _moderate(fired: NDArray[np.int64], tokens: int) -> list[int]:
    """FEATURES that fire on neither too few nor too many of the tokens, as far as there are such; any that fire."""
    low, high = MODERATE
    share = fired / max(tokens, 1)
    order = np.random.default_rng(0).permutation(len(fired))
    worse = np.where((share >= low) & (share <= high), 0, np.where(fired > 0, 1, 2))[order]
    first = order[np.argsort(worse, kind="stable")][:FEATURES]
    return [int(feature) for feature in first if fired[feature]]
