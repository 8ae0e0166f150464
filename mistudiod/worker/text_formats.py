"""Rows of text: documents, or pieces of those that are long. Here of .txt, .md and .py files, each one document.

Files may be far larger than memory: a text longer than ``PIECE_CHARS`` comes as several rows, of which all but the
first are marked as continuing.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass

from mistudiod.worker.source_files import BLOCK_BYTES, SourceFile, fault, opened

PIECE_CHARS = 1 << 17  # small enough that all cores have a part of one long document to tokenize
_LINE_END = re.compile(r"\n(?=\S)")


@dataclass(frozen=True)
class Row:
    """A document or a piece of one; ``text`` is empty when the document is blank."""

    text: str
    name: str | None
    held_out: bool
    continues: bool
    source_bytes: float  # of the source, read for this row


def document_rows(file: SourceFile) -> Iterator[Row]:
    """The file as one document. Raises Refused."""
    waiting, read_bytes, begun = "", 0, False
    for block, block_bytes in decoded(file):
        waiting, read_bytes = waiting + block, read_bytes + block_bytes
        while len(waiting) > PIECE_CHARS:
            at = _cut(waiting, 0)
            piece, waiting = waiting[:at], waiting[at:]
            if begun or piece.strip():
                yield Row(piece, file.name, False, begun, read_bytes)
                read_bytes, begun = 0, True
    if not begun and not waiting.strip():
        waiting = ""
    yield Row(waiting, file.name, False, begun, read_bytes)


def decoded(file: SourceFile) -> Iterator[tuple[str, int]]:
    """The text block by block, each with the bytes of the file read for it; a leading byte order mark is left out."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    start = before = 0
    with opened(file) as (stream, taken):
        while True:
            block = stream.read(BLOCK_BYTES)
            pending = len(decoder.getstate()[0])
            if b"\0" in block:
                raise fault(f"{file.shown} is not text: byte {start + block.index(0)} is NUL")
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                raise fault(f"{file.shown} is not text: byte {start - pending + error.start} is not UTF-8") from None
            if not block:
                return
            now = taken()
            yield text.removeprefix("\ufeff") if start == 0 else text, now - before
            start, before = start + len(block), now


def rows_of(text: str, name: str | None, held_out: bool, source_bytes: float) -> Iterator[Row]:
    """One document as rows."""
    if not text.strip():
        text = ""
    start = 0
    while len(text) - start > PIECE_CHARS:
        end = _cut(text, start)
        yield Row(text[start:end], name, held_out, start > 0, source_bytes if start == 0 else 0)
        start = end
    yield Row(text[start:], name, held_out, start > 0, source_bytes if start == 0 else 0)


def _cut(text: str, start: int) -> int:
    """Where a piece ends: at the end of a line, else before a space, else anywhere."""
    end = start + PIECE_CHARS
    ends = [found.end() for found in _LINE_END.finditer(text, end - PIECE_CHARS // 8, end)]
    space = text.rfind(" ", start + 1, end)
    return ends[-1] if ends else space if space > 0 else end
