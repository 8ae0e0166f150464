"""A data folder with an SAE of very many features, for what is done with a list of them:
``python tests/many_features.py DATA [FEATURES]``.

Their store is real and light: two examples each. Every eleventh feature is dead; each has its own density and maximum.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from mistudiod.engine.feature_record import TOP, Examples, FeatureRecord
from mistudiod.engine.feature_store import StoreWriter

SAE = "wide"
WIDTH = 131_072
CONTEXT, ROWS, TOKENS, SHOWN, WORDS = 64, 500, 1_000_000, 25, 2000
POOL = 100  # records that are dealt out with other numbers
_DEAD = 11


def make_many(data: Path, features: int = WIDTH) -> Path:
    """The folder ``data`` with the SAE ``wide``, which has no weights: it can be looked at and not be run."""
    folder, rng = data / "features" / SAE / "1", np.random.default_rng(0)
    folder.mkdir(parents=True)
    _write_text(folder, rng)
    pool = [_record(rng, features) for _ in range(POOL)]
    writer = StoreWriter(folder, features, CONTEXT, ROWS, TOKENS, 2)
    fired = np.minimum(rng.lognormal(5, 2, features).astype(int) + 1, TOKENS // 2)
    strongest = rng.exponential(3, features).astype(np.float32) + np.float32(0.01)
    for n in range(features):
        one, top = pool[n % POOL], float(strongest[n])
        if n % _DEAD == _DEAD - 1:
            writer.add(_dead(one))
        else:
            writer.add(
                replace(
                    one, fired=int(fired[n]), total=0.5 * top * fired[n], squares=0.3 * top**2 * fired[n], maximum=top
                )
            )
    writer.finish({"sae": SAE, "id": "1", "job": 1})
    sae = data / "saes" / SAE
    sae.mkdir(parents=True)
    (sae / "recipe.json").write_text(json.dumps({"width": features}))
    return data


def _write_text(folder: Path, rng: np.random.Generator) -> None:
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = [(" " * (n % 2) + "".join(rng.choice(letters, 1 + n % 8))).encode() for n in range(WORDS)]
    (folder / "vocab.bin").write_bytes(b"".join(words))
    (folder / "vocab.idx").write_bytes(np.cumsum([0, *map(len, words)]).astype("<u4").tobytes())
    (folder / "tokens.bin").write_bytes(rng.integers(0, WORDS, (ROWS, CONTEXT)).astype("<u2").tobytes())
    (folder / "windows.bin").write_bytes(np.arange(ROWS, dtype="<u4").tobytes())


def _record(rng: np.random.Generator, features: int) -> FeatureRecord:
    n, fires = 2, 4
    few = rng.integers(0, WORDS, 3).astype(np.uint32)
    counts = np.array([30, 20, 10], np.uint32)
    examples = Examples(
        kind=np.full(n, TOP, np.uint8), band=np.zeros(n, np.uint8), row=rng.integers(0, ROWS, n).astype(np.uint32),
        first=np.full(n, 12, np.uint32), length=np.full(n, SHOWN, np.uint32), peak=np.full(n, 24, np.uint32),
        value=np.array([2.0, 1.5], np.float32), tokens=rng.integers(0, WORDS, n * SHOWN).astype(np.uint32),
        fires=np.full(n, fires, np.uint32), where=np.tile(np.array([3, 11, 12, 13], np.uint16), n),
        values=rng.exponential(1, n * fires).astype(np.float32),
    )  # fmt: skip
    none, whole = np.zeros(0, np.float32), np.zeros(0, np.uint32)
    return FeatureRecord(
        fired=1, total=2.0, squares=5.0, maximum=1.0, histogram=rng.integers(0, 500, 64).astype(np.uint32),
        examples=examples, tokens=few, tokens_fired=counts, tokens_read=3 * counts, cofiring=whole,
        cofiring_share=none, cofiring_jaccard=none, label_fired=1, label_tokens=few, label_tokens_fired=counts,
        label_tokens_read=3 * counts, decoder=rng.integers(0, features, 4).astype(np.uint32),
        decoder_cosine=np.array([0.9, 0.8, 0.7, 0.6], np.float32), logits=None,
    )  # fmt: skip


def _dead(record: FeatureRecord) -> FeatureRecord:
    examples = Examples(**{name: array[:0] for name, array in vars(record.examples).items()})
    names = ("tokens", "tokens_fired", "tokens_read", "label_tokens", "label_tokens_fired", "label_tokens_read")
    nothing = {name: getattr(record, name)[:0] for name in names}
    return replace(record, fired=0, label_fired=0, total=0.0, squares=0.0, maximum=0.0, examples=examples, **nothing)


if __name__ == "__main__":
    make_many(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else WIDTH)
