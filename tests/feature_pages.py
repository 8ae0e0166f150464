"""Pages of features by hand, as ``Pages.page`` gives them, and a store that is nothing but a few of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mistudiod.pages import is_held_out

WINDOWS = {kept: [n for n in range(400) if is_held_out(n) is kept] for kept in (False, True)}


def tokens_of(text: str) -> list[str]:
    """Words and signs with the space before them, runs of white space."""
    return re.findall(r" ?\w+| ?[^\w\s]+|\s+", text)


def example(
    text: str, kind: str = "top", strength: float = 8.0, held_out: bool = False, row: int = 0
) -> dict[str, Any]:
    """``text`` has the firing token in ⟦ ⟧; the first of them is the peak."""
    before, _, rest = text.partition("⟦")
    token, _, after = rest.partition("⟧")
    parts = [(part, False) for part in tokens_of(before)] + [(token, True)]
    while "⟦" in after:
        plain, _, after = after.partition("⟦")
        more, _, after = after.partition("⟧")
        parts += [(part, False) for part in tokens_of(plain)] + [(more, True)]
    parts += [(part, False) for part in tokens_of(after)]
    fires = kind != "near"
    return {
        "kind": kind,
        "band": 2 if kind == "band" else None,
        "row": row,
        "window": WINDOWS[held_out][row],
        "first": 3,
        "peak": next(at for at, (_, fired) in enumerate(parts) if fired),
        "max": strength if fires else 0.0,
        "held_out": held_out,
        "ids": list(range(len(parts))),
        "texts": [part for part, _ in parts],
        "activations": [strength if fired and fires else 0.0 for _, fired in parts],
    }


def page(
    texts: Sequence[str | Mapping[str, Any]],
    index: int = 7,
    tokens: Mapping[str, tuple[int, int]] | None = None,
    promoted: Sequence[str] = (),
    density: float = 0.004,
    **fields: Any,
) -> dict[str, Any]:
    """``tokens``: of each how often it fires and how often it was read; as in the texts when not given."""
    examples = [dict(one) if isinstance(one, Mapping) else example(one, row=row) for row, one in enumerate(texts)]
    firing = [one for one in examples if one["kind"] != "near"]
    counted = tokens or {t: (10 * n, 11 * n) for t, n in Counter(one["texts"][one["peak"]] for one in firing).items()}
    fired = fields.pop("fired", sum(n for n, _ in counted.values()))
    top = [{"id": n, "text": text, "value": 2.0 - n / 10} for n, text in enumerate(promoted)]
    known = [
        {"id": n, "text": text, "fired": hit, "read": read, "share": hit / fired, "rate": hit / read}
        for n, (text, (hit, read)) in enumerate(sorted(counted.items(), key=lambda one: -one[1][0]))
    ]
    return {
        "index": index,
        "fired": fired,
        "density": density,
        "max": max((one["max"] for one in firing), default=0.0),
        "mean": 2.0,
        "std": 1.0,
        "typical": 5.0,
        "dead": not firing,
        "histogram": {"edges": [0.0] * 65, "counts": [0] * 64},
        "logits": {"top": top, "bottom": top, "histogram": {"low": 0, "high": 1, "counts": [0] * 50}} if top else None,
        "neighbours": {"decoder": [], "cofiring": []},
        "tokens": known,
        "for_labels": {"fired": fired, "tokens": known},
        "examples": examples,
        **fields,
    }


def definitions(index: int = 7) -> dict[str, Any]:
    """A feature that fires on ``def`` at the beginning of a line, before names."""
    names = ["run", "stop", "load", "save", "open", "close", "read", "send"]
    texts = [f"    return {name}\n\n\n⟦def⟧ {name}(self, x):\n    x.{name}()\n" for name in names]
    near = example("# the ⟦def⟧ of this\n", kind="near", row=20)
    held = example("SECRET = 1\n\n⟦def⟧ hidden(self):\n", held_out=True, row=21)
    return page(
        [*texts, near, held], index, tokens={"def": (990, 1000), " def": (10, 50)}, promoted=["run", "_", "test"]
    )


class PlainPages:
    """A store of which nothing is known but its pages; ``broken`` ones cannot be read."""

    def __init__(self, pages: Mapping[int, Mapping[str, Any]], broken: Sequence[int] = ()) -> None:
        self._pages, self._broken = pages, set(broken)

    def __call__(self, _folder: Path) -> PlainPages:
        return self

    def page(self, index: int) -> dict[str, Any]:
        if index in self._broken:
            raise ValueError(f"the page of feature {index} is damaged")
        return dict(self._pages[index])
