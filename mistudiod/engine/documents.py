"""Documents on their way into a tokenization: the pieces in which they come, and which of them are kept."""

from __future__ import annotations

import hashlib
import mmap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DIGEST_BYTES = 16


@dataclass(frozen=True)
class Pieces:
    """The tokens of some documents, or of parts of long ones, in order, and what was seen in their texts.

    ``tokens`` holds those of all n pieces, ``lengths`` says how many each has; all lists have n entries. ``continues``
    marks all parts of a document but the first. ``held_out`` None: the dataset does not say. ``digests`` are
    ``DIGEST_BYTES`` of a hash of each text. A piece of which the filters know that it will be dropped has no tokens.
    """

    tokens: NDArray[np.uint32]
    lengths: list[int]
    continues: list[bool]
    held_out: list[bool | None]
    digests: list[bytes]
    text_bytes: list[int]
    chars: list[int]
    unprintable: list[int]  # characters
    matched: list[bool]  # what every document must have was found
    unwanted: list[bool]  # what no document may have was found


@dataclass(frozen=True)
class Filters:
    """Which documents are dropped. Patterns were looked for where the pieces come from. Lengths are in tokens."""

    shortest: int | None = None
    longest: int | None = None
    duplicates: bool = False
    max_unprintable: float | None = None
    must_match: bool = False

    def reason_in_text(self, chars: int, unprintable: int, matched: bool, unwanted: bool) -> str | None:
        """Why a document is dropped for its text, as the setting is called; None when it is not."""
        if self.max_unprintable is not None and unprintable > self.max_unprintable * chars:
            return "max_unprintable"
        if self.must_match and not matched:
            return "must_match"
        return "must_not_match" if unwanted else None

    def reason(self, document: Document) -> str | None:
        """Why a document is dropped, the first reason of several; duplicates are for ``Seen`` to tell."""
        text = self.reason_in_text(document.chars, document.unprintable, document.matched, document.unwanted)
        if text is not None:
            return text
        if not document.tokens:
            return "empty"
        if self.shortest is not None and document.tokens < self.shortest:
            return "shortest"
        return "longest" if self.longest is not None and document.tokens > self.longest else None


REASONS = ("max_unprintable", "must_match", "must_not_match", "empty", "shortest", "longest", "drop_duplicates")


class Document:
    """What is known of a document so far: ``add`` takes its pieces, the first of which decides where it belongs."""

    def __init__(self) -> None:
        self.pieces = self.tokens = self.text_bytes = self.chars = self.unprintable = 0
        self.matched = self.unwanted = False
        self.digest = bytes(DIGEST_BYTES)
        self.held_out: bool | None = None

    def add(self, pieces: Pieces, i: int) -> None:
        if not self.pieces:
            self.held_out, self.digest = pieces.held_out[i], pieces.digests[i]
        else:  # texts are cut in the same places whenever they are the same
            self.digest = digest_of(self.digest + pieces.digests[i])
        self.pieces += 1
        self.tokens += pieces.lengths[i]
        self.text_bytes += pieces.text_bytes[i]
        self.chars += pieces.chars[i]
        self.unprintable += pieces.unprintable[i]
        self.matched |= pieces.matched[i]
        self.unwanted |= pieces.unwanted[i]


def digest_of(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=DIGEST_BYTES).digest()


def held_out_by_hash(digest: bytes, share: float) -> bool:
    """Whether a text with this hash is held out: the same text always is, and with a larger share it still is."""
    return int.from_bytes(digest[:8], "little") < share * 2**64


class Seen:
    """The hashes of the texts that have come: a table in a file, so that a large corpus takes no memory for good.

    ``documents`` is the most that will come. Use it in a ``with`` block, which removes the file.
    """

    def __init__(self, path: Path, documents: int) -> None:
        self._path = path
        self._mask = (1 << (2 * documents + 1).bit_length()) - 1  # at most half of the slots are ever taken
        with open(path, "wb+") as file:
            file.truncate((self._mask + 1) * DIGEST_BYTES)  # with holes: only what is written takes space
            self._map = mmap.mmap(file.fileno(), 0)
        self._words = memoryview(self._map).cast("Q")

    def add(self, digest: bytes) -> bool:
        """Whether it is new."""
        low, high = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little") | 1  # 0: a free slot
        slot = low & self._mask
        while self._words[2 * slot + 1]:
            if self._words[2 * slot] == low and self._words[2 * slot + 1] == high:
                return False
            slot = (slot + 1) & self._mask
        self._words[2 * slot], self._words[2 * slot + 1] = low, high
        return True

    def __enter__(self) -> Seen:
        return self

    def __exit__(self, *_error: object) -> None:
        self._words.release()
        self._map.close()
        self._path.unlink(missing_ok=True)
