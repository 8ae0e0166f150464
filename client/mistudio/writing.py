"""Texts as a session writes them: how far it is, and on a terminal the texts as they grow."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from typing import Any

from mistudio import human
from mistudio.beside import WIDE, columns, half, plain, wrapped
from mistudio.drawing import Drawing
from mistudio.visible import cut_before, padded, visible, width

_LINES = 12  # of a text that is still growing
_REDRAW_S = 0.05


class Writing:
    """``progress`` and ``text`` are what ``Client.steer`` calls; ``heads`` name the texts of a sample, in order."""

    def __init__(self, drawing: Drawing, heads: Sequence[str], samples: int) -> None:
        self._drawing, self._heads = drawing, list(heads)
        self._texts = [""] * (len(heads) * samples)
        self._samples = samples
        self._stage = ""
        self._drawn_at = 0.0
        self._is_live = sys.stderr.isatty()  # elsewhere the texts come once, when they are whole

    def text(self, row: int, more: str) -> None:
        if row < len(self._texts):
            self._texts[row] += more

    def progress(self, about: dict[str, Any]) -> None:
        stage, fresh = str(about["stage"]), about["stage"] != self._stage
        self._stage = stage
        share = human.part(about)
        is_over = share is not None and share >= 1
        if not fresh and not is_over and time.monotonic() - self._drawn_at < _REDRAW_S:
            return
        self._drawn_at = time.monotonic()
        self._drawing.line(said(about), share, fresh, self._below())

    def end(self) -> None:
        """The texts are shown elsewhere now."""
        if self._is_live and self._stage:
            self._drawing.line(self._stage, None, False)

    def _below(self) -> list[str]:
        if not self._is_live or not any(self._texts):
            return []
        cells = shutil.get_terminal_size().columns
        if len(self._texts) == 2 and cells >= WIDE:
            wide = half(cells)
            left, right = (wrapped(plain(text), wide)[-_LINES:] for text in self._texts)
            return ["".join(part for part, _ in line).rstrip() for line in columns(left, right, wide)]
        heads = [head for _ in range(self._samples) for head in self._heads]
        names = max(map(width, heads))
        return [
            f"{padded(head, names)}  {cut_before(visible(text), max(cells - names - 3, 10))}"
            for head, text in zip(heads, self._texts, strict=True)
        ]


def said(about: dict[str, Any]) -> str:
    """``load pico 40/100 MB (40%), 3 s left``."""
    done, total, unit = about["done"], about["total"], about["unit"]
    parts = [str(about["stage"])]
    if total and total != 1:
        amounts = (human.size(done), human.size(total)) if unit == "bytes" else (human.count(done), human.count(total))
        parts = [f"{parts[0]} {' of '.join(amounts)} {'' if unit == 'bytes' else unit}".rstrip()]
    elif done and not total:
        parts = [f"{parts[0]} {human.amount(done, unit)}"]
    if about.get("eta_s"):
        parts.append(f"{human.duration(about['eta_s'])} left")
    return ", ".join(parts)
