"""Documents in an order drawn by a seed, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from random import Random

from mistudiod.worker.text_formats import Row

HELD_DOCUMENTS, HELD_CHARS = 1000, 32 << 20  # among which the next is drawn


def mixed(rows: Iterable[Row], random: Random) -> Iterator[Row]:
    """The same documents, the pieces of each in order; one that is longer than what is held stays where it is."""
    held: list[list[Row]] = []  # the last may still go on
    chars, passing = 0, False
    for row in rows:
        if row.continues and passing:
            yield row
            continue
        passing = False
        if row.continues:
            held[-1].append(row)
        else:
            held.append([row])
        chars += len(row.text)
        while len(held) > HELD_DOCUMENTS or chars > HELD_CHARS:
            passing = len(held) == 1
            drawn = held.pop(0 if passing else random.randrange(len(held) - 1))
            chars -= sum(len(piece.text) for piece in drawn)
            yield from drawn
    random.shuffle(held)
    for document in held:
        yield from document
