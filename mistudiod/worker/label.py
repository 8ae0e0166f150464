"""Label features: ask an LLM of each what it stands for, or describe it by its tokens without one."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from mistudiod import pages as stores
from mistudiod.labelling import answer, prompt
from mistudiod.labelling.describe import describe
from mistudiod.specs import KEYLESS, Label
from mistudiod.worker.asking import each, run_until_asked
from mistudiod.worker.budget import Budget, BudgetReached
from mistudiod.worker.endpoint import Endpoint
from mistudiod.worker.endpoint_errors import Unanswered, shortened
from mistudiod.worker.link import Link, Refused

BATCH, BATCH_S = 50, 0.5  # labels in one event, and seconds that one may wait
HOPELESS = 20  # so many failures for one reason at the beginning end the job
_REASONS = 20  # that a result names


def run(spec: Label, link: Link) -> None:
    """Labels what ``given.json`` says is still to do. Raises Refused when nobody can be asked."""
    given = link.given()
    pages = _open(spec, link, given["extraction"])
    indices = [one["index"] for one in given["features"]]
    told = _Told(link, spec, given, len(indices))
    told.progress()
    try:
        if spec.endpoint == KEYLESS:
            result = _describe(link, pages, indices, told)
        else:
            result = _ask(spec, link, given, pages, indices, told)
    finally:
        told.flush()
    link.result(result)


def _open(spec: Label, link: Link, extraction: str) -> stores.Pages:
    try:
        return stores.Pages(link.paths.artifact("features", f"{spec.sae}/{extraction}"))
    except (OSError, ValueError) as error:
        raise Refused(f"the features of {spec.sae} cannot be read: {error}", field="sae") from error


def _describe(link: Link, pages: stores.Pages, indices: Sequence[int], told: _Told) -> dict[str, Any]:
    for index in indices:
        link.check()
        try:
            page = _page(pages, index)
        except Unanswered as error:
            told.failed(index, str(error))
        else:
            told.labelled(index, describe(page), {})
        told.tick()
    return told.result()


def _ask(
    spec: Label, link: Link, given: Mapping[str, Any], pages: stores.Pages, indices: Sequence[int], told: _Told
) -> dict[str, Any]:
    template = given["template"]
    try:
        prompt.check(template["text"])
    except ValueError as error:
        raise Refused(f"the template {template['name']}: {error}", field="template") from error
    budget = Budget(spec, given["endpoint"], given.get("used"), link.used)
    endpoint = Endpoint(given["endpoint"], spec, link.secret("endpoint"), budget)
    reached = ""

    async def asking() -> None:
        nonlocal reached
        async with endpoint:
            try:
                await each(indices, spec.concurrency, ask)
            except BudgetReached as budget:
                reached = str(budget)

    async def ask(index: int) -> None:
        try:
            await _ask_of(index, pages, template["text"], endpoint, told)
        except (Unanswered, answer.Unusable) as error:
            told.failed(index, str(error))

    run_until_asked(link, asking(), told.tick)
    return told.result(reached) | budget.counted()


async def _ask_of(index: int, pages: stores.Pages, template: str, endpoint: Endpoint, told: _Told) -> None:
    page = _page(pages, index)
    if page["dead"]:
        raise Unanswered("it never fires: there is nothing to show")
    if not prompt.has_evidence(page):
        raise Unanswered("every text in which it fires is kept for scoring: extract over more tokens")
    messages = prompt.build(page, template)
    said = await endpoint.ask(messages, answer.SCHEMA, answer.TOKENS)
    instructions = "\n".join(message["content"] for message in messages if message["role"] == "system")
    found = answer.parse(said.text, instructions)
    label = {"text": found.label, "explanation": found.explanation, "confidence": found.confidence}
    counted = {"prompt_tokens": said.prompt_tokens, "answer_tokens": said.answer_tokens}
    told.labelled(index, label, {"windows": prompt.shown_windows(page)}, counted)


def _page(pages: stores.Pages, index: int) -> dict[str, Any]:
    """Raises Unanswered when it is damaged."""
    try:
        return pages.page(index)
    except (ValueError, LookupError, TypeError, OSError) as error:
        raise Unanswered(f"its page cannot be read: {shortened(str(error))}") from error


class _Told:
    """What the daemon is told: labels and failures in batches, how far it is, and in the end how it went."""

    def __init__(self, link: Link, spec: Label, given: Mapping[str, Any], total: int) -> None:
        template = given["template"] or {}
        self._link, self._total = link, total
        self._source = {
            "provider": spec.endpoint,
            "model": spec.model,
            "template": template.get("name"),
            "template_sha256": template.get("sha256"),
            "extraction": given["extraction"],
        }
        self._waiting: list[dict[str, Any]] = []
        self._since = time.monotonic()
        self._labelled, self._reasons = 0, Counter[str]()

    @property
    def _failures(self) -> int:
        return self._reasons.total() - self._reasons[answer.UNCLEAR]

    def labelled(
        self, index: int, label: Mapping[str, Any], evidence: Mapping[str, Any], counted: Mapping[str, int] = {}
    ) -> None:
        self._labelled += 1
        self._tell({"feature": index, **label, "evidence": dict(evidence), **counted})

    def failed(self, index: int, reason: str) -> None:
        """Raises Refused when the first ones have all failed for the same reason."""
        self._reasons[reason] += 1
        self._tell({"feature": index, "error": reason})
        if self._reasons[reason] == HOPELESS and reason != answer.UNCLEAR and self._done == HOPELESS:
            raise Refused(f"the first {HOPELESS} features all failed, so the others were not tried: {reason}")

    @property
    def _done(self) -> int:
        return self._labelled + self._reasons.total()

    def _tell(self, one: dict[str, Any]) -> None:
        if not self._waiting:
            self._since = time.monotonic()
        self._waiting.append(one)
        self.tick()

    def tick(self) -> None:
        """Send what has waited long enough, and say how far it is: also while nothing comes, as a sign of life."""
        if len(self._waiting) >= BATCH or time.monotonic() - self._since >= BATCH_S:
            self.flush()
        self.progress()

    def progress(self) -> None:
        self._link.progress("label", self._done, self._total, "features")

    def flush(self) -> None:
        if self._waiting:
            self._link.labels(**self._source, labels=self._waiting)
            self._waiting = []

    def result(self, reached: str = "") -> dict[str, Any]:
        """``reached``: the budget that has ended the job before its end."""
        unclear = self._reasons[answer.UNCLEAR]
        result = {
            "labelled": self._labelled,
            "unclear": unclear,
            "failed": self._failures,
            "reasons": dict(self._reasons.most_common(_REASONS)),
        }
        partial = [self._failed_sentence()] if self._failures else []
        if reached:
            partial.append(f"{reached}; {self._total - self._done} of {self._total} features are left")
        return result | ({"partial": "; ".join(partial)} if partial else {})

    def _failed_sentence(self) -> str:
        reasons = [(reason, n) for reason, n in self._reasons.most_common() if reason != answer.UNCLEAR and n]
        named = ", ".join(f"{reason} ({n})" for reason, n in reasons[:3])
        more = f" and {len(reasons) - 3} other reasons" if len(reasons) > 3 else ""
        return f"{self._failures} of {self._total} features failed: {named}{more}"
