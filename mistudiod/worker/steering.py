"""What a loaded model is asked to write, checked and written: steered texts, completions; and useful strengths."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mistudiod.engine.edits import Change
from mistudiod.engine.effects import measure
from mistudiod.engine.lm import NoChat
from mistudiod.engine.strength_range import calibrate as calibrate_feature
from mistudiod.engine.write import NotFinite, Text, write
from mistudiod.specs import Calibrate, Complete, Edit, Steer
from mistudiod.worker import steer_result
from mistudiod.worker.link import Refused
from mistudiod.worker.loaded import MOST_SAES, Loaded, LoadedSae
from mistudiod.worker.maxima import held_out_windows, maxima_of, special_ids
from mistudiod.worker.spelling import Spelling
from mistudiod.worker.steer_rows import rows_that_fit

# how many tokens texts have by now, what is new of which rows, and whether that is the end of them
Heard = Callable[[int, Mapping[int, str], bool], None]


@dataclass(frozen=True)
class Order:
    """What is to be written: the prompt (T,) int64, a list of changes for each text of a sample, and a seed for each
    sample. ``special_ids`` are changed by nothing.
    """

    ids: Tensor
    variants: list[list[Change]]
    seeds: list[int]
    special_ids: set[int]

    @property
    def rows(self) -> int:
        return len(self.seeds) * len(self.variants)

    @property
    def kinds(self) -> list[list[int]]:
        """The numbers of the variants, those together that do the same and are written once. The baseline is first."""
        found: dict[tuple[Change, ...], list[int]] = {}
        for n, variant in enumerate(self.variants):
            found.setdefault(tuple(change for change in variant if not change.does_nothing), []).append(n)
        return list(found.values())


def steer(spec: Steer, loaded: Loaded, rows_at_once: int | None, heard: Heard) -> dict[str, Any]:
    """The result, as ``steer_result`` has it. Raises Refused, and whatever ``heard`` and the link's check raise."""
    loaded.check(loaded.name, spec.precision)
    first = loaded.sae(spec.sae)
    variants = [[], *(changes(edits, spec.sae, loaded) for edits in spec.strengths())]
    order = _order(spec, variants, first, loaded)
    began = time.monotonic()
    limits = [rows for rows in (rows_at_once, spec.rows_at_once) if rows]
    texts, largest = _written(order, spec, loaded, min(limits, default=None), heard)
    seconds = time.monotonic() - began
    measured = _measured(order, texts, loaded, largest)
    return steer_result.made_of(spec, order, texts, measured, loaded, seconds, largest)


def complete(spec: Complete, loaded: Loaded, rows_at_once: int | None, heard: Heard) -> dict[str, Any]:
    """``{"model", "texts": [{"text", "finish", "tokens"}], "prompt_tokens", "completion_tokens", "no_effect"}``: the
    last is null, or why a feature changed nothing in any of the texts. Raises as ``steer``.
    """
    loaded.check(spec.model, spec.precision)
    named = [loaded.sae(edit.sae, f"steering.{n}.sae") for n, edit in enumerate(spec.steering) if edit.sae]
    first = named[0] if named else None
    if spec.shorter:
        room = loaded.lm.facts.context - len(_prompt_ids(spec, first, loaded))
        spec = spec.model_copy(update={"max_tokens": max(1, min(spec.max_tokens, room))})
    order = _order(spec, [changes(spec.steering, None, loaded)], first, loaded)
    texts, _ = _written(order, spec, loaded, rows_at_once, heard, spec.stop)
    shown = [_spelled(text.ids, loaded, spec.stop) for text in texts]
    steer_result.require_room(shown)
    return {
        "model": spec.model,
        "texts": [
            {"text": words, "finish": text.finish, "tokens": len(text.ids)}
            for words, text in zip(shown, texts, strict=True)
        ],
        "prompt_tokens": len(order.ids),
        "completion_tokens": sum(len(text.ids) for text in texts),
        "no_effect": steer_result.no_effect(order, 0, texts),
    }


