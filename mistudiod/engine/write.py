"""Texts that continue a prompt, changed and unchanged, written as one batch on one stream of random numbers.

All rows have the same prompt, so nothing is padded. It goes through the model once for each variant, whose keys and
values all of its samples then begin with. A token is the largest of ln p / temperature + Gumbel noise (Gumbel-max:
Maddison et al. 2014, arXiv:1411.0030), and the noise of a step is the same for all variants of a seed: two rows with
the same distribution take the same token, and differ only where what was changed makes them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor
from transformers import Cache, DynamicCache

from mistudiod.engine.edits import Change, Changing, Effect
from mistudiod.engine.lm import LM, PASS_TOKENS

# told the new token of each row, None where it has ended; may name rows whose texts are to end with that token
Heard = Callable[[Sequence[int | None]], Collection[int] | None]
Finish = Literal["stop", "length"]
# Parameters × tokens of a pass on a CPU that is done by one thread: others would be waited for longer than they help.
# A model of 3.4 million, 6 rows, on two cores: 175 tokens/s a row with one thread and 100 with two; when other programs
# want the cores too, 75 and 6.
ALONE = 3e7
COLDEST = 1e-6  # temperature: what is divided by a smaller one may be more than a float32 holds


class Sampling(Protocol):
    """How tokens are chosen: what a spec says of it."""

    @property
    def max_tokens(self) -> int: ...
    @property
    def temperature(self) -> float: ...
    @property
    def top_p(self) -> float: ...
    @property
    def top_k(self) -> int: ...
    @property
    def repetition_penalty(self) -> float: ...


class NotFinite(ValueError):
    """The model gives no numbers under the changes, said in one sentence."""


@dataclass(frozen=True)
class Text:
    """What was written: ``ids`` without the token that ended it, and what each change of the row has done."""

    ids: list[int]
    finish: Finish
    effects: list[Effect]


@dataclass(frozen=True)
class Prompt:
    """A prompt of ``tokens`` tokens that went through the model under each of some lists of changes."""

    tokens: int
    cache: Cache
    hidden: Tensor  # (lists, d_model), what the head reads of its last token
    effects: list[list[Effect]]  # of each list, of each change

    def rows(self, lists: Sequence[int]) -> Cache:
        """Keys and values for a batch of which each row goes on under one of the lists."""
        cache = copy.copy(self.cache)  # what a layer holds is replaced as it grows, never written into
        cache.layers = [copy.copy(layer) for layer in self.cache.layers]
        cache.batch_select_indices(torch.tensor(lists, device=self.hidden.device))
        return cache


@torch.no_grad()
def write(
    lm: LM,
    ids: Tensor,
    variants: Sequence[Sequence[Change]],
    seeds: Sequence[int],
    sampling: Sampling,
    special_ids: Collection[int],
    heard: Heard,
    stop_ids: Collection[int] = (),
) -> list[Text]:
    """At most ``sampling.max_tokens`` tokens that continue ids (T,) int64, for each seed under each variant in order.

    An empty variant is the model as it is. A text ends at any token with which the model ends, or of ``stop_ids``.
    Variants that do the same are written once. ``heard`` is told every new token, of all rows at once, and may raise to
    end it all. Raises HookDidNotRun, and NotFinite when the model no longer gives numbers.
    """
    doing = [tuple(change for change in variant if not change.does_nothing) for variant in variants]
    lists = list(dict.fromkeys(doing))
    prompt = read_prompt(lm, ids, lists, special_ids)
    rows = [_Row(seed, which) for seed in range(len(seeds)) for which in range(len(lists))]
    shown = [seed * len(lists) + lists.index(one) for seed in range(len(seeds)) for one in doing]
    chooser = _Chooser(lm, sampling, ids, [seeds[row.seed] for row in rows])
    ends = end_ids(lm) | set(stop_ids)
    cache, going = prompt.rows([row.which for row in rows]), list(range(len(rows)))
    hidden = prompt.hidden[[row.which for row in rows]]
    with (
        threads_for(lm, len(rows)),
        Changing(lm, [lists[row.which] for row in rows], special_ids) as changing,
    ):
        for step in range(sampling.max_tokens):
            tokens = chooser.choose(lm.logits(hidden), going)
            for row, token in zip(going, tokens, strict=True):
                rows[row].take(token, ends)
            for number in heard([rows[row].newest for row in shown]) or ():
                rows[shown[number]].finish, rows[shown[number]].newest = "stop", None
            left = [n for n, row in enumerate(going) if rows[row].finish == "length"]
            if not left or step + 1 == sampling.max_tokens:
                break
            if len(left) < len(going):
                going = [going[n] for n in left]
                cache.batch_select_indices(torch.tensor(left, device=lm.device))
                changing.keep(going)
            latest = torch.tensor([[rows[row].ids[-1]] for row in going], device=lm.device)
            changing.at(latest, len(ids) + step, len(ids))
            hidden = read_pass(lm, latest, cache)[:, -1]
            changing.check()  # before any token of it is told
        effects = changing.effects()
    return [_text(rows[row], doing[n % len(doing)], variants[n % len(doing)], effects[row], prompt)
            for n, row in enumerate(shown)]  # fmt: skip


@torch.no_grad()
def read_prompt(lm: LM, ids: Tensor, lists: Sequence[Sequence[Change]], special_ids: Collection[int]) -> Prompt:
    """Pass ids (T,) int64 through the model under each of the lists of changes, side by side, a stretch at a time."""
    batch = ids.to(lm.device).expand(len(lists), -1)
    cache = DynamicCache(config=lm.model.config)
    stretch = max(1, PASS_TOKENS[lm.device.type] // len(lists))
    with threads_for(lm, min(stretch, len(ids)) * len(lists)), Changing(lm, lists, special_ids) as changing:
        for start in range(0, len(ids), stretch):
            part = batch[:, start : start + stretch]
            changing.at(part, start, len(ids))
            hidden = read_pass(lm, part, cache)[:, -1]
        changing.check()
        return Prompt(len(ids), cache, hidden, changing.effects())


@contextmanager
def threads_for(lm: LM, tokens: int) -> Iterator[None]:
    """As many threads as passes of so many tokens are done best by."""
    usual = torch.get_num_threads()
    if lm.device.type == "cpu" and tokens * lm.model.num_parameters() < ALONE:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(usual)


def end_ids(lm: LM) -> set[int]:
    """The tokens with which the model ends a text: what its folder says, and its tokenizer."""
    said = getattr(lm.model.generation_config, "eos_token_id", None)
    found = said if isinstance(said, list) else [said]
    return {one for one in (*found, lm.tokenizer.eos_token_id) if one is not None}


def read_pass(lm: LM, ids: Tensor, cache: Cache) -> Tensor:
    """What the head reads of the tokens ids (B, T), which come after those in the cache: (B, T, d_model)."""
    hidden: Tensor = lm.model.base_model(input_ids=ids, past_key_values=cache, use_cache=True).last_hidden_state
    return hidden


@dataclass
class _Row:
    """A text that is written, of a seed and under a list of changes, by their numbers."""

    seed: int
    which: int
    ids: list[int] = field(default_factory=list)
    newest: int | None = None
    finish: Finish = "length"

    def take(self, token: int, ends: Collection[int]) -> None:
        if token in ends:
            self.finish, self.newest = "stop", None
        else:
            self.ids.append(token)
            self.newest = token


def _text(
    row: _Row, doing: Sequence[Change], variant: Sequence[Change], effects: Sequence[Effect], prompt: Prompt
) -> Text:
    """With the effect of each change of the variant: of those that do nothing none."""
    whole = (one + other for one, other in zip(prompt.effects[row.which], effects, strict=True))
    return Text(row.ids, row.finish, [Effect() if change.does_nothing else next(whole) for change in variant])


class _Chooser:
    """Chooses the next token of each row; rows of one seed have the same noise."""

    def __init__(self, lm: LM, sampling: Sampling, prompt: Tensor, seeds: Sequence[int]) -> None:
        self._sampling, self._seeds = sampling, list(seeds)
        ends = [lm.tokenizer.vocab_size, *(token + 1 for token in lm.tokenizer.added_tokens_decoder)]
        self._known = min(max(ends), lm.facts.vocab_size)  # ids beyond are padding of the embedding
        self._noise = {seed: torch.Generator(lm.device).manual_seed(seed) for seed in seeds}
        self._there: Tensor | None = None  # (rows, known) bool, tokens of the row
        if sampling.repetition_penalty != 1:
            self._there = torch.zeros(len(seeds), self._known, dtype=torch.bool, device=lm.device)
            self._there[:, prompt.to(lm.device)] = True

    def choose(self, logits: Tensor, rows: Sequence[int]) -> list[int]:
        """Of logits (n, vocabulary) float32 a token of each of the rows."""
        largest = logits.amax(1)
        logits = logits[:, : self._known]
        if self._there is not None:
            penalty = self._sampling.repetition_penalty
            penalised = torch.where(logits > 0, logits / penalty, logits * penalty)
            logits = torch.where(self._there[list(rows)], penalised, logits)
        if self._sampling.temperature:
            temperature = max(self._sampling.temperature, COLDEST)
            logits = _likeliest(logits / temperature, self._sampling.top_k, self._sampling.top_p)
            logits = logits + self._gumbel(logits, rows)
        best = logits.argmax(1)
        if self._there is not None:
            self._there[list(rows), best] = True
        numbers: list[list[float]] = torch.stack([best.double(), largest.double()]).tolist()
        if not all(abs(number) < float("inf") for number in numbers[1]):
            raise NotFinite("the model gives no finite numbers with these strengths: lower them")
        return [int(token) for token in numbers[0]]

    def _gumbel(self, logits: Tensor, rows: Sequence[int]) -> Tensor:
        seeds = [self._seeds[row] for row in rows]
        drawn = {seed: torch.rand(logits.shape[1], generator=self._noise[seed], device=logits.device)
                 for seed in dict.fromkeys(seeds)}  # fmt: skip
        order = list(drawn)
        noise = -torch.stack(list(drawn.values())).log().neg_().log_()
        return noise if len(order) == len(rows) else noise[[order.index(seed) for seed in seeds]]


def _likeliest(logits: Tensor, top_k: int, top_p: float) -> Tensor:
    """With -inf for all but the ``top_k`` (0: all) likeliest, and of those as few as have the probability ``top_p``."""
    if top_k:
        least = logits.topk(min(top_k, logits.shape[1])).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if top_p < 1:
        ordered = logits.sort(dim=1, descending=True).values
        p = ordered.softmax(1)
        wanted = p.cumsum(1) - p < top_p
        least = ordered.masked_fill(~wanted, torch.inf).amin(1, keepdim=True)
        logits = logits.masked_fill(logits < least, -torch.inf)
    return logits
