"""A small export to Neuronpedia, of a store whose tokens are as bad as tokens get; and hands to spoil it with."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from planted import fires_after, fires_on, plant, words

from mistudiod.engine.feature_record import Logits
from mistudiod.neuronpedia import write
from mistudiod.neuronpedia.names import Names
from mistudiod.neuronpedia.records import About
from mistudiod.pages import Pages

HOSTILE = [
    b"\x00", b"\\u0000", b"\\\\u0000", b"\xed\xa0\x80", b"\xff", "\u202eevil".encode(), "\u2028".encode(), b'"}\n{"',
    b"\r\n", b"\\", "é".encode(), b"\xe6\x97", b"\xa5", "🙂".encode(), b"", "\ufeff".encode(), b"<script>",
]  # fmt: skip
VOCABULARY = HOSTILE + words(24)
FEATURES = 10
DEAD = 7
LABELS = {
    0: {
        "text": "NUL \0 and \ud800",
        "explanation": None,
        "provider": "person",
        "created_at": "2026-01-02T00:00:00.000Z",
    },
    3: {"text": "\u202eright to left", "explanation": "two\nlines", "provider": "ollama", "model": "qwen3:4b"},
    9: {"text": r"the text \u0000", "explanation": r"\u0000", "provider": "openai", "model": "openai/gpt-4o-mini"},
}
Rows = list[dict[str, Any]]


def store(folder: Path, postings: bool = True, features: int = FEATURES, **options: Any) -> Pages:
    last = len(VOCABULARY) - 1  # of which there is none in the text
    rules = [fires_on(n, (n + 5) % last) for n in range(features - 1)] + [fires_after(0, 1)]
    rules[DEAD] = fires_on(last)
    rng = np.random.default_rng(3)
    return plant(folder, VOCABULARY, rules, rows=80, context=32, postings=postings, kept=8, around=6,
                 logits=[_logits(rng) for _ in rules], **options)  # fmt: skip


def _logits(rng: np.random.Generator) -> Logits:
    values = np.sort(rng.standard_normal(40).astype(np.float32))
    top, bottom = (rng.integers(0, len(VOCABULARY), 20).astype(np.uint32) for _ in range(2))
    counts = rng.integers(0, 9, 50).astype(np.uint32)
    return Logits(top, values[:19:-1], bottom, values[:20], float(values[0]), float(values[-1]), counts)


def about(pages: Pages, **fields: Any) -> About:
    known = {
        "names": Names("tiny", 6, "res-me"), "hook": pages.manifest["hook"], "description": "Residual stream, tiny",
        "release": "my-release", "release_description": "Mine", "creator_name": "Me", "layers": 12, "neurons": 64,
        "owner": "somebody", "prompts": pages.rows, "tokens_in_prompt": pages.context,
        "created_at": "2026-01-01T00:00:00", "dataset": "a/b", "models": ("gpt-4o-mini",), "urls": ("https://a.example",),
    }  # fmt: skip
    return About(**{**known, **fields})


def export(root: Path, pages: Pages, **fields: Any) -> Path:
    """At ``root/tiny/6-res-me``."""
    folder = root / "tiny" / "6-res-me"
    folder.mkdir(parents=True)
    write.write(folder, pages, about(pages, **fields), LABELS)
    return folder


def raw(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def put(path: Path, text: bytes) -> None:
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)


def rows(path: Path) -> Rows:
    return [json.loads(line) for line in raw(path).splitlines()]


def edit(path: Path, change: Callable[[Rows], Any]) -> None:
    """Let ``change`` alter the rows of a file, in place."""
    found = rows(path)
    change(found)
    written = "".join(json.dumps(one) + "\n" for one in found)
    put(path, written.replace("\\\\u0000", "\\u005cu0000").encode())