def calibrate(spec: Calibrate, loaded: Loaded) -> dict[str, Any]:
    """``{"sae", "model", "sae_sha256", "ranges": [{"feature", …}]}``, each as ``engine.strength_range`` has it.

    Raises Refused, and what the link's check raises.
    """
    loaded.check(loaded.name, spec.precision)
    known = loaded.sae(spec.sae)
    edits = [Edit(feature=feature) for feature in spec.features]
    asked = changes(edits, spec.sae, loaded, lambda n: "features")
    if dead := [one.feature for one in asked if not one.maximum > 0]:
        which = ", ".join(map(str, dead))
        raise Refused(f"no strength moves a feature that never fires: leave out {which} of {spec.sae}", "features")
    windows = held_out_windows(spec.sae, known, loaded, "sae")
    ranges = []
    for done, change in enumerate(asked):

        def heard(done: int = done) -> None:
            loaded.link.check()
            loaded.link.progress("calibrate", done, len(asked), "features")

        try:
            found = calibrate_feature(loaded.lm, change, windows, special_ids([known], loaded), heard)
        except ValueError as error:  # one sentence
            raise Refused(str(error), "features") from error
        ranges.append(steer_result.shortened({"feature": change.feature, **found}))
    return {"sae": spec.sae, "model": loaded.name, "sae_sha256": known.sha256, "ranges": ranges}


def changes(
    edits: Sequence[Edit],
    sae: str | None,
    loaded: Loaded,
    at: Callable[[int], str] = "steering.{}".format,
) -> list[Change]:
    """What is done to which feature of which SAE; ``at``: the field of each edit. Raises Refused."""
    if len(names := {edit.sae or sae for edit in edits}) > MOST_SAES:
        raise Refused(f"features of {len(names)} SAEs, and no more than {MOST_SAES} are kept loaded", "steering")
    found = []
    for n, edit in enumerate(edits):
        name = edit.sae or sae
        if name is None:
            raise Refused(f"which SAE has the feature {edit.feature}? Give each edit its sae", f"{at(n)}.sae")
        known = loaded.sae(name, f"{at(n)}.sae" if edit.sae else "sae")
        if edit.feature >= known.sae.d_sae:
            there = f"{name} has features 0 to {known.sae.d_sae - 1}"
            field = at(n) if at(n) == "features" else f"{at(n)}.feature"
            raise Refused(f"{there}; there is no feature {edit.feature}", field)
        trained = known.trained
        maximum = maxima_of(name, known, loaded, "sae")[edit.feature]
        found.append(
            Change(known.sae, name, trained.hook, trained.hook_out, edit.feature, edit.op, edit.strength, maximum,
                   edit.scope)
        )  # fmt: skip
    return found


def _order(spec: Steer | Complete, variants: list[list[Change]], first: LoadedSae | None, loaded: Loaded) -> Order:
    """``first``: the SAE whose training says whether texts begin with BOS. Raises Refused."""
    ids = _prompt_ids(spec, first, loaded)
    context, field = loaded.lm.facts.context, "messages" if spec.messages else "prompt"
    if len(ids) + spec.max_tokens > context:
        raise Refused(
            f"the prompt has {len(ids)} tokens and {spec.max_tokens} are asked for, but {loaded.name} reads only "
            f"{context}: {'shorten the prompt' if len(ids) >= context else 'shorten the prompt or ask for fewer'}",
            field if len(ids) >= context else "max_tokens",
        )
    for n, edit in enumerate(spec.steering):
        if edit.scope.startswith("from:") and int(edit.scope.removeprefix("from:")) >= len(ids):
            raise Refused(
                f"{edit.scope} begins beyond the prompt, whose tokens have the numbers 0 to {len(ids) - 1}: give one "
                "of them, or generated",
                f"steering.{n}.scope",
            )
    used = {change.name: loaded.saes[change.name] for variant in variants for change in variant}
    special = special_ids([*used.values()] or ([first] if first else []), loaded)
    return Order(torch.tensor(ids), variants, [spec.seed + n for n in range(spec.samples)], special)


