"""The bytes of a model's tokens, and the text that they make together. Standard library only."""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from pathlib import Path

_decoder = codecs.getincrementaldecoder("utf-8")


class Vocabulary:
    """Reads ``vocab.idx`` (u32, where each token begins, and the end) and ``vocab.bin`` into memory.

    Raises ValueError, one sentence, when they do not fit together, OSError when they cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._starts = memoryview((folder / "vocab.idx").read_bytes()).cast("I")
        self._bytes = (folder / "vocab.bin").read_bytes()
        if not len(self._starts) or self._starts[-1] != len(self._bytes):
            raise ValueError("vocab.idx and vocab.bin do not fit together")
        self.size = len(self._starts) - 1

    def of(self, id: int) -> bytes:
        """The bytes of a token; none of an id that the tokenizer has no token for."""
        return self._bytes[self._starts[id] : self._starts[id + 1]] if id < self.size else b""

    def text(self, id: int) -> str:
        """Of one token alone: bytes that are no whole character are U+FFFD."""
        return self.of(id).decode(errors="replace")

    def texts(self, ids: Iterable[int]) -> list[str]:
        """Of tokens that follow each other; joined they are the exact text, what is not UTF-8 in it is U+FFFD.

        A character that is spread over several tokens comes whole with the last of them, the earlier are "".
        """
        size, starts, known = self.size, self._starts, self._bytes
        parts = [known[starts[id] : starts[id + 1]] if id < size else b"" for id in ids]
        try:
            return [part.decode() for part in parts]  # nearly always: then there is nothing to carry over
        except UnicodeDecodeError:
            return whole_texts(parts)


def whole_texts(parts: Iterable[bytes]) -> list[str]:
    """The text of each token, by its bytes, that follows the one before; joined they are the exact text."""
    decoder = _decoder(errors="replace")
    texts = [decoder.decode(part) for part in parts]
    if texts:
        texts[-1] += decoder.decode(b"", final=True)
    return texts
