"""What the questions of one job have used, and when there must be no further one."""

from __future__ import annotations

import asyncio

from mistudiod.labelling.cost import cost_usd, price
from mistudiod.specs.label import Asking
from mistudiod.worker.link import Refused


class BudgetReached(Exception):
    """The next question might pass ``max_cost`` or ``max_tokens``; one sentence."""


class Budget:
    """Counts what is used and what is under way: together they never pass the limits.

    Raises Refused when a limit of cost is given and nobody knows the prices.
    """

    def __init__(self, spec: Asking, endpoint: dict[str, object]) -> None:
        self._prices = price(spec, endpoint)
        self._max_cost, self._max_tokens = spec.max_cost, spec.max_tokens
        if spec.max_cost is not None and self._prices is None:
            raise Refused(
                f"nobody knows what {spec.model} of {endpoint['name']} costs, so max_cost cannot be kept: "
                "give price_in and price_out, or max_tokens instead",
                field="max_cost",
            )
        self.prompt_tokens = self.answer_tokens = 0
        self._held = [0, 0]  # by questions under way: their guessed tokens, and the most their answers may have
        self._freed = asyncio.Condition()

    @property
    def cost_usd(self) -> float | None:
        """What all answers until now have cost; None when nobody knows the prices."""
        return self._cost(0, 0)

    async def hold(self, prompt_tokens: int, answer_tokens: int) -> None:
        """Make room for a question; wait for those under way when it might be just too much. Raises BudgetReached."""
        async with self._freed:
            while reached := self._passed(prompt_tokens, answer_tokens):
                if not any(self._held):
                    raise BudgetReached(reached)
                await self._freed.wait()
            self._held[0] += prompt_tokens
            self._held[1] += answer_tokens

    async def settle(self, held: tuple[int, int], used: tuple[int, int]) -> None:
        """What was held for a question is free again; what it used is used."""
        async with self._freed:
            self._held[0] -= held[0]
            self._held[1] -= held[1]
            self.prompt_tokens += used[0]
            self.answer_tokens += used[1]
            self._freed.notify_all()

    def _passed(self, prompt_tokens: int, answer_tokens: int) -> str:
        prompt, answer = self._held[0] + prompt_tokens, self._held[1] + answer_tokens
        tokens = self.prompt_tokens + self.answer_tokens + prompt + answer
        if self._max_tokens is not None and tokens > self._max_tokens:
            used = self.prompt_tokens + self.answer_tokens
            return f"max_tokens is reached: {used:,} of {self._max_tokens:,} are used, the next question might pass it"
        cost = self._cost(prompt, answer)
        if self._max_cost is not None and cost is not None and cost > self._max_cost:
            used_usd = self._cost(0, 0)
            return f"max_cost is reached: US$ {used_usd:.4f} are spent, the next question might pass {self._max_cost:g}"
        return ""

    def _cost(self, prompt: int, answer: int) -> float | None:
        if self._prices is None:
            return None
        return cost_usd(self._prices, self.prompt_tokens + prompt, self.answer_tokens + answer)
