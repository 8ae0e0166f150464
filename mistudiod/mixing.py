"""How the tokens of a training are mixed: the arithmetic of the buffer, pure, for the engine and the planner alike.

A pass puts all windows in a random order and cuts them into chunks. A chunk's tokens are dealt at random into parts:
the first goes into the chunk's own group, part m into the group m chunks later. So a group has tokens of the latest
``parts`` chunks, and is given out in random order once its own chunk is there. Against random replacement, how long a
token stays is bounded: ``parts`` chunks harvested again make any group again, bit for bit. Two tokens of one window
meet in a batch as seldom as there, batch / (2 x buffer): as in a shuffle of all tokens of ``parts`` chunks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

BUFFER_TOKENS = 524_288  # that are mixed, where memory allows
CHUNK_TOKENS = 16_384  # harvested at once; the first batch waits for so many
_FEWEST_CHUNKS = 4  # in a buffer, however small it is


@dataclass(frozen=True)
class Mixing:
    """``chunks``: of a pass; ``chunk_windows``: in the largest of them; ``context``: tokens of a window."""

    chunks: int
    chunk_windows: int
    context: int
    parts: int

    @property
    def chunk_tokens(self) -> int:
        return self.chunk_windows * self.context

    @property
    def rows(self) -> int:
        """Tokens that the buffer has room for: its bytes are ``rows`` x the sum of the hooks' widths x 2 (bf16).

        Of a chunk that came m groups ago (parts - m) / parts are left, at most.
        """
        return ((self.parts + 1) * self.chunk_tokens + 1) // 2

    def cuts(self, chunk: int, tokens: int) -> list[int]:
        """Where ``tokens`` of a chunk, in random order, are cut into its parts: ``parts`` + 1 numbers from 0 up.

        All parts are equal but those of the first chunks: there no earlier chunk has left anything for the group, so
        each gives more at once, and every group has half a chunk at least. The first batch need not wait for more
        than a chunk then, while the other half fills the buffer.
        """
        if self.parts == 1:
            return [0, tokens]
        given = (self.parts / (self.parts - 1)) ** min(chunk, self.parts)  # by earlier chunks: (given - 1) / 2
        first = min(tokens, math.ceil(max(1 / self.parts, 1 - given / 2) * tokens))
        rest, others = tokens - first, self.parts - 1
        return [0, *(first - (-rest * m // others) for m in range(others + 1))]  # rounded up: none stays longer


def mixing(windows: int, context: int, batch_tokens: int, buffer_tokens: int = BUFFER_TOKENS) -> Mixing:
    """The most parts for which the buffer holds no more than ``buffer_tokens``, nor more than a pass has.

    One window is the least that it can hold.
    """
    wanted = min(max(CHUNK_TOKENS, 2 * batch_tokens), buffer_tokens // _FEWEST_CHUNKS)
    chunks = math.ceil(windows / max(1, wanted // context))
    size = math.ceil(windows / chunks)
    parts = 2 * buffer_tokens // (size * context) - 1
    return Mixing(chunks, size, context, max(1, min(parts, chunks)))
