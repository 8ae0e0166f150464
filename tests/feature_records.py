"""Feature stores for tests: records out of a seed, and what a page must say of each, without the store's own code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mistudiod.engine.feature_record import BAND, NEAR, RANDOM, TOP, Examples, FeatureRecord, Logits
from mistudiod.engine.feature_store import StoreWriter
from mistudiod.pages import EDGES, is_held_out

CONTEXT, ROWS = 32, 40
# Single bytes, of which characters of several bytes are made; whole characters; a token that is no text; none at all.
WORDS = [bytes([n]) for n in range(256)] + ["import", " import", " é", "日本", "🙂", "\n\n", "</s>"]
VOCABULARY = [word if isinstance(word, bytes) else word.encode() for word in WORDS] + [b"\xff\xfe", b""]


def windows(rng: np.random.Generator, vocabulary: list[bytes] = VOCABULARY) -> np.ndarray:
    """What was read: (ROWS, CONTEXT) ids. Half of them spell text byte by byte, so that characters are spread."""
    ids = rng.integers(0, len(vocabulary), (ROWS, CONTEXT))
    spelled = "für 日本🙂 ñ".encode() * 4
    for row in range(0, ROWS, 2):
        begin = int(rng.integers(0, len(spelled) - CONTEXT))
        ids[row] = list(spelled[begin : begin + CONTEXT])
    return ids


def record(rng: np.random.Generator, read: np.ndarray, d_sae: int, dead: bool = False, logits: bool = True,
           counts: tuple[int, int, int, int] = (6, 3, 2, 2), tops: int = 4) -> FeatureRecord:  # fmt: skip
    """One feature. ``counts``: examples of each kind."""
    others = rng.permutation(d_sae)[: min(4, d_sae)].astype(np.uint32)
    fired = 0 if dead else int(rng.integers(1, 1000))
    values = rng.exponential(2.0, fired).astype(np.float32) + np.float32(0.01)
    kinds = (
        []
        if dead
        else [kind for kind, count in zip((TOP, BAND, RANDOM, NEAR), counts, strict=True) for _ in range(count)]
    )
    return FeatureRecord(
        fired=fired,
        total=float(values.sum(dtype=np.float64)),
        squares=float((values.astype(np.float64) ** 2).sum()),
        maximum=float(values.max(initial=0)),
        histogram=rng.integers(0, 2**32, 64).astype(np.uint32) if fired else np.zeros(64, np.uint32),
        examples=_examples(rng, read, np.array(kinds, np.uint8)),
        tokens=rng.permutation(len(VOCABULARY))[: 0 if dead else tops].astype(np.uint32),
        tokens_fired=rng.integers(0, fired + 1, 0 if dead else tops).astype(np.uint32),
        tokens_read=rng.integers(0, 5000, 0 if dead else tops).astype(np.uint32),
        label_fired=fired // 2,
        label_tokens=rng.permutation(len(VOCABULARY))[: 0 if dead else tops].astype(np.uint32),
        label_tokens_fired=rng.integers(0, fired + 1, 0 if dead else tops).astype(np.uint32),
        label_tokens_read=rng.integers(0, 5000, 0 if dead else tops).astype(np.uint32),
        cofiring=others[: 0 if dead else 3],
        cofiring_share=rng.random(len(others[: 0 if dead else 3]), np.float32),
        cofiring_jaccard=rng.random(len(others[: 0 if dead else 3]), np.float32),
        decoder=others,
        decoder_cosine=rng.random(len(others), np.float32),
        logits=_logits(rng) if logits else None,
    )


def _examples(rng: np.random.Generator, read: np.ndarray, kind: np.ndarray) -> Examples:
    n = len(kind)
    row = rng.integers(0, ROWS, n).astype(np.uint32)
    peak = rng.integers(0, CONTEXT, n).astype(np.uint32)
    first = np.maximum(0, peak.astype(int) - rng.integers(0, 10, n)).astype(np.uint32)
    length = np.array([rng.integers(p - f + 1, CONTEXT - f + 1) for p, f in zip(peak, first, strict=True)], np.uint32)
    where = [np.flatnonzero(rng.random(size) < 0.2).astype(np.uint16) for size in length]
    tokens = [read[r, f : f + size] for r, f, size in zip(row, first, length, strict=True)]
    fires = np.array([len(places) for places in where], np.uint32)
    value = np.where(kind == NEAR, 0, rng.exponential(2.0, n)).astype(np.float32)
    return Examples(
        kind=kind, band=np.where(kind == BAND, rng.integers(0, 5, n), 0).astype(np.uint8), row=row, first=first,
        length=length, peak=peak, value=value, tokens=np.concatenate([*tokens, []]).astype(np.uint32), fires=fires,
        where=np.concatenate([*where, []]).astype(np.uint16), values=rng.random(fires.sum(), np.float32),
    )  # fmt: skip


def _logits(rng: np.random.Generator) -> Logits:
    top, bottom = (rng.integers(0, len(VOCABULARY) + 5, 20).astype(np.uint32) for _ in range(2))
    values = np.sort(rng.standard_normal(40).astype(np.float32))
    counts = rng.integers(0, 100, 50).astype(np.uint32)
    return Logits(top, values[:19:-1], bottom, values[:20], float(values[0]), float(values[-1]), counts)


def write_vocabulary(folder: Path, vocabulary: list[bytes]) -> None:
    (folder / "vocab.bin").write_bytes(b"".join(vocabulary))
    (folder / "vocab.idx").write_bytes(np.cumsum([0, *map(len, vocabulary)]).astype("<u4").tobytes())


def write_read(folder: Path, read: np.ndarray, numbers: np.ndarray, token_bytes: int) -> None:
    """What the extractor writes of the windows that it has read."""
    (folder / "tokens.bin").write_bytes(read.astype(f"<u{token_bytes}").tobytes())
    (folder / "windows.bin").write_bytes(numbers.astype("<u4").tobytes())


def write_postings(folder: Path, postings: list[dict[int, float]]) -> None:
    """Of each feature {place: activation}."""
    (folder / "postings.idx").write_bytes(np.cumsum([0, *map(len, postings)]).astype("<u8").tobytes())
    (folder / "postings.tok").write_bytes(b"".join(np.array(sorted(one), "<u4").tobytes() for one in postings))
    ordered = [value for one in postings for _, value in sorted(one.items())]
    (folder / "postings.val").write_bytes(np.array(ordered, "<f4").tobytes())


def write_store(folder: Path, records: list[FeatureRecord], read: np.ndarray, token_bytes: int = 2, tokens: int = 1000,
                postings: list[dict[int, float]] | None = None, **manifest: Any) -> dict[str, Any]:  # fmt: skip
    folder.mkdir(parents=True)
    writer = StoreWriter(folder, len(records), CONTEXT, ROWS, tokens, token_bytes)
    for one in records:
        writer.add(one)
    write_vocabulary(folder, VOCABULARY)
    write_read(folder, read, WINDOWS, token_bytes)
    if postings is not None:
        write_postings(folder, postings)
    return writer.finish({"sae": "s", "id": "1", "job": 1, **manifest})


WINDOWS = np.arange(ROWS) * 7 + 3  # the number of each window in the tokenization


def page(index: int, one: FeatureRecord, tokens: int = 1000) -> dict[str, Any]:
    """What the store must say of a record, put together the plain way; texts aside, which are of whole examples."""
    f32 = lambda value: float(np.float32(value))  # noqa: E731
    mean = one.total / one.fired if one.fired else None
    std = max(0.0, one.squares / one.fired - (one.total / one.fired) ** 2) ** 0.5 if one.fired else None
    tops = [float(v) for v, k in zip(one.examples.value, one.examples.kind, strict=True) if k == TOP]
    return {
        "index": index,
        "fired": one.fired,
        "density": one.fired / tokens,
        "max": f32(one.maximum),
        "mean": mean if mean is None else f32(mean),
        "std": std if std is None else f32(std),
        "typical": min(tops) if len(tops) >= 5 else 0.0,
        "dead": one.fired == 0,
        "histogram": {"edges": EDGES, "counts": one.histogram.tolist()},
        "logits": one.logits and {
            "top": _valued(one.logits.top, one.logits.top_values),
            "bottom": _valued(one.logits.bottom, one.logits.bottom_values),
            "histogram": {"low": one.logits.low, "high": one.logits.high, "counts": one.logits.counts.tolist()},
        },
        "neighbours": {
            "decoder": [
                {"index": int(i), "cosine": float(c)} for i, c in zip(one.decoder, one.decoder_cosine, strict=True)
            ],
            "cofiring": [
                {"index": int(i), "share": float(s), "jaccard": float(j)}
                for i, s, j in zip(one.cofiring, one.cofiring_share, one.cofiring_jaccard, strict=True)
            ],
        },
        "tokens": _counted(one.fired, one.tokens, one.tokens_fired, one.tokens_read),
        "for_labels": {
            "fired": one.label_fired,
            "tokens": _counted(one.label_fired, one.label_tokens, one.label_tokens_fired, one.label_tokens_read),
        },
        "examples": [_shown(one.examples, n) for n in range(len(one.examples.kind))],
    }  # fmt: skip


def _counted(fired: int, *columns: np.ndarray) -> list[dict[str, Any]]:
    return [
        {"id": int(i), "text": text(int(i)), "fired": int(f), "read": int(r),
         "share": int(f) / fired if fired else 0.0, "rate": int(f) / int(r) if r else 0.0}
        for i, f, r in zip(*columns, strict=True)
    ]  # fmt: skip


def text(id: int) -> str:
    return VOCABULARY[id].decode(errors="replace") if id < len(VOCABULARY) else ""


def _valued(ids: np.ndarray, values: np.ndarray) -> list[dict[str, Any]]:
    return [{"id": int(i), "text": text(int(i)), "value": float(v)} for i, v in zip(ids, values, strict=True)]


def _shown(examples: Examples, n: int) -> dict[str, Any]:
    begin, fires = int(examples.length[:n].sum()), int(examples.fires[:n].sum())
    ids = examples.tokens[begin : begin + int(examples.length[n])].tolist()
    activations = [0.0] * len(ids)
    for k in range(fires, fires + int(examples.fires[n])):
        activations[examples.where[k]] = float(examples.values[k])
    kind, window = ("top", "band", "random", "near")[examples.kind[n]], int(WINDOWS[examples.row[n]])
    return {
        "kind": kind, "band": int(examples.band[n]) if kind == "band" else None, "row": int(examples.row[n]),
        "window": window, "first": int(examples.first[n]), "peak": int(examples.peak[n] - examples.first[n]),
        "max": float(examples.value[n]), "held_out": is_held_out(window), "ids": ids, "activations": activations,
    }  # fmt: skip
