"""What changes have done to texts: measured by reading each text anew, with and without them (teacher forcing)."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mistudiod.engine.edits import Change, Changing
from mistudiod.engine.hooks import capture
from mistudiod.engine.latents_of import LatentsOf
from mistudiod.engine.lm import LM, PASS_TOKENS
from mistudiod.engine.write import Prompt, Text, read_pass, read_prompt

GRAM = 4  # tokens in a row that count as a repetition when they come again
Changes = tuple[Change, ...]


@torch.no_grad()
def measure(
    lm: LM,
    prompt_ids: Tensor,
    texts: Sequence[Text],
    variants: Sequence[Sequence[Change]],
    special_ids: Collection[int],
    heard: Callable[[int], None] = lambda _read: None,
) -> list[dict[str, Any]]:
    """Of each text of ``write`` (a row for each seed and variant, in its order) what is measured.

    perplexity: of the text under the unsteered model. repetition: 1 - different 4-grams / 4-grams. activations: of each
    feature that any variant changes ``{"sae", "feature", "mean", "max"}`` over the text's tokens that are not special,
    as the unsteered model reads it. Of a variant with changes also kl_tokens: KL(steered || unsteered) of what comes
    next, in nats, for each token; kl: its mean; changed: the share of tokens that are not, in this order, in the text
    of the first empty variant of the same seed; steered_activations: under the changes and after them, where the SAE
    reads. What cannot be computed is None: of a text without tokens all of it, and what is not finite. ``heard`` is
    told between passes how many texts were read, and may raise to end it all.
    """
    features = _Features([change for variant in variants for change in variant], special_ids)
    doing = [tuple(change for change in variant if not change.does_nothing) for variant in variants]
    rows = [_Row(text.ids, doing[n % len(doing)]) for n, text in enumerate(texts)]
    _read(lm, prompt_ids, [row for row in rows if row.ids], features, special_ids, heard)
    empty = next((n for n, variant in enumerate(variants) if not variant), None)
    found = []
    for n, row in enumerate(rows):
        number = n % len(variants)
        measured: dict[str, Any] = {
            "perplexity": _finite(math.exp(min(sum(row.losses) / len(row.losses), 709))) if row.losses else None,
            "repetition": repetition(row.ids),
            "activations": row.plain or features.on([], {}),
        }
        if variants[number]:
            measured |= {
                "kl": _finite(sum(row.kl) / len(row.kl)) if row.kl else None,
                "kl_tokens": [_finite(kl) for kl in row.kl],
                "changed": None if empty is None else changed(rows[n - number + empty].ids, row.ids),
                "steered_activations": row.steered or features.on([], {}),
            }
        found.append(measured)
    return found


def repetition(ids: Sequence[int]) -> float | None:
    """The share of a text's 4-grams that were there before; None when it has none."""
    grams = [tuple(ids[start : start + GRAM]) for start in range(len(ids) - GRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else None


def changed(baseline: Sequence[int], ids: Sequence[int]) -> float | None:
    """The share of tokens ``ids`` outside their longest common subsequence with the baseline; None when there are none.

    A bit for each token of the baseline, all in one number (Hyyrö 2004, "Bit-parallel LCS-length computation
    revisited"): texts that repeat themselves, as steered ones do, take no longer than others.
    """
    places: dict[int, int] = {}
    for place, token in enumerate(baseline):
        places[token] = places.get(token, 0) | 1 << place
    free = everything = (1 << len(baseline)) - 1
    for token in ids:
        matched = free & places.get(token, 0)
        free = (free + matched | free - matched) & everything
    return 1 - (len(baseline) - free.bit_count()) / len(ids) if ids else None


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


@dataclass
class _Row:
    """A text, what was changed while it was written, and what was found when it was read, a number for each token."""

    ids: list[int]
    doing: Changes
    losses: Sequence[float] = ()  # -ln p, unsteered
    kl: Sequence[float] = ()
    plain: Sequence[dict[str, Any]] = ()  # activations
    steered: Sequence[dict[str, Any]] = ()


class _Features:
    """The features that are changed, and what they do on the tokens of a text."""

    def __init__(self, changes: Sequence[Change], special_ids: Collection[int]) -> None:
        self._special = special_ids
        self._order = list(dict.fromkeys((change.name, change.feature) for change in changes))
        self._of = {change.name: change for change in changes}
        self._features = {name: [f for of, f in self._order if of == name] for name in self._of}
        self._latents = {name: LatentsOf(one.sae, self._features[name]) for name, one in self._of.items()}
        self.hooks = {change.hook for change in changes}

    def on(self, ids: Sequence[int], values: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        """Mean and largest activation of each, with the values (n, d_in) at each hook of the tokens ``ids``."""
        text = [n for n, token in enumerate(ids) if token not in self._special]
        found: dict[tuple[str, int], dict[str, float | None]] = {}
        for name, features in self._features.items() if text else ():
            latents = self._latents[name](values[self._of[name].hook][text])
            columns = zip(latents.mean(0, dtype=torch.float64).tolist(), latents.amax(0).tolist(), strict=True)
            for feature, (mean, largest) in zip(features, columns, strict=True):
                found[name, feature] = {"mean": _finite(mean), "max": _finite(largest)}
        nothing = {"mean": None, "max": None}
        return [{"sae": sae, "feature": n, **found.get((sae, n), nothing)} for sae, n in self._order]


def _read(
    lm: LM,
    prompt_ids: Tensor,
    rows: Sequence[_Row],
    features: _Features,
    special_ids: Collection[int],
    heard: Callable[[int], None],
) -> None:
    """Read the texts of the rows, none of them empty, and tell each row what is found."""
    lists: list[Changes] = list(dict.fromkeys(row.doing for row in rows if row.doing))
    plain = read_prompt(lm, prompt_ids, [()], special_ids)
    steered = read_prompt(lm, prompt_ids, lists, special_ids) if lists else plain
    read = 0
    for some in _batches(rows, PASS_TOKENS[lm.device.type]):
        heard(read)
        read += len(some)
        clean = _forced(lm, plain, [0] * len(some), [()], some, features, special_ids)
        which = [lists.index(row.doing) for row in some if row.doing]
        ones = [row for row in some if row.doing]
        under = iter(_forced(lm, steered, which, lists, ones, features, special_ids) if ones else [])
        for row, (hidden, activations) in zip(some, clean, strict=True):
            other, row.steered = next(under) if row.doing else (hidden, activations)
            row.plain = activations
            row.losses, row.kl = _compared(lm, hidden, other, row.ids)


def _batches(rows: Sequence[_Row], tokens: int) -> Iterator[list[_Row]]:
    """As many rows at once as have ``tokens`` tokens with the padding of the shorter ones, one at least."""
    batch: list[_Row] = []
    for row in rows:
        longest = max(len(one.ids) for one in [*batch, row])
        if batch and longest * (len(batch) + 1) > tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _forced(
    lm: LM,
    prompt: Prompt,
    which: Sequence[int],
    lists: Sequence[Changes],
    rows: Sequence[_Row],
    features: _Features,
    special_ids: Collection[int],
) -> list[tuple[Tensor, list[dict[str, Any]]]]:
    """Of each row, read after the prompt under the list of changes ``which`` says: what the head reads to foretell
    each of its tokens, (n, d_model), and the activations on them."""
    texts = [torch.tensor(row.ids, device=lm.device) for row in rows]
    ids = pad_sequence(texts, batch_first=True)  # with 0: no token of a text sees what comes after it
    with Changing(lm, [lists[n] for n in which], special_ids) as changing, capture(lm.model, features.hooks) as values:
        changing.at(ids, prompt.tokens, prompt.tokens)
        after = read_pass(lm, ids, prompt.rows(which))
        changing.check()
    hidden = torch.cat([prompt.hidden[list(which), None], after[:, :-1]], dim=1)
    return [
        (hidden[n, : len(row.ids)], features.on(row.ids, {hook: x[n, : len(row.ids)] for hook, x in values.items()}))
        for n, row in enumerate(rows)
    ]


def _compared(lm: LM, clean: Tensor, steered: Tensor, ids: Sequence[int]) -> tuple[list[float], list[float]]:
    """Of each token -ln p unsteered, and KL(steered || unsteered) in nats."""
    targets, losses, kls = torch.tensor(ids, device=clean.device), [], []
    for start in range(0, len(ids), lm.logit_rows):
        part = slice(start, start + lm.logit_rows)
        one, other = lm.log_probabilities(steered[part]), lm.log_probabilities(clean[part])
        kls.append((one.exp() * (one - other)).sum(1).clamp_min(0))
        losses.append(-other.gather(1, targets[part, None])[:, 0])
    return torch.cat(losses).tolist(), torch.cat(kls).tolist()
