"""From a batch of texts to their tokens: what one process does. It imports little, for many of them are started."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from mistudiod.engine.documents import Filters, Pieces, digest_of

# Control characters but for tab and line ends, private use, and what decoding puts where bytes were broken. Not the
# invisible ones that join emoji or turn the direction of writing.
_UNPRINTABLE = r"[\x00-\x08\x0B\x0E-\x1F\x7F-\x84\x86-\x9F\x{FFFD}\p{Co}]"


@dataclass(frozen=True)
class Batch:
    """Rows of a dataset: lists of one length. ``held_out`` None: the dataset does not say."""

    texts: list[str]
    continues: list[bool]
    held_out: list[bool | None]


@dataclass(frozen=True)
class Encoding:
    """What a process must know to make Pieces of Batches. Patterns are RE2's, whose time grows with the text alone."""

    tokenizer_file: Path
    max_unprintable: float | None = None
    must_match: str | None = None
    must_not_match: str | None = None


def open_tokenizer(file: Path) -> Tokenizer:
    """Without truncation and padding. The library raises a bare Exception for what is no tokenizer."""
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


class Encoder:
    """Makes Pieces of Batches."""

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding
        self._filters = Filters(max_unprintable=encoding.max_unprintable, must_match=encoding.must_match is not None)
        self._tokenizer = open_tokenizer(encoding.tokenizer_file)

    def __call__(self, batch: Batch) -> Pieces:
        encoded = [text.encode() for text in batch.texts]
        looks = self._looks(batch.texts)
        tokens, lengths = array("I"), []
        for encoding in self._tokenizer.encode_batch_fast(self._wanted(batch, looks), add_special_tokens=False):
            ids = encoding.ids
            tokens.extend(ids)
            lengths.append(len(ids))
        return Pieces(
            np.frombuffer(tokens, dtype=np.uint32) if tokens else np.empty(0, dtype=np.uint32),
            lengths,
            batch.continues,
            batch.held_out,
            [digest_of(text) for text in encoded],
            [len(text) for text in encoded],
            *looks,
        )

    def _looks(self, texts: list[str]) -> tuple[list[int], list[int], list[bool], list[bool]]:
        """Of each text: its characters, those that cannot be printed, what was found and what was found unwanted."""
        no, settings = [False] * len(texts), self._encoding
        chars, unprintable, matched, unwanted = [len(text) for text in texts], [0] * len(texts), no, no
        if (settings.max_unprintable, settings.must_match, settings.must_not_match) != (None, None, None):
            import pyarrow as pa  # here: a process that has no filters starts in half the time without it
            import pyarrow.compute as pc

            column = pa.array(texts, type=pa.large_string())
            if settings.max_unprintable is not None:
                unprintable = pc.count_substring_regex(column, pattern=_UNPRINTABLE).to_pylist()
            if settings.must_match is not None:
                matched = pc.match_substring_regex(column, pattern=settings.must_match).to_pylist()
            if settings.must_not_match is not None:
                unwanted = pc.match_substring_regex(column, pattern=settings.must_not_match).to_pylist()
        return chars, unprintable, matched, unwanted

    def _wanted(self, batch: Batch, looks: tuple[list[int], list[int], list[bool], list[bool]]) -> list[str]:
        """The texts, without those of whole documents that will be dropped: to tokenize them would be in vain."""
        begins = [not continues for continues in batch.continues]
        whole = [begin and after for begin, after in zip(begins, [*begins[1:], False], strict=True)]
        reason = self._filters.reason_in_text
        return [
            "" if alone and reason(*look) else text
            for text, alone, look in zip(batch.texts, whole, zip(*looks, strict=True), strict=True)
        ]