def _prompt_ids(spec: Steer | Complete, first: LoadedSae | None, loaded: Loaded) -> list[int]:
    """Raises Refused."""
    if spec.messages is None:
        with_bos = first is None or first.sae.metadata.get("prepend_bos") is not False
        ids = loaded.lm.text_ids(spec.prompt or "", with_bos)
    else:
        try:
            ids = loaded.lm.chat_ids([message.model_dump() for message in spec.messages])
        except NoChat as error:
            raise Refused(f"{loaded.name}: {error}", "messages") from error
    if not ids:
        raise Refused("the prompt has no tokens: give some text", "messages" if spec.messages else "prompt")
    return ids


def _written(
    order: Order,
    spec: Steer | Complete,
    loaded: Loaded,
    rows_at_once: int | None,
    heard: Heard,
    stops: Sequence[str] = (),
) -> tuple[list[Text], int]:
    """The texts in their order, and how many were written at once: ``rows_at_once``, fewer where there is no memory
    for so many. Raises Refused.
    """
    found: dict[int, Text] = {}
    written = len(order.seeds) * len(order.kinds)
    largest, fit = 0, rows_that_fit(written, len(order.ids) + spec.max_tokens, loaded)
    for at_once, rows, seeds, variants in _batches(order, min(fit, rows_at_once or fit)):
        spelled = [Spelling(loaded.texts, stops) for _ in rows]
        count = 0

        def one(tokens: Sequence[int | None], rows: list[int] = rows, spelled: list[Spelling] = spelled) -> list[int]:
            nonlocal count
            count += 1
            loaded.link.check()
            new = {row: text.add(token) for row, text, token in zip(rows, spelled, tokens, strict=True)
                   if token is not None}  # fmt: skip
            heard(count, new, False)
            return [n for n, text in enumerate(spelled) if text.stopped]

        try:
            texts = write(loaded.lm, order.ids, variants, seeds, spec, order.special_ids, one)
        except NotFinite as error:
            raise Refused(str(error), "steering") from error
        heard(count, {row: text.end() for row, text in zip(rows, spelled, strict=True)}, True)
        found |= dict(zip(rows, texts, strict=True))
        largest = max(largest, at_once)
    return [found[row] for row in range(order.rows)], largest


def _measured(order: Order, texts: Sequence[Text], loaded: Loaded, rows_at_once: int) -> list[dict[str, Any]]:
    """Of each text; as many are read at once as were written at once, and the baselines of each."""
    found: dict[int, dict[str, Any]] = {}
    each = len(order.variants)

    def heard(read: int) -> None:
        loaded.link.check()
        loaded.link.progress("measure", len(found) + read, len(texts), "texts")

    for _, rows, _, variants in _batches(order, rows_at_once):
        if rows[0] % each:  # some variants of one sample: what they are held against goes with them
            rows, variants = [rows[0] - rows[0] % each, *rows], [[], *variants]
        measured = measure(loaded.lm, order.ids, [texts[row] for row in rows], variants, order.special_ids, heard)
        found |= dict(zip(rows, measured, strict=True))
    return [found[row] for row in range(order.rows)]


def _batches(order: Order, rows_at_once: int) -> Iterator[tuple[int, list[int], list[int], list[list[Change]]]]:
    """What is written at once: how many texts, numbers of their rows, seeds, variants. Rows of a sample stay together
    where they can, and those that do the same always: a strength of 0 is the baseline to the last bit.
    """
    each, kinds = len(order.variants), order.kinds
    samples, some = max(1, rows_at_once // len(kinds)), min(len(kinds), rows_at_once)
    for first in range(0, len(order.seeds), samples):
        seeds = order.seeds[first : first + samples]
        for begin in range(0, len(kinds), some):
            these = kinds[begin : begin + some]
            numbers = sorted(itertools.chain.from_iterable(these))
            rows = [(first + s) * each + v for s in range(len(seeds)) for v in numbers]
            yield len(seeds) * len(these), rows, seeds, [order.variants[v] for v in numbers]


def _spelled(ids: Sequence[int], loaded: Loaded, stops: Sequence[str]) -> str:
    text = Spelling(loaded.texts, stops)
    return "".join([*map(text.add, ids), text.end()])
