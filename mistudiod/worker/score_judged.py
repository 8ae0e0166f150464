"""Scores of labels by what an LLM believes of their features' texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from mistudiod.labelling.held_out import Drawn
from mistudiod.labelling.judge import ANSWER_TOKENS, Question, Unjudged, beliefs, questions
from mistudiod.labelling.metrics import Measured, Verdict, measure
from mistudiod.pages import Pages
from mistudiod.specs import Score
from mistudiod.worker.asking import each
from mistudiod.worker.budget import Budget, Purse
from mistudiod.worker.endpoint import Endpoint
from mistudiod.worker.endpoint_errors import Unanswered


class Judge:
    """``async with Judge(given, spec, key, budget, pages) as judge``; the first and third as ``Endpoint`` has them."""

    def __init__(self, given: Mapping[str, Any], spec: Score, key: str | None, budget: Budget, pages: Pages) -> None:
        self._endpoint = Endpoint(given, spec, key, budget)
        self._spec, self._pages = spec, pages

    async def __aenter__(self) -> Judge:
        await self._endpoint.__aenter__()
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._endpoint.__aexit__(*raised)

    @asynccontextmanager
    async def about(self, feature: Mapping[str, Any], drawn: Drawn) -> AsyncIterator[Judged]:
        """``feature``: ``{"index", "label", "methods"}``. It begins when there is room for all that is asked about it:
        a score of which a part is missing is none. Raises BudgetReached.
        """
        asked = {}
        for method in sorted({*(feature.get("methods") or self._spec.methods)} - {"tokens"}):
            seed = f"{self._spec.seed}:{feature['index']}:{method}"
            asked[method] = questions(method, feature["label"], drawn, self._pages, seed)
        messages = [one.messages for some in asked.values() for one in some]
        async with self._endpoint.purse(messages, ANSWER_TOKENS) as purse:
            yield Judged(self._endpoint, asked, purse)


class Judged:
    """One feature that is asked about."""

    def __init__(self, endpoint: Endpoint, asked: Mapping[str, Sequence[Question]], purse: Purse) -> None:
        self._endpoint, self._asked, self._purse = endpoint, asked, purse

    async def measured(self, method: str) -> Measured:
        """Raises Unjudged, and what ends the job: BudgetReached, Refused."""
        asked = self._asked[method]
        verdicts: list[Verdict] = []
        reasons: Counter[str] = Counter()

        async def work(question: Question) -> None:
            believed, reason = await self._ask(question)
            verdicts.extend(map(Verdict, believed, question.fires))
            if reason:
                reasons[reason] += len(believed)

        await each(asked, len(asked), work)
        found = measure(verdicts)
        if 2 * found.failed > found.examples:  # such a score would tell of the judge, not of the label
            why = reasons.most_common(1)[0][0] if reasons else "the judge's answers held too few numbers"
            raise Unjudged(why, found.failed)
        return found

    async def _ask(self, question: Question) -> tuple[list[float | None], str | None]:
        try:
            answer = await self._endpoint.ask(question.messages, question.schema, ANSWER_TOKENS, self._purse)
        except Unanswered as error:
            return [None] * len(question.fires), str(error)
        return beliefs(answer.text, len(question.fires))
