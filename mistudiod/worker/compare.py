"""Measure SAEs of one model on the same held-out text, and match their features."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from mistudiod.engine.by_document import Bootstrap, LossSums, Sums, without_empty
from mistudiod.engine.certify import Body
from mistudiod.engine.comparison import Differences, Measured, differences, estimate, together, verdict
from mistudiod.engine.document_sums import measured, rebuilding
from mistudiod.engine.matching import Side, matching, moved
from mistudiod.engine.measure import Measures, density_histogram
from mistudiod.specs import Compare
from mistudiod.worker.compare_text import Shared, windows_of
from mistudiod.worker.held_out_text import body_of, check_hooks, find_text
from mistudiod.worker.link import Link, Refused
from mistudiod.worker.sae_at import FIELD, SaeAt, lineage, open_sae_at
from mistudiod.worker.trained import load

T = TypeVar("T")


def run(spec: Compare, link: Link) -> None:
    """The result is all that is made. Raises Refused, Asked."""
    link.result(_Comparison(spec, link).result())


class _Comparison:
    """SAEs are loaded one after another, of a pair only the decoders are in memory at the same time."""

    def __init__(self, spec: Compare, link: Link) -> None:
        self._spec, self._link, self._began = spec, link, time.monotonic()
        self._saes = [open_sae_at(called, link) for called in spec.saes]
        self._notes: list[str] = []
        self._check_models()
        first = self._saes[0].known
        self._text = _of_field(lambda: find_text(spec.tokenization, first, link))
        for one in self._saes:
            _of_field(lambda one=one: check_hooks(one.called, one.known, one.d_in, one.d_out))  # type: ignore[misc]
        fields = FIELD, FIELD
        self._lm = load(Path(first.model["path"]), first.device, first.precision, None, link, fields)
        self._link.progress("read the text", 0, spec.tokens, "tokens")
        self._read = self._as_read()
        self._shared: dict[bool, Shared] = {}
        self._measures: dict[str, Measures] = {}
        self._found: list[Measured] = []
        try:
            self._measure()
        except ValueError as error:
            raise Refused(f"{error}", FIELD) from error

    def result(self) -> dict[str, object]:
        names = [one.called for one in self._saes]
        sums: list[Sums] = without_empty(*(one.sums for one in self._found))
        losses: list[LossSums] = without_empty(*(one.losses for one in self._found))
        self._found = [
            replace(one, sums=of_tokens, losses=of_losses)
            for one, of_tokens, of_losses in zip(self._found, sums, losses, strict=True)
        ]
        self._of_tokens, self._of_losses = Bootstrap(len(sums[0].tokens)), Bootstrap(len(losses[0].tokens))
        saes = [self._about(number) for number in range(len(names))]
        pairs, told = [], dict[tuple[str, str], Differences]()
        matched = self._matched()
        for a, b in itertools.combinations(range(len(names)), 2):
            pair = self._pair(a, b, saes[a]["figures"]["l0"]["value"], saes[b]["figures"]["l0"]["value"])
            told[names[a], names[b]] = pair["differences"]
            pairs.append(pair | matched[a, b])
        documents = self._shared[self._read[0][1]].documents
        return {
            "saes": saes,
            "pairs": pairs,
            "verdict": together(names, told),
            "notes": self._notes,
            "model": self._saes[0].known.model["name"],
            "tokenization": self._text.name,
            "tokens": int(sums[0].tokens.sum()),
            "ce_tokens": int(losses[0].tokens.sum()),
            "documents": documents.documents,
            "unit": documents.unit,
            "device": self._saes[0].known.device.type,
            "precision": self._saes[0].known.precision,
            "seconds": time.monotonic() - self._began,
        }

    def _check_models(self) -> None:
        """Raises Refused where they are of different models."""
        first = self._saes[0]
        for one in self._saes[1:]:
            ours, theirs = first.known.model["name"], one.known.model["name"]
            if ours != theirs:
                raise Refused(
                    f"{first.called} is of {ours} and {one.called} of {theirs}: only SAEs of one model can be compared",
                    FIELD,
                )
            if first.known.precision != one.known.precision:
                self._notes.append(
                    f"{one.called} was trained on activations in {one.known.precision}; here the model is in "
                    f"{first.known.precision}"
                )

    def _as_read(self) -> list[tuple[Body, bool]]:
        """Of each the windows as it reads them, with BOS or without."""
        read = [
            body_of(self._text, self._lm, (one.config.get("metadata") or {}).get("prepend_bos")) for one in self._saes
        ]
        if len({bos for _, bos in read}) > 1:
            led = [one.called for one, (_, bos) in zip(self._saes, read, strict=True) if bos]
            self._notes.append(f"{', '.join(led)} read the text with BOS in front of it, the others without")
        return read

    def _measure(self) -> None:
        numbers, tokens = windows_of(self._text, self._read[0][0], self._spec.tokens)
        mixed, width = len({bos for _, bos in self._read}) > 1, max(one.d_out for one in self._saes)
        for bos in dict.fromkeys(bos for _, bos in self._read):
            body = next(body for body, other in self._read if other == bos)
            of_it = [one for one, (_, other) in zip(self._saes, self._read, strict=True) if other == bos]
            self._shared[bos] = Shared(of_it, body, bos, self._text, numbers, tokens, width, self._lm, self._link)
        for one, (_, bos) in zip(self._saes, self._read, strict=True):
            shared = self._shared[bos]
            try:
                self._found.append(self._measured(one, shared, f" {'with' if bos else 'without'} BOS" if mixed else ""))
            except ValueError as error:
                raise Refused(f"{one.called} on {self._text.name}: {error}", FIELD) from error

    def _measured(self, one: SaeAt, shared: Shared, read: str) -> Measured:
        sae = one.load()
        if one.lacks_threshold:
            sae, tokens = shared.with_threshold(one, sae)
            k = one.known.recipe["k"]
            self._notes.append(
                f"{one.called}: its threshold was chosen for an L0 of {k} on {tokens:,} held-out tokens, as at the end "
                "of a training"
            )

        def heard(came: int) -> None:
            self._link.check()
            self._link.progress(f"measure {one.called}", min(came, shared.tokens), shared.tokens, "tokens")

        found = measured(sae, shared.text_of(one), heard)
        _, losses = shared.splice.loss_by_document(one.hook, rebuilding(sae), one.hook_out)
        self._measures[one.called] = found.measures
        sums, rebuilds = found.sums, one.hook_out + read
        for other in self._found:
            if other.rebuilds == rebuilds:  # of the same values: one copy of their sums is enough, both of one shift
                sums = replace(sums, squares=other.sums.squares, about=other.sums.about)
                break
        return Measured(one.called, rebuilds, sums, losses)

    def _about(self, number: int) -> dict[str, Any]:
        """One SAE, JSON-ready."""
        one, found = self._saes[number], self._found[number]
        measures, recipe = self._measures[one.called], one.known.recipe
        figures = {name: estimate(figure, self._of_tokens) for name, figure in found.sums.figures().items()}
        figures |= {name: estimate(figure, self._of_losses) for name, figure in found.losses.figures().items()}
        figures |= {name: {"value": getattr(measures, name), "interval": None} for name in ("alive", "dense")}
        return {
            "sae": one.called,
            "name": one.name,
            "step": one.step,
            "hook": one.hook,
            "hook_out": one.hook_out,
            "architecture": recipe.get("architecture"),
            "width": one.width,
            "k": recipe.get("k"),
            "figures": figures,
            "density": density_histogram(measures.fired, measures.tokens),
        }

    def _pair(self, a: int, b: int, l0_a: float, l0_b: float) -> dict[str, Any]:
        one, other = self._found[a], self._found[b]
        found = differences(one, other, self._of_tokens, self._of_losses)
        return {
            "a": one.name,
            "b": other.name,
            "differences": found,
            "verdict": verdict(one, other, (l0_a, l0_b), found, self._of_tokens.units),
        }

    def _matched(self) -> dict[tuple[int, int], dict[str, Any]]:
        """Of each pair ``matching``, ``moved`` and ``unmatched_because``."""
        found: dict[tuple[int, int], dict[str, Any]] = {}
        pairs = list(itertools.combinations(range(len(self._saes)), 2))
        total = sum(self._saes[a].width for a, _ in pairs)
        done = 0
        for a, some in itertools.groupby(pairs, key=lambda pair: pair[0]):
            one = self._side(a)
            for _, b in some:
                found[a, b] = self._match(a, b, one, lambda rows, done=done: self._heard(done + rows, total))  # type: ignore[misc]
                done += self._saes[a].width
        return found

    def _match(self, a: int, b: int, one: Side, heard: Callable[[int], None]) -> dict[str, Any]:
        ours, theirs = self._saes[a], self._saes[b]
        if ours.d_out != theirs.d_out:
            why = (
                f"their features cannot be matched: {ours.called} writes {ours.d_out} numbers at "
                f"{ours.hook_out}, {theirs.called} {theirs.d_out} at {theirs.hook_out}"
            )
            return {"matching": None, "moved": None, "unmatched_because": why}
        other, kind = self._side(b), lineage(ours, theirs)
        row_by_row = moved(one, other) | {"lineage": kind} if kind else None
        return {"matching": matching(one, other, heard), "moved": row_by_row, "unmatched_because": None}

    def _side(self, number: int) -> Side:
        one = self._saes[number]
        measures = self._measures[one.called]
        return Side(one.load().W_dec, measures.fired.double().cpu() / measures.tokens)

    def _heard(self, done: int, total: int) -> None:
        self._link.check()
        self._link.progress("match features", done, total, "features")


def _of_field(ask: Callable[[], T]) -> T:
    """What certifying refuses of its ``sae`` is refused of one of ``saes``."""
    try:
        return ask()
    except Refused as refused:
        raise Refused(str(refused), FIELD if refused.field == "sae" else refused.field) from refused
