"""Progress on stderr: a live line on a terminal, with more below it if need be; elsewhere a plain line now and then."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from mistudio import output
from mistudio.visible import escaped

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import Progress

PLAIN_EVERY_S = 1.0
_ABOVE = 3  # lines of a terminal that are kept for what stands above the list


class Drawing(Protocol):
    def line(self, text: str, share: float | None, fresh: bool, below: Sequence[str] = ()) -> None:
        """How far it is. ``share`` is 0 to 1, None when not known; ``fresh``: a stage or state has just begun.

        ``below``: lines that belong to it.
        """

    def note(self, text: str) -> None: ...


def cropped(lines: Sequence[str], most: int) -> list[str]:
    """No more than ``most`` lines (at least two), of which the last says how many are left out."""
    most = max(most, 2)
    if len(lines) <= most:
        return [*lines]
    return [*lines[: most - 1], f"  … and {len(lines) - most + 1} more"]


@contextmanager
def drawn() -> Iterator[Drawing]:
    """The drawing for where stderr goes."""
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        with _live() as live:
            yield live
    else:
        plain = _Plain()
        yield plain
        plain.end()


class _Plain:
    """A line at most each second; the first and the last of a stage always, and then what was below."""

    def __init__(self) -> None:
        self._held = ""
        self._drawn = ""
        self._drawn_at = 0.0
        self._below: Sequence[str] = ()

    def line(self, text: str, share: float | None, fresh: bool, below: Sequence[str] = ()) -> None:
        if fresh:
            self.end()
        self._below = below
        if fresh or time.monotonic() - self._drawn_at >= PLAIN_EVERY_S:
            self._draw(text)
        else:
            self._held = text

    def note(self, text: str) -> None:
        output.note(text)

    def end(self) -> None:
        if self._held:
            self._draw(self._held)
        for line in self._below:
            output.note(line)
        self._below = ()

    def _draw(self, text: str) -> None:
        if text != self._drawn:
            output.note(text)
        self._drawn, self._drawn_at, self._held = text, time.monotonic(), ""


@contextmanager
def _live() -> Iterator[Drawing]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
    from rich.table import Column
    from rich.text import Text

    class Shown(Progress):
        """With lines below the bar, no more than the terminal is high."""

        below: Sequence[str] = ()

        def get_renderables(self) -> Iterator[RenderableType]:
            yield from super().get_renderables()
            if self.below:  # not before there is a console
                for line in cropped(self.below, self.console.size.height - _ABOVE):
                    yield Text(escaped(line), no_wrap=True, overflow="ellipsis")

    one_line = Column(no_wrap=True, overflow="ellipsis")
    text = TextColumn("{task.description}", markup=False, table_column=one_line)
    columns = SpinnerColumn(), BarColumn(bar_width=20), text
    with Shown(*columns, console=Console(stderr=True), transient=True) as progress:
        live = _Live(progress, lambda below: setattr(progress, "below", below))
        yield live
        live.end()


class _Live:
    """One line that changes in place; what a stage came to stays above it."""

    def __init__(self, progress: Progress, show_below: Callable[[Sequence[str]], None]) -> None:
        self._progress, self._show_below = progress, show_below
        self._below: Sequence[str] = ()
        self._task = progress.add_task("", total=None)
        self._last = ""

    def line(self, text: str, share: float | None, fresh: bool, below: Sequence[str] = ()) -> None:
        if fresh:
            self.end()
        self._below = below
        self._show_below(below)
        self._last = text if share is not None else ""
        self._progress.update(
            self._task, description=escaped(text), total=None if share is None else 1.0, completed=share or 0
        )

    def note(self, text: str) -> None:
        self._progress.console.print(escaped(text), markup=False, highlight=False)

    def end(self) -> None:
        if self._last:
            self.note("\n".join([self._last, *self._below]))
        self._last, self._below = "", ()
