"""Exports, a line for each thing: to stdout, or to a file that is there when it is whole."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from mistudio import human, output
from mistudio.drawing import drawn
from mistudio.options import Call

_DRAW_EVERY = 100  # lines


def export(call: Call, lines: Iterator[bytes], file: Path | None, noun: str, total: int | None = None) -> None:
    """Raises UsageError when the file cannot be written; what was begun is taken away."""
    if file is None:
        for line in lines:
            output.json_text(line.decode(errors="replace").rstrip("\r\n"))
        return
    count = 0

    def counted() -> Iterator[bytes]:
        nonlocal count
        for count, line in enumerate(lines, 1):
            yield line
            if total and (count % _DRAW_EVERY == 0 or count == total):
                text = f"{human.count(count)} of {human.count(total)} {noun}s"
                drawing.line(f"export: {text}", min(count / total, 1.0), count == total)

    with drawn() as drawing:
        written(counted(), file)
    if call.json:
        output.data({"file": str(file.absolute()), f"{noun}s": count})
    else:
        output.note(f"wrote {human.count(count)} {noun}s to {file}")


def written(parts: Iterable[bytes], file: Path) -> None:
    """Raises UsageError when the file cannot be written; what was begun is taken away."""
    partial = file.with_name(f".partial-{file.name}-{os.getpid()}")
    try:
        with partial.open("wb") as out:
            out.writelines(parts)
        partial.replace(file)
    except OSError as error:
        raise click.UsageError(f"{file} cannot be written: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)
