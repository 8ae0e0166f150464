"""Scores of labels by what an LLM believes of their features' texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from mistudiod.labelling.held_out import Drawn
from mistudiod.labelling.judge import ANSWER_TOKENS, Question, Unjudged, beliefs, questions
from mistudiod.labelling.metrics import Measured, Verdict, measure
from mistudiod.pages import Pages
from mistudiod.specs import Score
from mistudiod.worker.asking import each
from mistudiod.worker.budget import Budget
from mistudiod.worker.endpoint import Endpoint
from mistudiod.worker.endpoint_errors import Unanswered


class Judge:
    """``async with Judge(given, spec, key, pages) as judge``; ``given`` and ``key`` as ``Endpoint`` has them.

    ``used`` is what its answers have taken until now.
    """

    def __init__(self, given: Mapping[str, Any], spec: Score, key: str | None, pages: Pages) -> None:
        self._endpoint = Endpoint(given, spec, key)
        self._spec, self._pages = spec, pages

    @property
    def used(self) -> Budget:
        return self._endpoint.used

    async def __aenter__(self) -> Judge:
        await self._endpoint.__aenter__()
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._endpoint.__aexit__(*raised)

    async def measured(self, method: str, feature: Mapping[str, Any], drawn: Drawn) -> Measured:
        """``feature``: ``{"index", "label"}``. Raises Unjudged, and what ends the job: BudgetReached, Refused."""
        seed = f"{self._spec.seed}:{feature['index']}:{method}"
        asked = questions(method, feature["label"], drawn, self._pages, seed)
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
            raise Unjudged(reasons.most_common(1)[0][0] if reasons else "the judge's answers held too few numbers")
        return found

    async def _ask(self, question: Question) -> tuple[list[float | None], str | None]:
        try:
            answer = await self._endpoint.ask(question.messages, question.schema, ANSWER_TOKENS)
        except Unanswered as error:
            return [None] * len(question.fires), str(error)
        return beliefs(answer.text, len(question.fires))
