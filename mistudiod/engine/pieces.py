"""Text around a token, as people read it."""

from __future__ import annotations

from collections.abc import Callable, Collection

Decode = Callable[[list[int]], str]


class Pieces:
    """Cuts text around a token so that no character falls apart, with a tokenizer's own decoder.

    A token may hold part of a character's bytes only; then the neighbours that hold the rest are taken with it.
    """

    MOST = 120  # characters of a part
    LONGEST = 4  # tokens that one character may be spread over
    BROKEN = "�"  # what decoders give for bytes that are no whole character

    def __init__(self, decode: Decode, special_ids: Collection[int], around: int = 10) -> None:
        self._decode, self._special = decode, special_ids
        self._around = around

    def at(self, ids: list[int], position: int) -> tuple[str, str, str]:
        """Of a window's token ids: the text before ``position``, there, and after it, up to special tokens."""
        first = last = position
        while first > max(0, position - self._around) and ids[first - 1] not in self._special:
            first -= 1
        while last < min(len(ids) - 1, position + self._around) and ids[last + 1] not in self._special:
            last += 1
        around, at = ids[first : last + 1], position - first
        start, end = self._character(around, at)
        up_to = [self._decode(around[:i]) for i in (start, end)]
        whole = self._decode(around[: self._whole_end(around, end)])
        before, token, after = up_to[0], up_to[1][len(up_to[0]) :], whole[len(up_to[1]) :]
        before = before.lstrip(self.BROKEN) if before else before
        return before[-self.MOST :], token.lstrip(self.BROKEN)[: self.MOST] or token, after[: self.MOST]

    def _character(self, ids: list[int], at: int) -> tuple[int, int]:
        """First and last + 1 of the tokens that hold whole characters and the one at ``at``."""
        start, end = at, at + 1
        while start > max(0, at - self.LONGEST) and self._is_open(ids[:start]):
            start -= 1
        while end < min(len(ids), at + self.LONGEST) and self._is_open(ids[:end]):
            end += 1
        return start, end

    def _whole_end(self, ids: list[int], least: int) -> int:
        end = len(ids)
        while end > max(least, len(ids) - self.LONGEST) and self._is_open(ids[:end]):
            end -= 1
        return end

    def _is_open(self, ids: list[int]) -> bool:
        """Whether ``ids`` end within a character."""
        return self._decode(ids).endswith(self.BROKEN)
