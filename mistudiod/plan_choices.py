"""How a training is made to fit: what is left open is given up step by step, the mildest first. Pure.

The order, within one precision of the model:

1. the whole model: without it a training is blind to what the SAE costs the model in loss, but is the same training;
2. tokens of a forward pass, then tokens of a step that are taken at once: either costs speed;
3. the buffer down to ``MIXING_TOKENS``: text is mixed less, which hardly shows;
4. SAEs at once: every pass more is a harvest more, hours that nobody is told of by the result;
5. the buffer down to its least: SAEs get worse;
6. the precision: what is learned is another model's.

What was given up on the way and turns out not to be needed is taken back, the dearest first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from mistudiod.plan_train import Choices

NAMES = ("precision", "forward_tokens", "buffer_tokens", "micro_tokens", "saes_at_once", "whole_model")
BUFFER_TOKENS = 524_288  # where memory allows
MIXING_TOKENS = 65_536  # a buffer that still mixes well
LEAST_BUFFER_TOKENS = 8_192  # a smaller one mixes too little
LEAST_MICRO_TOKENS = 256
BUFFER_SHARE = 4  # one part in so many of the training's tokens: the first filling is seen by an untrained SAE only

Step = tuple[str, list[Any]]  # a choice, and ever smaller values of it


def usual_buffer(tokens: int, batch_tokens: int) -> int:
    """Tokens in the buffer of a training of ``tokens`` where memory is no matter."""
    share = tokens // BUFFER_SHARE // LEAST_BUFFER_TOKENS * LEAST_BUFFER_TOKENS
    return max(min(BUFFER_TOKENS, share), least_buffer(batch_tokens))


def least_buffer(batch_tokens: int) -> int:
    return max(LEAST_BUFFER_TOKENS, 2 * batch_tokens)


def steps(first: Choices, context: int, batch_tokens: int, saes: int) -> list[Step]:
    """What can be given up of ``first``, in order; every value is smaller than the one before it."""
    least, buffer = least_buffer(batch_tokens), first.buffer_tokens
    return [
        ("whole_model", [False] if first.whole_model else []),
        ("forward_tokens", list(halves(first.forward_tokens, context))),
        ("micro_tokens", list(halves(first.micro_tokens, LEAST_MICRO_TOKENS))),
        ("buffer_tokens", list(halves(buffer, max(MIXING_TOKENS, least)))),
        ("saes_at_once", fewer(first.saes_at_once, saes)),
        ("buffer_tokens", list(halves(min(buffer, max(MIXING_TOKENS, least)), least))),
    ]


def made_fit(first: Choices, open_steps: Sequence[Step], fits: Callable[[Choices], bool]) -> tuple[Choices, bool]:
    """``first`` with as little given up as makes it fit, and True; with all given up, and False, when that does not."""
    found = first
    if fits(found):
        return found, True
    for number, (name, values) in enumerate(open_steps):
        for value in values:
            found = replace(found, **{name: value})
            if fits(found):
                given_up = [step for step in open_steps[:number] if step[0] != name]
                return _taken_back(found, first, given_up, fits), True
    return found, False


def all_given_up(first: Choices, open_steps: Sequence[Step]) -> Choices:
    return replace(first, **{name: values[-1] for name, values in open_steps if values})


def _taken_back(found: Choices, first: Choices, given_up: Sequence[Step], fits: Callable[[Choices], bool]) -> Choices:
    for name, values in reversed(given_up):
        larger = (replace(found, **{name: value}) for value in [getattr(first, name), *values])
        found = next(one for one in larger if fits(one))  # at the latest what it is now
    return found


def halves(value: int, least: int) -> Iterator[int]:
    """Ever smaller values, down to ``least``."""
    while value > least:
        value = max(least, value // 2)
        yield value


def fewer(at_once: int, saes: int) -> list[int]:
    """Fewer SAEs at once than ``at_once``, of ``saes`` in all: as many as one pass more leaves, and so on."""
    even = dict.fromkeys(-(-saes // passes) for passes in range(1, saes + 1))
    return [n for n in even if n < at_once]
