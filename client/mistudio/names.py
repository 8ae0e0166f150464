"""What things are called when nobody said."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath

_LONGEST = 64
ENDINGS = frozenset({".txt", ".md", ".py", ".json", ".jsonl", ".csv", ".parquet", ".arrow", ".gz", ".zst"})
SAE_ENDINGS = frozenset({".npz", ".safetensors", ".pt", ".pth"})


def from_source(source: str, noun: str) -> str:
    """``builtin:python`` → python, ``/books/My Diary.txt`` → My-Diary; ``noun`` when nothing is left."""
    path = PurePath(source.removeprefix("builtin:"))
    return clean(path.stem if path.suffix.lower() in ENDINGS else path.name, noun)


def of_published(place: str, path: str | None) -> str:
    """``google/gemma-scope-2b-pt-res``, ``layer_12/width_16k`` → gemma-scope-2b-pt-res-layer_12-width_16k; of what is
    too long the end, which tells it from its siblings.
    """
    parts = [
        part.removesuffix(PurePath(part).suffix) if PurePath(part).suffix in SAE_ENDINGS else part
        for part in (PurePath(place).name, *PurePath(path or "").parts)
    ]
    name = "-".join(part for part in parts if part not in ("params", "ae"))
    return clean(name[-_LONGEST:], "sae")


def of_tokenization(dataset: str, model: str) -> str:
    return clean(f"{dataset}-{model}", "tokens")


def of_sae(tokenization: str, hook: str | Sequence[str]) -> str:
    """``python-pico``, ``blocks.3.hook_resid_post`` → python-pico-3-resid-post; of several hooks → python-pico."""
    if not isinstance(hook, str):
        if len(hook) != 1:
            return tokenization
        hook = hook[0]
    short = hook.removeprefix("blocks.").replace("hook_", "").replace(".", "-").replace("_", "-")
    return clean(tokenization[: _LONGEST - 1 - len(short)] + "-" + short, "sae")


def of_extended(sae: str, tokens: int) -> str:
    """``stories-l3``, 5,000,000 → stories-l3-5M; a number that has no short form is written out."""
    for unit, size in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if tokens >= size and tokens % (size // 100) == 0:
            short = f"{tokens / size:.2f}".rstrip("0").rstrip(".") + unit
            break
    else:
        short = str(tokens)
    return clean(f"{sae[: _LONGEST - 1 - len(short)]}-{short}", "sae")


def clean(text: str, noun: str) -> str:
    """The nearest name that ``mistudiod.specs.check_name`` takes."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text)
    name = re.sub(r"\.{2,}", ".", name).lstrip("._-")[:_LONGEST].rstrip("._-")
    if not name:
        return noun
    return f"{noun}-{name}"[:_LONGEST] if name.isdigit() else name
