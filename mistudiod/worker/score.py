"""Find out how well labels tell where their features fire, on windows that they were not made from."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mistudiod.labelling.held_out import Drawn, HeldOut, TooFew
from mistudiod.labelling.judge import Unjudged
from mistudiod.labelling.keyless import Keyless
from mistudiod.labelling.metrics import Measured, mean
from mistudiod.pages import Pages
from mistudiod.specs import Score
from mistudiod.worker.asking import each, run_until_asked
from mistudiod.worker.budget import Budget, BudgetReached
from mistudiod.worker.link import Link, Refused

if TYPE_CHECKING:
    from mistudiod.worker.score_judged import Judge, Judged

GOOD = 0.7  # a balanced accuracy above which a label is worth something
BATCH, BATCH_S = 50, 0.5  # scores in one event, and seconds that one may wait
HOPELESS = 20  # so many features at the beginning that a judge has failed for one reason end the job
_REASONS = 20  # that a result names
_REASONS_SAID = 3
# {"index", "label": {"id", "text", "explanation"} or None, "methods"?: those that are left; without, all of the spec's}
Feature = Mapping[str, Any]


def run(spec: Score, link: Link) -> None:
    """Send the scores of the features that ``given.json`` names, and as result what they come to.

    Raises Refused when the extraction cannot be read, or the endpoint will answer nothing of use.
    """
    given = link.given()
    told = _Told(spec, link, given["extraction"], len(given["features"]))
    scoring = _Scoring(spec, link, given, told)
    told.tick()
    try:
        run_until_asked(link, scoring.run(), told.tick)
    finally:
        told.flush()
    link.result(told.result(scoring.reached) | scoring.used())


class _Scoring:
    """``reached``: the sentence of the budget that has ended it before its end."""

    def __init__(self, spec: Score, link: Link, given: Mapping[str, Any], told: _Told) -> None:
        self._spec, self._link, self._given, self._told = spec, link, given, told
        self._pages = _open(spec.sae, given["extraction"], link)
        self._held = HeldOut(self._pages, spec.seed, _special_ids(self._pages, link))
        self._keyless = Keyless(self._pages)
        self._judge: Judge | None = None
        self._budget: Budget | None = None
        self.reached = ""

    async def run(self) -> None:
        """Raises Refused."""
        features = self._given["features"]
        if set(self._spec.methods) == {"tokens"}:
            return await each(features, 1, self._score)
        from mistudiod.worker.score_judged import Judge  # needs seconds, and a package that no other score does

        key, endpoint = self._link.secret("endpoint"), self._given["endpoint"]
        self._budget = Budget(self._spec, endpoint, self._given.get("used"), self._link.used)
        async with Judge(endpoint, self._spec, key, self._budget, self._pages) as self._judge:
            await each(features, self._spec.concurrency, self._score_within)

    async def _score_within(self, feature: Feature) -> None:
        """Nothing when the budget is reached; what has begun by then comes to its end, for its answers are paid."""
        if not self.reached:
            try:
                await self._score(feature)
            except BudgetReached as reached:
                self.reached = str(reached)

    async def _score(self, feature: Feature) -> None:
        await asyncio.sleep(0)  # whether the daemon wants an end is seen between features
        try:
            if feature["label"] is None:
                raise TooFew("it has no label")
            drawn = self._held.draw(feature["index"], self._spec.examples)
        except TooFew as why:
            self._told.unscored(str(why))
            return
        except (ValueError, LookupError, TypeError, OSError) as error:  # its page is damaged
            self._told.done([str(error)])
            return
        if self._judge is None:
            return await self._measure(feature, drawn, None)
        async with self._judge.about(feature, drawn) as judged:
            await self._measure(feature, drawn, judged)

    async def _measure(self, feature: Feature, drawn: Drawn, judged: Judged | None) -> None:
        failures = []
        for method in feature.get("methods") or dict.fromkeys(self._spec.methods):
            try:
                if judged is None or method == "tokens":
                    measured = self._keyless.score(feature["label"], drawn)
                else:
                    measured = await judged.measured(method)
            except Unjudged as failed:
                failures.append(f"{method}: {failed}")
                self._told.unjudged(method, failed.failed)
            else:
                self._told.scored(feature, method, measured)
        self._told.done(failures)

    def used(self) -> dict[str, Any]:
        return self._budget.counted() if self._budget else {"prompt_tokens": 0, "answer_tokens": 0, "cost_usd": 0.0}


class _Told:
    """What the daemon is told: scores in batches, how far it is, and in the end how it went."""

    def __init__(self, spec: Score, link: Link, extraction: str, total: int) -> None:
        self._spec, self._link, self._extraction, self._total = spec, link, extraction, total
        self._waiting: list[dict[str, Any]] = []
        self._since = time.monotonic()
        self._found: dict[str, list[Measured]] = {}
        self._unjudged: Counter[str] = Counter()  # examples of each method, of features that it gave no score
        self._scored = self._failed = self._unscored = 0
        self._reasons: Counter[str] = Counter()  # of both
        self._failures: Counter[str] = Counter()

    def scored(self, feature: Feature, method: str, measured: Measured) -> None:
        self._found.setdefault(method, []).append(measured)
        about = {"feature": feature["index"], "label": feature["label"]["id"], "method": method}
        judge = None if method == "tokens" else self._spec.model
        self._waiting.append({**about, "judge": judge, **measured.record()})

    def unjudged(self, method: str, examples: int) -> None:
        self._unjudged[method] += examples

    def unscored(self, why: str) -> None:
        """One feature more, of which the text says too little to judge its label: no failure of the job."""
        self._unscored += 1
        self._reasons[why] += 1
        self.tick()

    def done(self, failures: Sequence[str]) -> None:
        """One feature more. Raises Refused when a judge has failed all the first ones for the same reason."""
        self._scored += not failures
        self._failed += bool(failures)
        self._reasons.update(failures)
        self._failures.update(failures)
        judged = set(self._spec.methods) - {"tokens"}
        if judged and self._scored == 0 and self._failed == HOPELESS and set(self._found) <= {"tokens"}:
            reason, count = self._failures.most_common(1)[0]
            if count == HOPELESS:
                raise Refused(f"the first {HOPELESS} features all failed, so the others were not tried: {reason}")
        self.tick()

    def tick(self) -> None:
        """Send what has waited long enough, and say how far it is: also while nothing comes, as a sign of life."""
        if len(self._waiting) >= BATCH or time.monotonic() - self._since >= BATCH_S:
            self.flush()
        self._link.progress("score", self._tried, self._total, "features")

    @property
    def _tried(self) -> int:
        return self._scored + self._failed + self._unscored

    def flush(self) -> None:
        waiting, self._waiting, self._since = self._waiting, [], time.monotonic()
        for at in range(0, len(waiting), BATCH):
            self._link.scores(extraction=self._extraction, scores=waiting[at : at + BATCH])

    def result(self, reached: str) -> dict[str, Any]:
        result = {
            "scored": self._scored,
            "unscored": self._unscored,
            "failed": self._failed,
            "reasons": dict(self._reasons.most_common(_REASONS)),
            "methods": {method: _worth(scores, self._unjudged[method]) for method, scores in self._found.items()},
        }
        partial = [self._failed_sentence()] if self._failed else []
        if reached:
            left = self._total - self._tried
            partial.append(f"{reached}; {left} of {self._total} features are left")
        return result | ({"partial": "; ".join(partial)} if partial else {})

    def _failed_sentence(self) -> str:
        said = self._failures.most_common(_REASONS_SAID)
        more = len(self._failures) - len(said)
        named = ", ".join(f"{reason} ({count})" for reason, count in said) + (
            f" and {more} other reasons" if more else ""
        )
        return f"{self._failed} of {self._total} features failed: {named}"


def _worth(scores: Sequence[Measured], unjudged: int) -> dict[str, Any]:
    """What labels are worth as a set. ``failed``: examples without a usable answer of the judge, with those of features
    of which so many were ``unjudged`` that they have no score.
    """
    accuracies = [one.accuracy for one in scores]
    over = mean(accuracies)
    return {
        "mean": over.value,
        "low": over.low,
        "high": over.high,
        "features": len(scores),
        "share_above_0_7": sum(one.value > GOOD for one in accuracies) / len(scores),
        "failed": sum(one.failed for one in scores) + unjudged,
    }


def _open(sae: str, extraction: str, link: Link) -> Pages:
    try:
        return Pages(link.paths.artifact("features", f"{sae}/{extraction}"))
    except (OSError, ValueError) as error:
        raise Refused(f"the features of {sae} cannot be read: {error}", "sae") from error


def _special_ids(pages: Pages, link: Link) -> list[int]:
    """Of tokens that are no text; none when the tokenization is not here any more."""
    folder = link.paths.artifact("tokenization", pages.manifest["tokenization"])
    try:
        found: list[int] = json.loads((folder / "tokenization.json").read_text(encoding="utf-8"))["special_ids"]
    except (OSError, ValueError, KeyError):
        return []
    return found
