"""Text to packed windows of tokens on disk, and the reader of those windows.

A folder holds ``tokens.bin``, little-endian rows of ``context`` token ids, first the windows to train on, then the
held-out ones, and ``tokenization.json``, which says what the rows are. Documents run on across windows with a
separator between them, and every window begins with BOS, so that none is shorter than ``context``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

TOKENS, MANIFEST = "tokens.bin", "tokenization.json"
HELD_OUT_EVERY = 50  # without a column that says so, every 50th document is held out, or the last 2 % of the windows
_BATCH_CHARS, _BATCH_TEXTS = 1 << 20, 2048  # of text in one call of the tokenizer: bounds memory, feeds all cores
_FLUSH_TOKENS = 1 << 18


class TooLittleText(ValueError):
    """There is no window to train on, or none to hold out."""


class UnknownToken(ValueError):
    """The tokenizer gives a token that the model has no embedding for."""


@dataclass(frozen=True)
class Text:
    """A document, or a part of a long one: ``continues`` marks all parts but the first. ``held_out`` None: not said."""

    text: str
    held_out: bool | None = None
    continues: bool = False


@dataclass(frozen=True)
class Vocabulary:
    """What packing knows of a tokenizer. ``encode`` adds no special tokens; ``size``: rows of the embedding."""

    encode: Callable[[list[str]], list[list[int]]]
    size: int
    bos: int | None = None
    eos: int | None = None
    unknown: int | None = None
    special_ids: tuple[int, ...] = ()

    @property
    def leading(self) -> int | None:
        """What every window begins with."""
        return self.eos if self.bos is None else self.bos

    @property
    def separator(self) -> int | None:
        """What stands between two documents."""
        return self.bos if self.eos is None else self.eos

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype("<u2" if self.size <= 1 << 16 else "<u4")


def pack(
    documents: Iterable[Text],
    vocabulary: Vocabulary,
    context: int,
    folder: Path,
    names: Mapping[str, str],
    told: Callable[[int, int], None] = lambda documents, text_bytes: None,
) -> dict[str, object]:
    """Write ``tokens.bin`` and ``tokenization.json`` into ``folder``; returns what the latter holds.

    ``names`` (name, dataset, model) go into it as they are. ``told`` hears, batch by batch, how many documents and
    UTF-8 bytes are done; it may raise. The train and the held-out documents are two streams that share no window; the
    end of each that fills no window is dropped. Raises TooLittleText, and UnknownToken when the tokenizer and the model
    do not fit together.
    """
    _check_ids(np.array([i for i in (vocabulary.leading, vocabulary.separator) if i is not None]), vocabulary)
    count = _Count(np.zeros(vocabulary.size, dtype=bool))
    held_out_bin = folder / "held_out.bin"
    with open(folder / TOKENS, "wb") as tokens_file, open(held_out_bin, "wb") as held_out_file:
        train = _Stream(tokens_file, vocabulary, context)
        held_out = _Stream(held_out_file, vocabulary, context)
        for batch in _batches(documents):
            for text, ids in zip(batch, vocabulary.encode([text.text for text in batch]), strict=True):
                tokens = np.array(ids, dtype=np.int64)
                _check_ids(tokens, vocabulary)
                count.add(text, tokens, vocabulary)
                (held_out if count.held_out else train).add(tokens, text.continues)
            told(count.documents, count.text_bytes)
        train.flush()
        held_out.flush()
        train_windows, held_out_windows = _split(train.windows, held_out.windows, context, count.tokens)
    _join(folder / TOKENS, held_out_bin)
    facts: dict[str, object] = {
        **names,
        "context": context,
        "dtype": vocabulary.dtype.str,
        "windows": train_windows + held_out_windows,
        "train_windows": train_windows,
        "held_out_windows": held_out_windows,
        "held_out_by": count.rule if held_out.windows else "last windows",
        **count.statistics(vocabulary),
        "dropped_tokens": train.waiting + held_out.waiting,
        "special_ids": sorted(vocabulary.special_ids),
        "policy": {"bos": vocabulary.leading, "separator": vocabulary.separator, "packed": True},
    }
    (folder / MANIFEST).write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return facts


class TokenWindows:
    """Reads packed windows without loading them. Rows 0 to ``train``-1 are for training, the ``held_out`` next not.

    Raises ValueError when the folder is no tokenization or ``tokens.bin`` has not the size that is promised.
    """

    def __init__(self, folder: Path) -> None:
        try:
            facts = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            size = (folder / TOKENS).stat().st_size
        except (OSError, ValueError) as error:
            raise ValueError(f"{folder} is not a tokenization: {error}") from error
        self.context: int = facts["context"]
        self.train: int = facts["train_windows"]
        self.held_out: int = facts["held_out_windows"]
        self.special_ids: list[int] = facts["special_ids"]
        dtype, shape = np.dtype(facts["dtype"]), (self.train + self.held_out, self.context)
        if size != shape[0] * shape[1] * dtype.itemsize:
            raise ValueError(
                f"{folder / TOKENS} has {size} bytes, not those of {shape[0]} windows of {shape[1]} tokens"
            )
        self._tokens = np.memmap(folder / TOKENS, dtype=dtype, mode="r", shape=shape)

    def rows(self, indices: ArrayLike) -> NDArray[np.int64]:
        """The windows at ``indices`` (n,), as token ids (n, context)."""
        return self._tokens[np.asarray(indices, dtype=np.int64)].astype(np.int64)

    def special_mask(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """True where a token is special (BOS, separator, padding): such positions are no text. Shape of ``rows``."""
        return np.isin(rows, self.special_ids)


class _Stream:
    """A running stream of tokens, written as windows while it grows."""

    def __init__(self, file: BinaryIO, vocabulary: Vocabulary, context: int) -> None:
        self.windows = 0
        self.waiting = 0  # tokens that have not filled a window yet
        self._file, self._context, self._vocabulary = file, context, vocabulary
        self._parts: list[NDArray[np.int64]] = []
        self._separate = self._begun = False

    def add(self, tokens: NDArray[np.int64], continues: bool) -> None:
        self._separate |= not continues
        if not len(tokens):
            return
        if self._separate and self._begun and self._vocabulary.separator is not None:
            self._append(np.array([self._vocabulary.separator]))
        self._separate, self._begun = False, True
        self._append(tokens)
        if self.waiting >= _FLUSH_TOKENS:
            self.flush()

    def _append(self, tokens: NDArray[np.int64]) -> None:
        self._parts.append(tokens)
        self.waiting += len(tokens)

    def flush(self) -> None:
        """Write the windows that are full."""
        leading = self._vocabulary.leading
        lead = 0 if leading is None else 1
        body = self._context - lead
        full = self.waiting // body
        if not full:
            return
        stream = np.concatenate(self._parts)
        rows = np.empty((full, self._context), dtype=self._vocabulary.dtype)
        rows[:, :lead] = leading or 0
        rows[:, lead:] = stream[: full * body].reshape(full, body)
        self._file.write(rows.tobytes())  # not tofile, whose error does not say that the disk is full
        self.windows += full
        self._parts, self.waiting = [stream[full * body :]], self.waiting - full * body


@dataclass
class _Count:
    """What has been read so far, and whether the document at hand is held out."""

    seen: NDArray[np.bool_]  # (vocabulary size,)
    documents: int = 0
    tokens: int = 0
    unknown_tokens: int = 0
    text_bytes: int = 0
    held_out: bool = False
    rule: str = "every 50th document"

    def add(self, text: Text, tokens: NDArray[np.int64], vocabulary: Vocabulary) -> None:
        if not text.continues:
            self.documents += 1
            self.held_out = self.documents % HELD_OUT_EVERY == 0
        if text.held_out is not None:
            self.held_out, self.rule = text.held_out, "document"
        self.seen[tokens] = True
        self.tokens += len(tokens)
        self.text_bytes += len(text.text.encode())
        if vocabulary.unknown is not None:
            self.unknown_tokens += int((tokens == vocabulary.unknown).sum())

    def statistics(self, vocabulary: Vocabulary) -> dict[str, object]:
        """``tokens`` are those of the text alone: no BOS, no separator."""
        return {
            "tokens": self.tokens,
            "documents": self.documents,
            "bytes_per_token": self.text_bytes / self.tokens,
            "mean_document_tokens": self.tokens / self.documents,
            "unused_share": float((~self.seen).mean()),  # of the vocabulary
            "unknown_share": None if vocabulary.unknown is None else self.unknown_tokens / self.tokens,
        }


def _batches(documents: Iterable[Text]) -> Iterator[list[Text]]:
    batch: list[Text] = []
    chars = 0
    for text in documents:
        batch.append(text)
        chars += len(text.text)
        if chars >= _BATCH_CHARS or len(batch) >= _BATCH_TEXTS:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch


def _check_ids(tokens: NDArray[np.int64], vocabulary: Vocabulary) -> None:
    if len(tokens) and tokens.max() >= vocabulary.size:
        raise UnknownToken(
            f"the tokenizer gives token {tokens.max()}, but the model's embedding has only {vocabulary.size} rows: "
            "the tokenizer belongs to another model"
        )


def _split(train: int, held_out: int, context: int, tokens: int) -> tuple[int, int]:
    """How many windows are to train on and how many are held out."""
    if not held_out and train >= 2:
        held_out = max(1, train // HELD_OUT_EVERY)
        return train - held_out, held_out
    if train + held_out < 2:
        raise TooLittleText(
            f"{tokens} tokens of text do not fill two windows of {context} tokens: "
            "add more text or ask for a smaller context"
        )
    if not train:
        raise TooLittleText(f"less than {context} tokens of text are not held out: nothing is left to train on")
    return train, held_out


def _join(tokens: Path, held_out: Path) -> None:
    with open(tokens, "ab") as target, open(held_out, "rb") as source:
        shutil.copyfileobj(source, target, 1 << 20)
    held_out.unlink()
