"""Everything that is printed: data on stdout, the rest on stderr. Nothing else in the client prints."""

from __future__ import annotations

import itertools
import json
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mistudio.visible import cut, escaped, escaped_json, padded, visible, width

if TYPE_CHECKING:
    from rich.console import Console

_GAP = "    "
_COLOURS = ("bright_cyan", "bright_yellow", "bright_green", "bright_magenta", "bright_white")
Line = Sequence[tuple[str, str]]  # pieces of text, which must be visible, each with a style of rich or ""


@dataclass(frozen=True)
class Canvas:
    """What stdout can show: ``width`` is None where a line may be as long as it is."""

    width: int | None
    colours: bool


def data(value: object) -> None:
    """One JSON value, as the API gave it."""
    json_text(json.dumps(value, ensure_ascii=False, indent=2))


def json_text(document: str) -> None:
    _print(escaped_json(document), sys.stdout)


def text(value: str, end: str = "\n") -> None:
    # What a dataset or a model holds must not steer the terminal.
    _print(escaped(value), sys.stdout, end)


def canvas() -> Canvas:
    wide = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    return Canvas(wide, wide is not None and _is_coloured(_console()))


def painted(lines: Iterable[Line]) -> None:
    """Lines with their styles, where there are any to be had."""
    if not canvas().colours:
        for line in lines:
            text("".join(part for part, _ in line).rstrip())
        return
    from rich.text import Text

    console = _console()
    for line in lines:
        console.print(Text.assemble(*((part, style) for part, style in line if part)))


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True)


def _is_coloured(console: Console) -> bool:
    return console.is_terminal and console.color_system is not None and not console.no_color


def pieces(parts: Iterable[tuple[str, bool]]) -> None:
    """Parts of a text, told apart by colours where there are any, else by "|"; a part that is marked is dim."""
    from rich.text import Text

    shown = [(visible(part), marked) for part, marked in parts]
    console = _console()
    if not _is_coloured(console):
        text("|".join(part for part, _ in shown))
        return
    line, colours = Text(), itertools.cycle(_COLOURS)
    for part, marked in shown:
        line.append(part.replace("↵", "↵\n"), "dim" if marked else f"black on {next(colours)}")
    console.print(line)


def note(value: str) -> None:
    _print(escaped(value), sys.stderr)


def error(sentence: str, body: Mapping[str, object] | None = None) -> None:
    """Why it did not work: the API's error object when ``body`` is given."""
    if body is None:
        note(f"Error: {sentence}")
    else:
        _print(escaped_json(json.dumps({"error": body}, ensure_ascii=False)), sys.stderr)


def table(header: Sequence[str], rows: Iterable[Sequence[object]], say: Callable[[str], None] = text) -> None:
    """Left-aligned columns without borders; on a terminal the last is cut at its edge."""
    cells = [list(header)] + [[_cell(value) for value in row] for row in rows]
    widths = [max(width(row[i]) for row in cells) for i in range(len(header))]
    edge = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for row in cells:
        line = _GAP.join(padded(cell, wide) for cell, wide in zip(row, widths, strict=True)).rstrip()
        say(line if edge is None else cut(line, edge))


def record(thing: Mapping[str, object], say: Callable[[str], None] = text) -> None:
    """One thing, a line for each of its fields; those of a field that has fields are dotted."""
    lines = dict(_flat(thing))
    wide = max(map(len, lines), default=0)
    for name, value in lines.items():
        say(f"{name.ljust(wide)}{_GAP}{_cell(value)}")


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
        return visible(", ".join(map(str, value))) or "—"
    if isinstance(value, list | dict):
        return visible(json.dumps(value, ensure_ascii=False))
    return visible(str(value))


def _print(line: str, file: Any, end: str = "\n") -> None:
    encoding = getattr(file, "encoding", None) or "utf-8"
    print(line.encode(encoding, "replace").decode(encoding), file=file, end=end, flush=True)
