"""What the questions of one job have used, and when there must be no further one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from mistudiod.labelling.cost import cost_usd, price
from mistudiod.specs.label import Asking
from mistudiod.worker.link import Refused

Tokens = tuple[int, int]  # of questions, and of answers


class BudgetReached(Exception):
    """The next question might pass ``max_cost`` or ``max_tokens``; one sentence."""


class Budget:
    """Counts what is used and what is under way: together they never pass the limits.

    ``used``: ``{"prompt_tokens", "answer_tokens"}`` of the job's earlier workers. ``keep`` is told both numbers
    whenever they grow. Raises Refused when a limit of cost is given and nobody knows the prices.
    """

    def __init__(
        self,
        spec: Asking,
        endpoint: Mapping[str, object],
        used: Mapping[str, int] | None = None,
        keep: Callable[[int, int], None] = lambda _prompt, _answer: None,
    ) -> None:
        self._prices = price(spec, endpoint)
        self._max_cost, self._max_tokens = spec.max_cost, spec.max_tokens
        if spec.max_cost is not None and self._prices is None:
            raise Refused(
                f"nobody knows what {spec.model} of {endpoint['name']} costs, so max_cost cannot be kept: "
                "give price_in and price_out, or max_tokens instead",
                field="max_cost",
            )
        used = used or {}
        self.prompt_tokens, self.answer_tokens = used.get("prompt_tokens", 0), used.get("answer_tokens", 0)
        self._keep = keep
        self._held = [0, 0]  # by questions under way: their guessed tokens, and the most their answers may have
        self._freed = asyncio.Condition()

    @property
    def cost_usd(self) -> float | None:
        """What all answers until now have cost; None when nobody knows the prices."""
        return self._cost(0, 0)

    def counted(self) -> dict[str, float | None]:
        """As a result says it: of all workers of the job together."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "answer_tokens": self.answer_tokens,
            "cost_usd": self.cost_usd,
        }

    async def hold(self, prompt_tokens: int, answer_tokens: int, wait: bool = True) -> None:
        """Make room for a question; wait for those under way when it might be just too much. Raises BudgetReached."""
        async with self._freed:
            while reached := self._passed(prompt_tokens, answer_tokens):
                if not (wait and any(self._held)):
                    raise BudgetReached(reached)
                await self._freed.wait()
            self._held[0] += prompt_tokens
            self._held[1] += answer_tokens

    async def settle(self, held: Tokens, used: Tokens) -> None:
        """What was held for a question is free again; what it used is used."""
        async with self._freed:
            self._held[0] -= held[0]
            self._held[1] -= held[1]
            self.prompt_tokens += used[0]
            self.answer_tokens += used[1]
            self._freed.notify_all()
            if any(used):
                self._keep(self.prompt_tokens, self.answer_tokens)

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


class Purse:
    """Room for several questions that are worth something together only: held before the first of them is asked.

    ``async with Purse(budget, tokens) as purse``; what its questions leave is free at the end. Raises BudgetReached.
    """

    def __init__(self, budget: Budget, tokens: Tokens) -> None:
        self._budget, self._left = budget, tokens

    async def __aenter__(self) -> Purse:
        await self._budget.hold(*self._left)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._budget.settle(self._left, (0, 0))

    async def hold(self, prompt_tokens: int, answer_tokens: int) -> None:
        """Take of it for a question; what it lacks, of the budget, at once or not at all: others may wait for this
        purse. Raises BudgetReached.
        """
        lacks = max(0, prompt_tokens - self._left[0]), max(0, answer_tokens - self._left[1])
        self._left = (self._left[0] + lacks[0] - prompt_tokens, self._left[1] + lacks[1] - answer_tokens)
        try:
            if any(lacks):
                await self._budget.hold(*lacks, wait=False)
        except BaseException:
            self._left = (self._left[0] - lacks[0] + prompt_tokens, self._left[1] - lacks[1] + answer_tokens)
            raise

    async def settle(self, held: Tokens, used: Tokens) -> None:
        """What a question has not used is there for the others."""
        back = max(0, held[0] - used[0]), max(0, held[1] - used[1])
        self._left = (self._left[0] + back[0], self._left[1] + back[1])
        await self._budget.settle((held[0] - back[0], held[1] - back[1]), used)


class Tries:
    """What one question uses, all its tries together, of a budget or a purse: ``begin``, then ``sends`` before each
    request, ``has_sent`` when the connection stands, ``answers`` with its status, and ``end``.

    What a try without an answer has used nobody says. One that the server has refused counts nothing, one at which it
    failed its question, and one of which nothing or only a part came back all that its answer could have had.
    """

    def __init__(self, room: Budget | Purse, tokens: Tokens) -> None:
        self._room, self._tokens = room, tokens
        self._holds = self._sent = False
        self._status: int | None = None

    async def begin(self) -> None:
        await self._room.hold(*self._tokens)
        self._holds = True

    async def sends(self) -> None:
        """Raises BudgetReached when there is no room for one try more."""
        lost = self._lost()
        self._sent, self._status = False, None
        if any(lost):
            self._holds = False
            await self._room.settle(self._tokens, lost)
            await self.begin()

    def has_sent(self) -> None:
        self._sent = True

    def answers(self, status: int) -> None:
        self._status = status

    async def end(self, used: Tokens | None) -> None:
        """``used`` as an answer says it; None: there is none."""
        if self._holds:
            self._holds = False
            await self._room.settle(self._tokens, used or self._lost())

    def _lost(self) -> Tokens:
        if not self._sent:
            return 0, 0
        if self._status is None or self._status < 300:
            return self._tokens
        return (self._tokens[0], 0) if self._status >= 500 or self._status == 408 else (0, 0)
