"""Find out how well labels tell where their features fire, on windows that they were not made from."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from mistudiod.labelling.held_out import Drawn, HeldOut, TooFew
from mistudiod.labelling.judge import ANSWER_TOKENS, Question, beliefs, questions
from mistudiod.labelling.keyless import Keyless
from mistudiod.labelling.metrics import Estimate, Measured, Verdict, mean, measure
from mistudiod.pages import Pages
from mistudiod.specs import Score
from mistudiod.worker.asking import each, run_until_asked
from mistudiod.worker.budget import BudgetReached
from mistudiod.worker.endpoint import Endpoint
from mistudiod.worker.endpoint_errors import Unanswered
from mistudiod.worker.link import Link, Refused

GOOD = 0.7  # a balanced accuracy above which a label is worth something
_BATCH = 50  # scores of one line
_REASONS_SHOWN = 3
Feature = Mapping[str, Any]  # {"index", "label": {"id", "text", "explanation"} or None}


class Failed(Exception):
    """A feature has no score by a method: why."""


def run(spec: Score, link: Link) -> None:
    """Send the scores of all features that are given, and as result what they come to.

    Raises Refused when the extraction cannot be read, or the endpoint will answer nothing at all.
    """
    given = link.given()
    scoring = Scoring(spec, link, given)
    try:
        run_until_asked(link, scoring.all(given["features"]), every=scoring.send)
    except BudgetReached as reached:
        scoring.reached = str(reached)
    link.result(scoring.result(len(given["features"])))


class Scoring:
    """The scores of one job. ``reached``: the sentence of the budget that ended it early."""

    def __init__(self, spec: Score, link: Link, given: Mapping[str, Any]) -> None:
        self._spec, self._link, self._given = spec, link, given
        self._pages = _open(spec.sae, given["extraction"], link)
        self._held = HeldOut(self._pages, spec.seed, _special_ids(self._pages, link))
        self._keyless = Keyless(self._pages)
        self._endpoint: Endpoint | None = None
        self._waiting: list[dict[str, Any]] = []
        self._found: dict[str, list[Measured]] = {method: [] for method in spec.methods}
        self._reasons: Counter[str] = Counter()
        self._done = self._failed = 0
        self.reached = ""

    async def all(self, features: Sequence[Feature]) -> None:
        """Raises BudgetReached, Refused."""
        judged = set(self._spec.methods) - {"tokens"}
        async with AsyncExitStack() as stack:
            if judged:
                self._endpoint = Endpoint(self._given["endpoint"], self._spec, self._link.secret("endpoint"))
                await stack.enter_async_context(self._endpoint)

            async def work(feature: Feature) -> None:
                await asyncio.sleep(0)  # the daemon's wish to end it is looked for between features
                await self._feature(feature)
                self._done += 1
                self._link.progress("score", self._done, len(features), "features")

            await each(features, self._spec.concurrency if judged else 1, work)

    async def _feature(self, feature: Feature) -> None:
        try:
            if feature["label"] is None:
                raise Failed("it has no label")
            drawn = self._held.draw(feature["index"], self._spec.examples)
        except (Failed, TooFew) as failed:
            self._failed += 1
            self._reasons[str(failed)] += 1
            return
        reasons = []
        for method in self._spec.methods:
            try:
                measured = await self._by(method, feature, drawn)
            except Failed as failed:
                reasons.append(f"{method}: {failed}")
                continue
            self._found[method].append(measured)
            judge = None if method == "tokens" else self._spec.model
            about = {"feature": feature["index"], "label": feature["label"]["id"], "method": method, "judge": judge}
            self._waiting.append({**about, **measured.record()})
        self._failed += bool(reasons)
        self._reasons.update(reasons)

    async def _by(self, method: str, feature: Feature, drawn: Drawn) -> Measured:
        if method == "tokens":
            return self._keyless.score(feature["label"], drawn)
        asked = questions(
            method, feature["label"], drawn, self._pages, f"{self._spec.seed}:{feature['index']}:{method}"
        )
        verdicts: list[Verdict] = []
        reasons: Counter[str] = Counter()

        async def work(question: Question) -> None:
            believed, reason = await self._ask(question)
            verdicts.extend(map(Verdict, believed, question.fires))
            if reason:
                reasons[reason] += len(believed)

        await each(asked, len(asked), work)
        measured = measure(verdicts)
        if 2 * measured.failed > measured.examples:  # it would tell of the judge, not of the label
            raise Failed(reasons.most_common(1)[0][0] if reasons else "the judge's answers held too few numbers")
        return measured

    async def _ask(self, question: Question) -> tuple[list[float | None], str | None]:
        assert self._endpoint is not None
        try:
            answer = await self._endpoint.ask(question.messages, question.schema, ANSWER_TOKENS)
        except Unanswered as error:
            return [None] * len(question.fires), str(error)
        return beliefs(answer.text, len(question.fires))

    def send(self) -> None:
        """What has been found since the last time."""
        waiting, self._waiting = self._waiting, []
        for at in range(0, len(waiting), _BATCH):
            self._link.scores(self._given["extraction"], waiting[at : at + _BATCH])

    def result(self, features: int) -> dict[str, Any]:
        used = self._endpoint.used if self._endpoint else None
        found: dict[str, Any] = {
            "scored": self._done - self._failed,
            "failed": self._failed,
            "reasons": dict(self._reasons.most_common()),
            "methods": {method: _worth(scores) for method, scores in self._found.items() if scores},
            "prompt_tokens": used.prompt_tokens if used else 0,
            "answer_tokens": used.answer_tokens if used else 0,
            "cost_usd": used.cost_usd if used else 0.0,
        }
        if self.reached:
            left = features - self._done
            found["partial"] = f"{self.reached}; {left} of {features} features are left"
        elif self._failed:
            why = "; ".join(f"{reason} ({count})" for reason, count in self._reasons.most_common(_REASONS_SHOWN))
            found["partial"] = f"{self._failed} of {features} features failed: {why}"
        return found


def _worth(scores: Sequence[Measured]) -> dict[str, Any]:
    """What labels are worth as a set. ``failed``: examples without a usable answer of the judge."""
    accuracies: list[Estimate] = [one.accuracy for one in scores]
    over = mean(accuracies)
    return {
        "mean": over.value,
        "low": over.low,
        "high": over.high,
        "features": len(scores),
        "share_above_0_7": sum(one.value > GOOD for one in accuracies) / len(scores),
        "failed": sum(one.failed for one in scores),
    }


def _open(sae: str, extraction: str, link: Link) -> Pages:
    try:
        return Pages(link.paths.artifact("features", f"{sae}/{extraction}"))
    except ValueError as error:
        raise Refused(str(error), "sae") from error


def _special_ids(pages: Pages, link: Link) -> list[int]:
    """Of tokens that are no text; none when the tokenization is not here any more."""
    folder = link.paths.artifact("tokenization", pages.manifest["tokenization"])
    try:
        found: list[int] = json.loads((folder / "tokenization.json").read_text(encoding="utf-8"))["special_ids"]
    except (OSError, ValueError, KeyError):
        return []
    return found
