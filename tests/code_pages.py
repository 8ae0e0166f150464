"""Pages of features as the API gives them, of real code: a feature for each of a few words of Python's own sources."""

from __future__ import annotations

import argparse
import functools
import random
import re
import tokenize as source
from pathlib import Path
from typing import Any

from mistudiod.pages import BINS, EDGES

WORDS = {7: " import", 12: " self", 40: "def"}  # the feature that fires on each
DEAD = 99
HOSTILE = "\x1b]0;owned\x07<script>[red]x[/red]\u202egnp\u200b\ufffd\x9b2J日本語"
_BEFORE, _AFTER = 32, 32
_WINDOW = 128


@functools.cache
def texts() -> tuple[str, ...]:
    """The tokens of two files, as a tokenizer cuts code: words with the space before them, line ends, signs."""
    whole = "".join(Path(str(one.__file__)).read_text("utf-8") for one in (argparse, source))
    return tuple(re.findall(r" ?\w+|\n+| +|[^\w\s]+", whole)[:40_000])


def activations(word: str) -> dict[int, float]:
    """Strong on the word, strongest at the beginning of a line; a little on the token after it."""
    found: dict[int, float] = {}
    chance = random.Random(word)
    for at, text in enumerate(texts()):
        if text.strip() == word.strip():
            found[at] = chance.uniform(2, 5) + 3 * (at == 0 or "\n" in texts()[at - 1])
        elif at - 1 in found and found[at - 1] > 2:
            found[at] = chance.uniform(0.02, 0.6)
    return found


def example(kind: str, at: int, fires: dict[int, float], band: int | None = None) -> dict[str, Any]:
    row, place = divmod(at, _WINDOW)
    first, end = max(0, place - _BEFORE), min(_WINDOW, place + _AFTER + 1)
    shown = range(row * _WINDOW + first, row * _WINDOW + end)
    return {
        "kind": kind, "band": band, "row": row, "window": 3 * row, "first": first, "peak": place - first,
        "max": round(fires.get(at, 0.0), 4), "held_out": bool(row % 2), "ids": [len(texts()[i]) for i in shown],
        "texts": [texts()[i] for i in shown], "activations": [round(fires.get(i, 0.0), 4) for i in shown],
    }  # fmt: skip


def examples(fires: dict[int, float]) -> list[dict[str, Any]]:
    """40: 24 of the strongest, each of another window, two of each fifth but the last, 4 random ones, near misses."""
    chance, best = random.Random(0), dict[int, int]()
    for at in sorted(fires, key=fires.__getitem__, reverse=True):
        best.setdefault(at // _WINDOW, at)
    top = max(fires.values())
    found = [example("top", at, fires) for at in list(best.values())[:24]]
    for band in range(5):
        within = [at for at, value in fires.items() if min(int(5 * value / top), 4) == band]
        found += [example("band", at, fires, band) for at in chance.sample(within, min(2, len(within)))]
    found += [example("random", at, fires) for at in chance.sample(sorted(fires), 4)]
    silent = [at for at in range(0, len(texts()), 7) if at not in fires]
    return found + [example("near", at, fires) for at in chance.sample(silent, 40 - len(found))]


def row(index: int) -> dict[str, Any]:
    """As ``Pages.row``."""
    if index == DEAD:
        nothing = {"fired": 0, "density": 0.0, "max": 0.0, "mean": None, "typical": 0.0, "dead": True, "tokens": []}
        return {"index": index, **nothing}
    fires = activations(WORDS[index])
    values = list(fires.values())
    return {
        "index": index, "fired": len(fires), "density": len(fires) / len(texts()), "max": max(values),
        "mean": sum(values) / len(values), "typical": sorted(values)[-24], "dead": False, "tokens": [WORDS[index]],
    }  # fmt: skip


@functools.cache
def page(index: int) -> dict[str, Any]:
    """As ``Pages.page``."""
    known = {key: value for key, value in row(index).items() if key != "tokens"}
    fires = {} if index == DEAD else activations(WORDS[index])
    counts = [0] * BINS
    for value in fires.values():
        counts[next(n for n in range(BINS) if value < EDGES[n + 1])] += 1
    chance = random.Random(index)
    words = [" os", " sys", " typing", " re", "\n", "import", " as", "(", " abc", "\t", " warnings", " numpy"]
    top = [{"id": n, "text": text, "value": 5.0 - n / 4} for n, text in enumerate(words)]
    bottom = [{"id": n, "text": text, "value": -4.0 + n / 5} for n, text in enumerate(reversed(words))]
    logits = {"top": top, "bottom": bottom, "histogram": {"low": -4.2, "high": 5.1, "counts": [7] * 50}}
    others = [other for other in (*WORDS, DEAD) if other != index]
    near = [{"index": other, "cosine": chance.uniform(0.1, 0.9)} for other in others]
    together = [{"index": other, "share": chance.random(), "jaccard": chance.random()} for other in others]
    tokens = [
        {"id": 5, "text": WORDS[index], "fired": 90, "read": 95, "share": 0.64, "rate": 0.947},
        {"id": 6, "text": "import", "fired": 40, "read": 44, "share": 0.29, "rate": 0.909},
        {"id": 7, "text": "\n    ", "fired": 3, "read": 4000, "share": 0.02, "rate": 0.00075},
    ] if fires else []  # fmt: skip
    return {
        **known, "std": None if index == DEAD else 1.25, "histogram": {"edges": EDGES, "counts": counts},
        "logits": logits, "neighbours": {"decoder": near, "cofiring": together if fires else []},
        "tokens": tokens,
        "for_labels": {"fired": known["fired"], "tokens": tokens}, "examples": examples(fires) if fires else [],
    }  # fmt: skip


def hostile_page() -> dict[str, Any]:
    """One whose tokens, label and note would steer a terminal, were they let."""
    found = page(7)
    one = {**found["examples"][0]}
    one["texts"] = [HOSTILE if n == one["peak"] else text for n, text in enumerate(one["texts"])]
    logits = {**found["logits"], "top": [{"id": 1, "text": HOSTILE, "value": 1.0}]}
    tokens = [{**found["tokens"][0], "text": HOSTILE}]
    return {**found, "examples": [one], "logits": logits, "tokens": tokens}
