"""Everything that is printed: data on stdout, the rest on stderr. Nothing else in the client prints."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

_GAP = "    "
_COLOURS = ("bright_cyan", "bright_yellow", "bright_green", "bright_magenta", "bright_white")
# Steers a terminal, or turns the order of what it shows around (Unicode, Bidi_Control).
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def data(value: object) -> None:
    """One JSON value, as the API gave it."""
    text(json.dumps(value, ensure_ascii=False, indent=2))


def text(value: str, end: str = "\n") -> None:
    # What a dataset or a model holds must not steer the terminal.
    _print(_escaped(value), sys.stdout, end)


def pieces(parts: Iterable[tuple[str, bool]]) -> None:
    """Parts of a text, told apart by colours where there are any, else by "|"; a part that is marked is dim."""
    from rich.console import Console
    from rich.text import Text

    shown = [(_visible(part), marked) for part, marked in parts]
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal or console.color_system is None or console.no_color:
        text("|".join(part for part, _ in shown))
        return
    line, colours = Text(), itertools.cycle(_COLOURS)
    for part, marked in shown:
        line.append(part.replace("↵", "↵\n"), "dim" if marked else f"black on {next(colours)}")
    console.print(line)


def _visible(part: str) -> str:
    return _escaped(part.replace("\n", "↵").replace("\t", "→"))


def _escaped(value: str) -> str:
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), value)


def note(value: str) -> None:
    _print(_CONTROL.sub("?", value), sys.stderr)


def error(sentence: str, body: Mapping[str, object] | None = None) -> None:
    """Why it did not work: the API's error object when ``body`` is given."""
    if body is None:
        note(f"Error: {sentence}")
    else:
        _print(json.dumps({"error": body}, ensure_ascii=False), sys.stderr)


def table(header: Sequence[str], rows: Iterable[Sequence[object]], say: Callable[[str], None] = text) -> None:
    """Left-aligned columns without borders; on a terminal the last is cut at its edge."""
    cells = [list(header)] + [[_cell(value) for value in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    edge = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for row in cells:
        line = _GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        say(line if edge is None or len(line) <= edge else line[: edge - 1] + "…")


def record(thing: Mapping[str, object], say: Callable[[str], None] = text) -> None:
    """One thing, a line for each of its fields; those of a field that has fields are dotted."""
    lines = dict(_flat(thing))
    width = max(map(len, lines), default=0)
    for name, value in lines.items():
        say(f"{name.ljust(width)}{_GAP}{_cell(value)}")


def _flat(thing: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in thing.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _cell(value: Any) -> str:
    if value is None:
        return "—"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    if isinstance(value, list) and all(isinstance(one, str | int) for one in value):
        return ", ".join(map(str, value)) or "—"
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return str(value).replace("\n", "↵")


def _print(line: str, file: Any, end: str = "\n") -> None:
    encoding = getattr(file, "encoding", None) or "utf-8"
    print(line.encode(encoding, "replace").decode(encoding), file=file, end=end, flush=True)
