"""Strengths that mean something: how far adding a feature takes the model from itself, and where its text breaks.

On held-out text the mean KL(steered ‖ unsteered) of the next token, in nats, is brought to each of ``KL_MARKS`` by
bisection of the logarithm of the strength, for either sign. Then short texts are written under the edit: they break
where they repeat themselves, or where the unsteered model would not write them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mistudiod.engine.edits import Change, Changing
from mistudiod.engine.effects import measure
from mistudiod.engine.extract import spread
from mistudiod.engine.lm import LM
from mistudiod.engine.write import NotFinite, write

KL_MARKS = (0.1, 0.5, 2.0)  # nats
TOKENS = 2_048
AT_ONCE = 4_096  # tokens of a pass: of several strengths together, and no more memory than that on any device
FIRST, LEAST, MOST = 1.0, 1e-4, 100.0  # sizes of strengths: where the search begins, and its limits
STEP = 2.0  # from one strength to the next, until a mark is passed
NEAR = 0.02  # of a mark: so near is found
NARROW = 1.001  # between strengths so near each other there is nothing to be found
# Texts that are written at each strength, at most so many strengths at once, and when they are broken.
PROMPTS, PROMPT_TOKENS, SEEDS, WRITTEN, TOGETHER = 3, 16, (0, 1), 32, 16
TEXT_STEP = 1.5  # from one strength at which texts are written to the next
HALVINGS = 2  # of that step, once texts are broken: then the strength is known to a tenth
BEYOND = 3.0  # times the strength of the last mark: there the search ends
# Less than half of the 4-grams that are new in the baseline are new: most of what is written was there before.
NEW_SHARE = 0.5
# The unsteered model finds a token ten times as unlikely as one of the baseline: each is one that it would hardly take.
UNLIKELY = 10.0

Heard = Callable[[], None]  # is called between passes, and may raise to end it all
Search = Generator[list[float], list[Any], Any]  # asks what is at some strengths, time and again; finds something
Of = Callable[[list[float]], list[Any]]  # what is at some strengths
SIGNS = {"low": -1.0, "high": 1.0}


def calibrate(
    lm: LM, change: Change, windows: Tensor, special_ids: Collection[int], heard: Heard, tokens: int = TOKENS
) -> dict[str, Any]:
    """The useful strengths of adding ``change.feature``, in units of its maximum; whatever else ``change`` does.

    ``windows`` (n, T): ids of held-out text, of which evenly spread ones that hold ``tokens`` are read. Returns
    ``{"kl": {"0.1": {"low", "high"}, …}, "breaks": {"low", "high", "why"}, "maximum", "tokens"}``: low is below 0,
    high above; None where none up to MOST does it. ``why``: what breaks at the smaller of both, ``repetition`` or
    ``perplexity``. ``tokens``: that counted, special ones do not. Raises ValueError for a feature whose maximum is 0,
    and when no token counts.
    """
    if not change.maximum > 0:
        raise ValueError(f"feature {change.feature} of {change.name} is dead: it fires nowhere, so no strength does")
    change = replace(change, op="add", scope="all")
    text = windows[torch.from_numpy(spread(len(windows), windows.shape[1], tokens))]
    held = Divergence(lm, change, text, special_ids, heard)
    kl = kl_marks(held.of)
    return {
        "kl": kl,
        "breaks": breaks(Written(lm, change, text, special_ids, heard).why, kl),
        "maximum": change.maximum,
        "tokens": held.tokens,
    }


class Divergence:
    """Mean KL(steered ‖ unsteered) of the next token in nats, over the tokens of windows (n, T) that count."""

    def __init__(self, lm: LM, change: Change, windows: Tensor, special_ids: Collection[int], heard: Heard) -> None:
        self._lm, self._change, self._special_ids, self._heard = lm, change, special_ids, heard
        self._ids = windows.to(lm.device)
        self._counts = ~torch.isin(self._ids, torch.tensor(sorted(special_ids), device=lm.device))
        self.tokens = int(self._counts.sum())
        if not self.tokens:
            raise ValueError("the held-out text holds special tokens only: tokenize more text")
        self._at_once = max(1, AT_ONCE // self._ids.numel())  # strengths
        (self._unsteered,) = self._hidden([0.0])

    def of(self, strengths: Sequence[float]) -> list[float]:
        """At each of some strengths; NaN where the model overflows."""
        parts = (strengths[start : start + self._at_once] for start in range(0, len(strengths), self._at_once))
        return [kl for part in parts for kl in self._measured(part)]

    @torch.no_grad()
    def _measured(self, strengths: Sequence[float]) -> list[float]:
        steered = self._hidden(strengths)
        sums = torch.zeros(len(strengths), dtype=torch.float64, device=self._lm.device)
        rows = self._lm.logit_rows
        for part in range(0, self.tokens, rows):
            unsteered = self._lm.log_probabilities(self._unsteered[part : part + rows])
            for n, hidden in enumerate(steered):
                one = self._lm.log_probabilities(hidden[part : part + rows])
                sums[n] += (one.exp() * (one - unsteered)).sum(dtype=torch.float64)
        return (sums / self.tokens).tolist()

    @torch.no_grad()
    def _hidden(self, strengths: Sequence[float]) -> Tensor:
        """What the head reads of the tokens that count, at each strength: (strengths, tokens, d_model)."""
        self._heard()
        ids = self._ids.repeat(len(strengths), 1)
        rows = [[replace(self._change, strength=strength)] for strength in strengths for _ in self._ids]
        with Changing(self._lm, rows, self._special_ids) as changing:
            changing.at(ids, 0, 0)
            hidden: Tensor = self._lm.model.base_model(input_ids=ids, use_cache=False).last_hidden_state
            changing.check()
        return hidden.unflatten(0, (len(strengths), -1))[:, self._counts]


@dataclass(frozen=True)
class _Sampling:
    """As a text is written when nothing else is asked for."""

    max_tokens: int
    temperature: float = 0.7
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0


class Written:
    """Short texts that go on from the beginnings of windows (n, T), written under the edit and without it."""

    def __init__(self, lm: LM, change: Change, windows: Tensor, special_ids: Collection[int], heard: Heard) -> None:
        self._lm, self._change, self._special_ids, self._heard = lm, change, special_ids, heard
        room = min(lm.facts.context, PROMPT_TOKENS + WRITTEN)
        begun = min(windows.shape[1], PROMPT_TOKENS, room // 2)
        self._prompts = windows[torch.linspace(0, len(windows) - 1, min(PROMPTS, len(windows))).long(), :begun]
        self._sampling = _Sampling(room - begun)
        self._new, self._nats = self._figures([[]])[0]

    def why(self, strengths: list[float]) -> list[str | None]:
        """Of each of some strengths what breaks its texts, ``repetition`` or ``perplexity``; None: nothing does."""
        if len(strengths) > TOGETHER:
            return self.why(strengths[:TOGETHER]) + self.why(strengths[TOGETHER:])
        try:
            found = self._figures([[replace(self._change, strength=strength)] for strength in strengths])
        except NotFinite:
            if len(strengths) == 1:
                return ["perplexity"]
            return [why for strength in strengths for why in self.why([strength])]
        return [
            "repetition" if new < NEW_SHARE * self._new
            else "perplexity" if nats - self._nats > math.log(UNLIKELY)
            else None
            for new, nats in found
        ]  # fmt: skip

    def _figures(self, variants: Sequence[Sequence[Change]]) -> list[tuple[float, float]]:
        """Of each variant the mean share of new 4-grams, and the mean nats of a token under the unsteered model.

        What a text is too short for is not counted; of a variant all of whose texts are, it is NaN.
        """
        figures = torch.empty(len(self._prompts), len(SEEDS), len(variants), 2)
        for prompt, of_prompt in zip(self._prompts, figures, strict=True):
            texts = write(self._lm, prompt, variants, SEEDS, self._sampling, self._special_ids, self._told)
            self._heard()
            read = measure(self._lm, prompt, texts, [()] * len(texts), self._special_ids)
            known = [(1 - _number(one["repetition"]), math.log(_number(one["perplexity"]))) for one in read]
            of_prompt.copy_(torch.tensor(known).view_as(of_prompt))
        return [(new, nats) for new, nats in figures.flatten(0, 1).nanmean(0).tolist()]

    def _told(self, _tokens: Sequence[int | None]) -> None:
        self._heard()


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def kl_marks(of: Of) -> dict[str, dict[str, float | None]]:
    """The smallest strengths at which ``of``, a KL, reaches each mark: ``{"0.1": {"low", "high"}, …}``."""
    walks = dict(zip(SIGNS, _together(of, [_walk(sign) for sign in SIGNS.values()]), strict=True))
    wanted = [(mark, side) for mark in KL_MARKS for side in SIGNS]
    found = _together(of, [_between(SIGNS[side], walks[side], mark) for mark, side in wanted])
    strengths = dict(zip(wanted, found, strict=True))
    return {f"{mark:g}": {side: strengths[mark, side] for side in SIGNS} for mark in KL_MARKS}


def breaks(of: Of, kl: dict[str, dict[str, float | None]]) -> dict[str, Any]:
    """The smallest strengths of a grid, halved where texts turn broken, at which ``of`` says why they are."""
    sides = {side: [one for mark in kl.values() if (one := mark[side]) is not None] for side in SIGNS}
    found = _together(of, [_breaking(_grid(sign, sides[side])) for side, sign in SIGNS.items()])
    low, high = found
    first = min((one for one in found if one), key=lambda one: abs(one[0]), default=None)
    return {"low": low and low[0], "high": high and high[0], "why": first and first[1]}


def _together(of: Of, searches: Sequence[Search]) -> list[Any]:
    """What each search finds; what they ask for at the same time is looked at together."""
    results: list[Any] = [None] * len(searches)
    asked: dict[int, list[float]] = {}

    def go_on(number: int, answers: list[Any] | None) -> None:
        try:
            asked[number] = searches[number].send(answers)  # type: ignore[arg-type]
        except StopIteration as end:
            results[number] = end.value

    for number in range(len(searches)):
        go_on(number, None)
    while asked:
        now, asked = asked, {}
        answers = iter(of([one for some in now.values() for one in some]))
        for number, some in now.items():
            go_on(number, list(itertools.islice(answers, len(some))))
    return results


def _walk(sign: float) -> Search:
    """Sizes of strengths and the KL at each, from one that does not reach the first mark to one that reaches the last.

    Ordered by size. Up to MOST, or to where the KL is not finite any more.
    """
    size, found = FIRST, {}
    [found[size]] = yield [sign * size]
    while not found[size] < KL_MARKS[0] and size > LEAST:
        size /= STEP
        [found[size]] = yield [sign * size]
    size = FIRST
    while found[size] < KL_MARKS[-1] and size < MOST:
        size = min(STEP * size, MOST)
        [found[size]] = yield [sign * size]
    return sorted(found.items())


def _between(sign: float, walk: list[tuple[float, float]], mark: float) -> Search:
    """The smallest strength of a walk that reaches the mark, found between two of its steps; None when none does."""
    step = next((n for n, (_, kl) in enumerate(walk) if kl >= mark), 0)
    if step == 0:
        return None
    (low, below), (high, above) = walk[step - 1 : step + 1]
    for tried in itertools.count(1):
        if high / low <= NARROW:
            break
        # by a straight line in logarithms, for KL is near to a power of the strength; the middle, lest that creep
        share = math.log(mark / below) / math.log(above / below) if below > 0 and tried % 3 else 0.5
        size = low * (high / low) ** min(max(share, 0.1), 0.9)
        [kl] = yield [sign * size]
        if abs(kl / mark - 1) <= NEAR:
            return sign * size
        if kl < mark:
            low, below = size, kl
        else:
            high, above = size, kl
    return sign * high


def _grid(sign: float, marks: list[float]) -> list[float]:
    """Strengths from that of the first mark to beyond that of the last; where there is none, the limit."""
    first = min(map(abs, marks), default=MOST)
    last = min(MOST, BEYOND * abs(marks[-1])) if len(marks) == len(KL_MARKS) else MOST
    steps = math.ceil(math.log(last / first, TEXT_STEP))
    return [sign * first * (last / first) ** (n / max(steps, 1)) for n in range(steps + 1)]


def _breaking(grid: list[float]) -> Search:
    """The smallest strength at which texts are broken, and why; None when none are."""
    found = yield grid
    step = next((n for n, why in enumerate(found) if why), None)
    if step is None:
        return None
    broken, why = grid[step], found[step]
    whole = grid[step - 1] if step else broken / TEXT_STEP
    for _ in range(HALVINGS):
        middle = math.copysign(math.sqrt(whole * broken), broken)
        [because] = yield [middle]
        if because:
            broken, why = middle, because
        else:
            whole = middle
    return broken, why
