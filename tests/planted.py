"""A feature store of a made-up text, on whose tokens planted features fire by rules that a test knows."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mistudiod.engine.feature_record import BAND, NEAR, RANDOM, TOP, Examples, FeatureRecord, Logits
from mistudiod.engine.feature_store import StoreWriter
from mistudiod.pages import BINS, EDGES, Pages, is_held_out

Rows = NDArray[np.int64]
Rule = Callable[[Rows], NDArray[np.bool_]]  # of all rows at once: on which tokens a feature fires
KINDS = (TOP, BAND, RANDOM)


def words(count: int) -> list[bytes]:
    """Tokens, each a word with a space before it."""
    return [f" w{n}x".encode() for n in range(count)]


def fires_on(*tokens: int) -> Rule:
    return lambda rows: np.isin(rows, tokens)


def fires_after(before: int, token: int) -> Rule:
    """On a token, but only right after another: elsewhere it is a near miss."""

    def rule(rows: Rows) -> NDArray[np.bool_]:
        found = rows == token
        found[:, 1:] &= rows[:, :-1] == before
        found[:, 0] = False
        return found

    return rule


def plant(
    folder: Path,
    vocabulary: Sequence[bytes],
    rules: Sequence[Rule],
    rows: int = 400,
    context: int = 64,
    postings: bool = True,
    around: int = 20,
    kept: int = 24,
    logits: Sequence[Logits] = (),
) -> Pages:
    """Random text of every token but the last, which stands for none. A feature's neighbours are those beside it.

    ``logits``: of each feature; without, the store has none.
    """
    random = np.random.default_rng(1)
    text = random.integers(0, len(vocabulary) - 1, (rows, context))
    for first in range(0, len(vocabulary) - 2, 2):  # pairs that a rule may ask for are not left to chance
        some = random.integers(0, rows, rows // 8)
        at = random.integers(0, context - 1, rows // 8)
        text[some, at], text[some, at + 1] = first, first + 1
    folder.mkdir(parents=True)
    (folder / "tokens.bin").write_bytes(text.astype("<u2").tobytes())
    (folder / "windows.bin").write_bytes((3 * np.arange(rows)).astype("<u4").tobytes())
    (folder / "vocab.bin").write_bytes(b"".join(vocabulary))
    (folder / "vocab.idx").write_bytes(np.cumsum([0, *map(len, vocabulary)]).astype("<u4").tobytes())
    values = random.uniform(0.1, 8.0, text.shape).astype(np.float32)
    fired = [rule(text) for rule in rules]
    if postings:
        _write_postings(folder, fired, values)
    writer = StoreWriter(folder, len(rules), context, rows, text.size, 2)
    for index, fires in enumerate(fired):
        writer.add(_record(index, len(rules), text, np.where(fires, values, 0), around, kept, random,
                           logits[index] if logits else None))  # fmt: skip
    writer.finish({
        "sae": "planted", "id": "1", "job": 1, "tokenization": "text", "model": "m", "hook": "blocks.0.hook_resid_post",
        "skipped": {"special": 0, "outliers": 0}, "l0": 1.0, "examples": kept, "before": around, "after": around,
        "sae_sha256": "", "tokenizer_sha256": "", "seconds": 1.0, "tokens_per_s": 1.0,
    })  # fmt: skip
    return Pages(folder)


def _write_postings(folder: Path, fired: Sequence[NDArray[np.bool_]], values: NDArray[np.float32]) -> None:
    where = [np.flatnonzero(one) for one in fired]
    (folder / "postings.idx").write_bytes(np.cumsum([0, *map(len, where)]).astype("<u8").tobytes())
    (folder / "postings.tok").write_bytes(np.concatenate(where).astype("<u4").tobytes())
    (folder / "postings.val").write_bytes(values.reshape(-1)[np.concatenate(where)].tobytes())


def _record(
    index: int,
    features: int,
    text: Rows,
    values: NDArray[np.float32],
    around: int,
    kept: int,
    random: np.random.Generator,
    logits: Logits | None,
) -> FeatureRecord:
    fires = values > 0
    tokens, on = np.unique(text[fires], return_counts=True)
    order = np.argsort(-on, kind="stable")[:10]
    beside = np.array([other for other in (index - 1, index + 1) if 0 <= other < features], np.uint32)
    ones = np.ones(len(beside), np.float32)
    for_labels = np.array([not is_held_out(3 * row) for row in range(len(text))])
    ours = fires & for_labels[:, None]
    return FeatureRecord(
        fired=int(fires.sum()),
        total=float(values.sum()),
        squares=float((values**2).sum()),
        maximum=float(values.max()),
        histogram=_histogram(values[fires]),
        examples=_examples(text, values, around, kept, random),
        tokens=tokens[order].astype(np.uint32),
        tokens_fired=on[order].astype(np.uint32),
        tokens_read=np.array([(text == one).sum() for one in tokens[order]], np.uint32),
        label_fired=int(ours.sum()),
        label_tokens=tokens[order].astype(np.uint32),
        label_tokens_fired=np.array([(text[ours] == one).sum() for one in tokens[order]], np.uint32),
        label_tokens_read=np.array([(text[for_labels] == one).sum() for one in tokens[order]], np.uint32),
        cofiring=beside,
        cofiring_share=ones,
        cofiring_jaccard=ones,
        decoder=beside,
        decoder_cosine=ones,
        logits=logits,
    )


def _histogram(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    bins = [bisect_right(EDGES, float(value)) - 1 for value in values]
    return np.bincount(np.clip(np.array(bins, np.int64), 0, BINS - 1), minlength=BINS).astype(np.uint32)


def _examples(text: Rows, values: NDArray[np.float32], around: int, kept: int, random: np.random.Generator) -> Examples:
    """The strongest rows, a few more of two kinds, and as near misses its tokens in rows where it is silent."""
    strongest = values.max(1)
    rows = np.argsort(-strongest, kind="stable")[: int((strongest > 0).sum())]
    rest = random.permutation(rows[kept:])[:20]
    chosen = [(TOP, row) for row in rows[:kept]] + [(KINDS[1 + n % 2], row) for n, row in enumerate(rest)]
    places = [(kind, int(row), int(values[row].argmax())) for kind, row in chosen]
    near = np.argwhere(np.isin(text, text[values > 0]) & (strongest == 0)[:, None])
    seen: dict[int, int] = {int(row): int(at) for row, at in near}
    places += [(NEAR, row, seen[row]) for row in sorted(seen)[:30]]
    spans = [(max(0, at - around), min(text.shape[1], at + around + 1)) for _, _, at in places]
    cut = [values[row, low:high] for (_, row, _), (low, high) in zip(places, spans, strict=True)]
    shown = [text[row, low:high] for (_, row, _), (low, high) in zip(places, spans, strict=True)]
    empty = [np.empty(0)]
    return Examples(
        kind=np.array([kind for kind, _, _ in places], np.uint8),
        band=np.zeros(len(places), np.uint8),
        row=np.array([row for _, row, _ in places], np.uint32),
        first=np.array([low for low, _ in spans], np.uint32),
        length=np.array([high - low for low, high in spans], np.uint32),
        peak=np.array([at for _, _, at in places], np.uint32),
        value=np.array([values[row, at] for _, row, at in places], np.float32),
        tokens=np.concatenate(shown or empty).astype(np.uint32),
        fires=np.array([(one > 0).sum() for one in cut], np.uint32),
        where=np.concatenate([np.flatnonzero(one) for one in cut] or empty).astype(np.uint16),
        values=np.concatenate([one[one > 0] for one in cut] or empty).astype(np.float32),
    )
