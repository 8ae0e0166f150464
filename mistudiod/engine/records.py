"""From the places where features fire to their records: examples, near misses, features that fire together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mistudiod.engine.bank import COUNTS, Bank
from mistudiod.engine.evidence import Asked
from mistudiod.engine.feature_record import F32, NEAR, TOP, U32, Examples, FeatureRecord, Logits
from mistudiod.engine.mapped import Mapped, Stretches
from mistudiod.engine.merge import INDEX, PLACES, SUMMARY, VALUES

NEAR_MISSES = 8
COFIRING = 16
SAMPLED, SAMPLED_LATENTS = 128, 1 << 16  # tokens on which a feature fires, and latents on them, for what fires with it
NEIGHBOURS, PEAKS = 16, 8  # features whose strongest windows may be near misses, and how many windows of each
TOP_TOKENS = 4  # where a feature may be near to firing
FORGET_EVERY, FORGET_EVERY_SUMMARIES = 4, 1 << 13  # features

Neighbours = tuple[NDArray[np.uint32], NDArray[np.float32]]  # of each feature: indices and cosines (d_sae, n)


class Records:
    """Makes the record of each feature. ``around``: tokens shown before and after the peak of an example.

    postings: the folder that ``merge`` wrote postings into; summaries: that of its summaries; text: that of shards.
    """

    def __init__(
        self,
        asked: Asked,
        around: tuple[int, int],
        bank: Bank,
        postings: Path,
        summaries: Path,
        text: Path,
        neighbours: Neighbours,
    ) -> None:
        self._asked, self._around, self._bank, self._neighbours = asked, around, bank, neighbours
        self._edges = np.fromfile(postings / INDEX, "<u8").astype(np.int64)
        self._places, self._values = Mapped(postings / PLACES, "<u4"), Mapped(postings / VALUES, "<f4")
        self._summaries = Mapped(summaries / SUMMARY, asked.summary())
        self._active = Stretches(text / "active.bin", "<i4")
        self._starts = Stretches(_write_starts(text, summaries), "<u8")
        self._fired = np.diff(self._edges)
        self._peaks, self._has_peak = self._strongest()

    def record(self, feature: int, logits: Logits | None = None) -> FeatureRecord:
        summary = self._summaries.array[feature]
        places, values = (one.array[self._edges[feature] : self._edges[feature + 1]]
                          for one in (self._places, self._values))  # fmt: skip
        tokens = summary["tokens"][: summary["tokens_n"]]
        of_labels = summary["label_tokens"][: summary["label_n"]]
        cofiring, share, jaccard = self._cofiring(feature, places)
        decoder, cosines = (one[feature] for one in self._neighbours)
        near = self._near(feature, places, tokens, cofiring, decoder)
        made = FeatureRecord(
            fired=int(summary["fired"]),
            total=float(summary["total"]),
            squares=float(summary["squares"]),
            maximum=float(summary["maximum"]),
            histogram=summary["histogram"].copy(),
            examples=self._examples(summary, near, places, values),
            tokens=tokens.copy(),
            tokens_fired=summary["tokens_fired"][: len(tokens)].copy(),
            tokens_read=self._bank.read[tokens].astype(np.uint32),
            label_fired=int(summary["label_fired"]),
            label_tokens=of_labels.copy(),
            label_tokens_fired=summary["label_tokens_fired"][: len(of_labels)].copy(),
            label_tokens_read=self._bank.read_for_labels[of_labels].astype(np.uint32),
            cofiring=cofiring,
            cofiring_share=share,
            cofiring_jaccard=jaccard,
            decoder=decoder,
            decoder_cosine=cosines,
            logits=logits,
        )
        if feature % FORGET_EVERY == 0:
            for one in (self._places, self._values, self._summaries, self._bank.tokens):
                one.forget()
        return made

    def _examples(self, summary: Any, near: U32, places: U32, values: F32) -> Examples:
        n, context = int(summary["examples_n"]), np.int64(self._asked.context)
        peaks = np.concatenate([summary["peaks"][:n], near]).astype(np.int64)
        rows = peaks // context
        before, after = self._around
        first = np.maximum(peaks - before, rows * context)
        last = np.minimum(peaks + after + 1, (rows + 1) * context)
        at, end = (np.searchsorted(places, edge.astype(np.uint32)) for edge in (first, last))
        shown, fires = last - first, end - at
        of = _ragged(at, fires)
        blank = np.zeros(len(near), np.uint8)
        return Examples(
            kind=np.concatenate([summary["kinds"][:n], blank + np.uint8(NEAR)]),
            band=np.concatenate([summary["bands"][:n], blank]),
            row=rows.astype(np.uint32),
            first=(first - rows * context).astype(np.uint32),
            length=shown.astype(np.uint32),
            peak=(peaks - rows * context).astype(np.uint32),
            value=np.concatenate([summary["values"][:n], blank.astype(np.float32)]),
            tokens=self._bank.tokens.array[_ragged(first, shown)].astype(np.uint32),
            fires=fires.astype(np.uint32),
            where=(places[of] - np.repeat(first, fires)).astype(np.uint16),
            values=values[of],
        )

    def _cofiring(self, feature: int, places: U32) -> tuple[U32, F32, F32]:
        """Other features that fire with it, by the Jaccard index: from tokens of it that are spread over the text."""
        fired = len(places)
        count = min(fired, SAMPLED)
        if count == 0:
            return np.empty(0, np.uint32), np.empty(0, np.float32), np.empty(0, np.float32)
        some = places[(2 * np.arange(count) + 1) * fired // (2 * count)].astype(np.int64)
        starts, ends = self._starts.read(some, np.full(count, 2)).astype(np.int64).reshape(-1, 2).T
        lengths = ends - starts
        if lengths.sum() > SAMPLED_LATENTS:  # fewer tokens, as widely spread
            kept = np.arange(count) % -(-int(lengths.sum()) // SAMPLED_LATENTS) == 0
            starts, lengths = starts[kept], lengths[kept]
        latents = np.sort(self._active.read(starts, lengths))
        edges = np.concatenate([[0], np.flatnonzero(latents[1:] != latents[:-1]) + 1, [len(latents)]])
        others, both = latents[edges[:-1]], np.diff(edges)
        others, both = others[others != feature], both[others != feature]
        share = both / len(starts)
        together = np.minimum(share * fired, self._fired[others])
        jaccard = together / (fired + self._fired[others] - together)
        best = np.argsort(-jaccard, kind="stable")[:COFIRING]
        return others[best].astype(np.uint32), share[best].astype(np.float32), jaccard[best].astype(np.float32)

    def _near(self, feature: int, places: U32, tokens: U32, cofiring: U32, decoder: U32) -> U32:
        """Places in windows where the feature is silent: half of them where the tokens are on which it fires most,
        half where the features are strongest that fire with it or write the same. One of a window.
        """
        if not len(places):
            return np.empty(0, np.uint32)
        occurrences = [_turned(self._bank.places(int(one)), feature) for one in tokens[:TOP_TOKENS]]
        by_token = self._silent(places, _in_turn(occurrences))
        neighbours = _in_turn([cofiring, decoder])[:NEIGHBOURS]
        peaks = self._peaks[neighbours].T[self._has_peak[neighbours].T]  # the strongest of each, the second of each, …
        by_feature, half = self._silent(places, peaks), NEAR_MISSES // 2
        return self._one_of_a_window([by_token[:half], by_feature, by_token[half:]], half)

    def _strongest(self) -> tuple[U32, NDArray[np.bool_]]:
        """Where each feature is strongest, (d_sae, PEAKS), and whether it is so in as many windows."""
        parts = []
        for start in range(0, len(self._fired), FORGET_EVERY_SUMMARIES):
            some = self._summaries.array[start : start + FORGET_EVERY_SUMMARIES]
            there = np.arange(some["peaks"].shape[1]) < some["examples_n"][:, None]
            parts.append((some["peaks"][:, :PEAKS].copy(), (there & (some["kinds"] == TOP))[:, :PEAKS]))
            self._summaries.forget()
        peaks, there = (np.concatenate(part) for part in zip(*parts, strict=True))
        return peaks, there

    def _silent(self, places: U32, candidates: U32) -> U32:
        """Those candidates in whose windows the feature fires nowhere; the first of a window."""
        context = np.uint32(self._asked.context)
        rows = candidates // context
        first, last = rows * context, rows * context + (context - np.uint32(1))
        kept = np.searchsorted(places, first) == np.searchsorted(places, last, "right")
        which = np.unique(rows[kept], return_index=True)[1]
        return candidates[kept][np.sort(which)]

    def _one_of_a_window(self, groups: Sequence[U32], half: int) -> U32:
        """From the first groups up to ``half`` each, what lacks from the last."""
        seen: set[int] = set()
        chosen: list[int] = []
        for group, most in zip(groups, (half, NEAR_MISSES, NEAR_MISSES), strict=True):
            for place in group.tolist():
                if len(chosen) >= most:
                    break
                if (row := place // self._asked.context) not in seen:
                    seen.add(row)
                    chosen.append(place)
        return np.array(chosen, np.uint32)


def _write_starts(text: Path, into: Path) -> Path:
    """Of each place, where its latents begin in ``active.bin``: u64, and at last where they end."""
    path, total = into / "starts.bin", 0
    with path.open("wb") as file, (text / COUNTS).open("rb") as counts:
        file.write(np.zeros(1, "<u8").tobytes())
        while part := counts.read(1 << 22):
            ends = np.maximum(np.frombuffer(part, "<u4").astype(np.int64) - 1, 0).cumsum() + total
            file.write(ends.astype("<u8").tobytes())
            total = int(ends[-1])
    return path


def _ragged(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """starts[0], starts[0] + 1, … (lengths[0] of them), starts[1], …"""
    ends = lengths.cumsum()
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(ends[-1] if len(ends) else 0)


def _turned(places: U32, by: int) -> U32:
    """From another one on, so that features of the same token are not shown the same windows."""
    at = by * 0x9E3779B1 % max(len(places), 1)
    return np.concatenate([places[at:], places[:at]])


def _in_turn(groups: Sequence[U32]) -> U32:
    """The first of each group, the second of each, …"""
    order = np.concatenate([np.empty(0, np.int64), *(np.arange(len(one)) for one in groups)])
    return np.concatenate([np.empty(0, np.uint32), *groups])[np.argsort(order, kind="stable")].astype(np.uint32)
