"""What the features of an SAE are called, what that is worth, and what a person has marked.

Kept by SAE and feature in the database, and nowhere else: a new extraction changes nothing of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from mistudiod import label_exchange, label_search, label_statements, label_summary, label_todo
from mistudiod.database import Database
from mistudiod.label_statements import Label
from mistudiod.specs import Label as LabelSpec
from mistudiod.specs import Score as ScoreSpec


class Labels:
    """``sae`` is always the name of one that there is."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- for lists -----------------------------------------------------------------------------------------------

    async def of(self, sae: str, indices: Sequence[int]) -> dict[int, dict[str, Any]]:
        """Of each feature ``{"label": {"text", "provider", "confidence", "status"} | None, "score", "starred"}``."""
        return await self._database.read(lambda db: label_search.of(db, sae, indices))

    async def order(self, sae: str, by: str) -> list[int]:
        """The features that have one, by the text of their label (its case is ignored) or by its score, ascending."""
        return await self._database.read(lambda db: label_search.order(db, sae, by))

    async def matching(
        self,
        sae: str,
        q: str | None = None,
        labelled: bool | None = None,
        failed: bool | None = None,
        starred: bool | None = None,
        list_name: str | None = None,
        provider: str | None = None,
        score: tuple[str, float] | None = None,
    ) -> set[int]:
        """Features for which all that is asked holds; what is None is not asked.

        ``q``: words that label or explanation have; the last may be the beginning of one. ``score``: an operator of
        <, <=, > and >=, and a number.
        """
        return await self._database.read(
            lambda db: label_search.matching(db, sae, q, labelled, failed, starred, list_name, provider, score)
        )

    # -- of one feature ------------------------------------------------------------------------------------------

    async def about(self, sae: str, feature: int) -> dict[str, Any]:
        """``{"label", "score": {"value", "scores"}, "marks": {"starred", "note", "lists"}}``; without: None."""
        return (await self.about_each(sae, [feature]))[0]

    async def about_each(self, sae: str, features: Sequence[int]) -> list[dict[str, Any]]:
        """The same of several, in their order, in one read."""
        return await self._database.read(lambda db: [label_statements.about(db, sae, one) for one in features])

    async def history(self, sae: str, feature: int) -> dict[str, Any]:
        """``{"labels": every one it has had, the newest first, with its "scores"; "failure": of the last try}``."""
        return await self._database.read(
            lambda db: {
                "labels": label_statements.history(db, sae, feature),
                "failure": label_statements.failure_of(db, sae, feature),
            }
        )

    async def put(self, sae: str, feature: int, text: str, explanation: str | None, extraction: str | None) -> Label:
        """A person's label, from now on the current one."""
        return await self._database.write(
            lambda db: label_statements.put(db, sae, feature, text, explanation, extraction)
        )

    async def accept(self, sae: str, label: int) -> Label:
        """Let a label of the history be the current one, until a person changes it. Raises NotFound."""
        return await self._database.write(lambda db: label_statements.decide(db, sae, label, "accepted"))

    async def reject(self, sae: str, label: int) -> Label:
        """Let the next best of the history be the current one, or none. Raises NotFound."""
        return await self._database.write(lambda db: label_statements.decide(db, sae, label, "rejected"))

    async def mark(self, sae: str, feature: int, changes: Mapping[str, Any]) -> dict[str, Any]:
        """``changes``: what of starred, note and lists is to be another. Returns all three."""
        return await self._database.write(lambda db: label_statements.mark(db, sae, feature, changes))

    # -- of all features -----------------------------------------------------------------------------------------

    async def lists(self, sae: str) -> list[dict[str, Any]]:
        """``[{"name", "features": how many}]``."""
        return await self._database.read(lambda db: label_statements.lists(db, sae))

    async def summary(self, sae: str) -> dict[str, Any]:
        """How many features are labelled and by whom, why others are not, and what the labels are worth."""
        return await self._database.read(lambda db: label_summary.summary(db, sae))

    async def todo(
        self, spec: LabelSpec | ScoreSpec, features: Sequence[int], job: int | None = None
    ) -> list[dict[str, Any]]:
        """What a job still has to do of ``features``, in their order: ``[{"index", "label": {"id", "text",
        "explanation"} | None}]``; a label is given to those who score it, with the ``"methods"`` that are left.

        ``job``: what this one has done already is left out; None: the job is yet to be.
        """
        return await self._database.read(lambda db: label_todo.todo(db, spec, features, job))

    async def export(self, sae: str, after: int = 0) -> list[dict[str, Any]]:
        """The next labels after an id, of the whole history in its order, with their scores; none at the end."""
        return await self._database.read(lambda db: label_exchange.export(db, sae, after))

    async def shown(self, sae: str) -> list[dict[str, Any]]:
        """What every feature is called now, by feature; ``score`` is what its label is worth, where that is known."""
        found: list[dict[str, Any]] = []
        after = -1
        while some := await self._database.read(partial(label_exchange.shown, sae=sae, after=after)):
            found += some
            after = some[-1]["feature"]
        return found

    async def take_in(self, sae: str, labels: Sequence[Mapping[str, Any]]) -> dict[str, int]:
        """Labels from elsewhere, as ``export`` gives them: ``{"imported", "known"}``. None takes the place of what a
        person has said here; of a known one only what became of it since is taken.
        """
        return await self._database.write(lambda db: label_exchange.take_in(db, sae, labels))
