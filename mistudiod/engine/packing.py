"""Pieces of tokens to windows on disk: documents are put together, kept or dropped, and held out or trained on.

The documents to train on and the held-out ones are two streams that share no window. What is written depends on the
pieces and the settings alone, not on how or by how many processes the pieces were made.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from mistudiod.engine.documents import Document, Filters, Pieces, Seen, held_out_by_hash
from mistudiod.engine.token_statistics import Statistics
from mistudiod.engine.tokens import MANIFEST, TOKENS, Vocabulary
from mistudiod.engine.windows import Packed, Padded, Stream

_HELD_OUT, _SEEN = "held_out.bin", "seen.bin"  # gone when all is done


class TooLittleText(ValueError):
    """There is no window to train on, or none to hold out. ``reason``: the filter that dropped most, if any did."""

    def __init__(self, message: str, reason: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason


class UnknownToken(ValueError):
    """The tokenizer gives a token that the model has no embedding for."""


class NoFiller(ValueError):
    """Windows are to be padded, and the model has no special token to do it with."""


@dataclass(frozen=True)
class Layout:
    """How documents become windows. ``tokens``: of text, at most. ``held_out``: the share of documents, 0-1."""

    context: int
    packing: bool = True
    stride: int = 0
    bos: str = "auto"
    tokens: int | None = None
    held_out: float = 0.02
    filters: Filters = Filters()

    def streams(
        self, train: BinaryIO, held_out: BinaryIO, vocabulary: Vocabulary
    ) -> tuple[Packed, Packed] | tuple[Padded, Padded]:
        leading, dtype = vocabulary.leading(self.bos), vocabulary.dtype
        if self.packing:
            both = (train, held_out)
            one, two = (Packed(file, self.context, leading, vocabulary.separator, dtype) for file in both)
            return one, two
        filler = vocabulary.filler
        if filler is None:
            raise NoFiller("the model has no special token to fill windows up with: turn packing on")
        return (
            Padded(train, self.context, leading, filler, self.stride, dtype),
            Padded(held_out, self.context, leading, filler, self.stride, dtype),
        )


def pack(
    pieces: Iterable[Pieces],
    documents: int,
    vocabulary: Vocabulary,
    layout: Layout,
    folder: Path,
    names: Mapping[str, object],
    told: Callable[[int, int], None] = lambda text_bytes, tokens: None,
) -> dict[str, object]:
    """Write ``tokens.bin`` and ``tokenization.json`` into ``folder``; returns what the latter holds.

    ``documents`` is the most that can come. ``names`` (name, dataset, model) go into the file as they are. ``told``
    hears, batch by batch, how many UTF-8 bytes were read and how many tokens kept; it may raise. The end of a packed
    stream that fills no window is dropped. Raises TooLittleText, NoFiller, and UnknownToken when the tokenizer and the
    model do not fit together.
    """
    ends = [i for i in (vocabulary.leading(layout.bos), vocabulary.separator) if i is not None]
    _check_ids(np.array(ends, dtype=np.uint32), vocabulary)
    with ExitStack() as stack:
        train, held_out = layout.streams(
            stack.enter_context(open(folder / TOKENS, "wb")),
            stack.enter_context(open(folder / _HELD_OUT, "wb")),
            vocabulary,
        )
        seen = stack.enter_context(Seen(folder / _SEEN, documents)) if layout.filters.duplicates else None
        packing = _Packing(train, held_out, vocabulary, layout, seen)
        for batch in pieces:
            packing.take(batch)
            told(packing.read_bytes, packing.statistics.tokens)
            if packing.full:
                break
        packing.close()
        train.flush(), held_out.flush()
    facts = _facts(packing, train, held_out, layout, vocabulary)
    _join(folder / TOKENS, folder / _HELD_OUT)
    facts = {**names, **facts, "size_bytes": (folder / TOKENS).stat().st_size}
    (folder / MANIFEST).write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return facts


class _Packing:
    """Documents from pieces. A document of one piece, as most are, is decided on before any of it is written; of a
    longer one the pieces are written as they come, and taken back should it be dropped at its end."""

    def __init__(
        self, train: Stream, held_out: Stream, vocabulary: Vocabulary, layout: Layout, seen: Seen | None
    ) -> None:
        self.statistics = Statistics(vocabulary)
        self.read_bytes = 0
        self.full = False  # the cap on tokens is reached
        self.rule = "text"  # what says which documents are held out
        self._train, self._held_out, self._vocabulary = train, held_out, vocabulary
        self._layout, self._seen = layout, seen
        self._document: Document | None = None
        self._stream = train
        self._first = np.empty(0, dtype=np.uint32)
        self._taken = 0  # tokens of the document that were written

    def take(self, pieces: Pieces) -> None:
        _check_ids(pieces.tokens, self._vocabulary)
        end = 0
        for i, length in enumerate(pieces.lengths):
            begin, end = end, end + length
            if self._document is None or not pieces.continues[i]:
                self.close()
                if self.full:
                    return
                self._document = Document()
            self.read_bytes += pieces.text_bytes[i]
            self._document.add(pieces, i)
            self._add(self._document, pieces.tokens[begin:end])

    def _add(self, document: Document, tokens: NDArray[np.uint32]) -> None:
        if document.pieces == 1:
            self._first, self._taken = tokens, 0
            self._stream = self._held_out if self._is_held_out(document) else self._train
            return
        if document.pieces == 2:
            self.statistics.mark()
            self._stream.mark()
            self._stream.begin()
            self._write(self._first)
        self._write(tokens)

    def _is_held_out(self, document: Document) -> bool:
        if document.held_out is None:
            return held_out_by_hash(document.digest, self._layout.held_out)
        self.rule = "document"
        return document.held_out

    def _write(self, tokens: NDArray[np.uint32]) -> None:
        if self._layout.tokens is not None:
            tokens = tokens[: self._layout.tokens - self.statistics.tokens - self._taken]
        self._taken += len(tokens)
        self.statistics.add(tokens)
        self._stream.add(tokens)

    def close(self) -> None:
        """The document at hand is whole: keep or drop it."""
        document, self._document = self._document, None
        if document is None:
            return
        reason = self._layout.filters.reason(document)
        if reason is None and self._seen is not None and not self._seen.add(document.digest):
            reason = "drop_duplicates"
        if reason is not None:
            self.statistics.dropped[reason] += 1
            if document.pieces > 1:
                self._stream.go_back()
                self.statistics.go_back()
            return
        if document.pieces == 1:
            self._stream.begin()
            self._write(self._first)
        self._stream.end()
        self.statistics.keep(document, self._taken)
        self.full = self.statistics.tokens == self._layout.tokens


def _check_ids(tokens: NDArray[np.uint32], vocabulary: Vocabulary) -> None:
    if len(tokens) and tokens.max() >= vocabulary.size:
        raise UnknownToken(
            f"the tokenizer gives token {tokens.max()}, but the model's embedding has only {vocabulary.size} rows: "
            "the tokenizer belongs to another model"
        )


def _facts(
    packing: _Packing, train: Packed | Padded, held_out: Packed | Padded, layout: Layout, vocabulary: Vocabulary
) -> dict[str, object]:
    train_windows, held_out_windows, rule = _split(train.windows, held_out.windows, packing, layout)
    both = (train, held_out)
    leading, separator, filler = vocabulary.leading(layout.bos), vocabulary.separator, vocabulary.filler
    policy = {
        "bos": leading,
        "separator": separator if layout.packing else None,
        "packed": layout.packing,
        "padding": None if layout.packing else filler,
        "stride": layout.stride,
    }
    special = {*vocabulary.special_ids, leading, policy["separator"], policy["padding"]} - {None}
    return {
        "context": layout.context,
        "dtype": vocabulary.dtype.str,
        "windows": train_windows + held_out_windows,
        "train_windows": train_windows,
        "held_out_windows": held_out_windows,
        "held_out_by": rule,
        **packing.statistics.facts(),
        "dropped_tokens": train.waiting + held_out.waiting,
        "separator_tokens": sum(stream.separators for stream in both if isinstance(stream, Packed)),
        "padding_tokens": sum(stream.padding for stream in both if isinstance(stream, Padded)),
        "special_ids": sorted(i for i in special if isinstance(i, int)),
        "policy": policy,
    }


def _split(train: int, held_out: int, packing: _Packing, layout: Layout) -> tuple[int, int, str]:
    """How many windows are to train on, how many are held out, and what says so.

    Where no document of a whole window is held out, or none is left by the hash of its text, the last windows of all
    are: a corpus may be one document.
    """
    statistics = packing.statistics
    windows = train + held_out
    if windows < 2:
        raise _too_little(
            f"{statistics.tokens} tokens of text do not fill two windows of {layout.context} tokens: "
            "add more text or ask for a smaller context",
            statistics,
        )
    if train and held_out:
        return train, held_out, packing.rule
    if not train and packing.rule == "document":
        raise _too_little(
            f"less than {layout.context} tokens of text are not held out: nothing is left to train on", statistics
        )
    if layout.stride:  # the last windows repeat some of what the others hold
        raise _too_little(
            f"{statistics.documents} documents are too few for some to be held out: add more, or set stride to 0",
            statistics,
        )
    last = max(1, int(windows * layout.held_out + 1e-9))
    return windows - last, last, "last windows"


def _too_little(message: str, statistics: Statistics) -> TooLittleText:
    dropped = sorted(((n, reason) for reason, n in statistics.dropped.items() if n), reverse=True)
    if not dropped:
        return TooLittleText(message)
    said = " and ".join(f"{n} for {reason}" for n, reason in dropped)
    most = dropped[0][1]
    if not statistics.documents:
        message = f"no document is left of {statistics.documents_read}: {said} were dropped"
    else:
        message += f" (of {statistics.documents_read} documents {said} were dropped)"
    return TooLittleText(message, most if most != "empty" else None)


def _join(tokens: Path, held_out: Path) -> None:
    with open(tokens, "ab") as target, open(held_out, "rb") as source:
        shutil.copyfileobj(source, target, 1 << 20)
    held_out.unlink()
