"""The part of the client that is about trainings: what they measure, and how they end or go on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mistudio import names, recipes
from mistudio.pages import given


class Trainings:
    """``Client`` has these methods."""

    _ask: Callable[..., dict[str, Any]]
    artifact: Callable[..., dict[str, Any]]
    submit: Callable[..., dict[str, Any]]

    def training_spec(self) -> dict[str, Any]:
        """What can be asked of a training: ``{"fields", "presets"}``, JSON schema by field, values by preset."""
        return self._ask("training_spec")

    def metrics(self, job: int, after_step: int = -1, limit: int = 5000, sae: str | None = None) -> dict[str, Any]:
        """``{"metrics": [{"step", "sae", "values"}], "next"}``; give ``next`` as ``after_step`` for those that follow.

        A page holds whole steps, of every SAE or of one. Values without an SAE are of the job as a whole.
        """
        return self._ask("metrics", given(after_step=after_step, limit=limit, sae=sae), job=job)

    def live(self, job: int) -> list[dict[str, Any]]:
        """What each SAE is learning: ``{"sae", "step", "features": [{"feature", "density", "windows"}]}``.

        A window is ``{"value", "before", "token", "after"}``: a feature's activation on a token, and the text around.
        """
        found: list[dict[str, Any]] = self._ask("live", job=job)["saes"]
        return found

    def checkpoints(self, job: int) -> list[dict[str, Any]]:
        """``{"step", "bytes", "at", "saes", "fvu", "best"}`` of each that is kept, the newest first."""
        found: list[dict[str, Any]] = self._ask("checkpoints", job=job)["checkpoints"]
        return found

    def finalize(self, job: int) -> dict[str, Any]:
        """End a training now, measured and saved; also one that paused, stopped or failed after a checkpoint."""
        return self._ask("finalize", job=job)

    def extend(self, sae: str | int, tokens: int, name: str | None = None, **request: Any) -> dict[str, Any]:
        """Go on with an SAE's training, up to ``tokens`` in all, as a new SAE. ``request``: as of ``submit``.

        Raises ValueError when it has been trained on as many already.
        """
        made = self.artifact("sae", sae)
        return self.submit(recipes.extended(made, tokens, name or names.of_extended(made["name"], tokens)), **request)

    def make_again(self, recipe: Mapping[str, Any], name: str | None = None, **request: Any) -> dict[str, Any]:
        """Train the SAE of a recipe.json again. Raises ValueError when it is none. ``recipes.differences`` warns."""
        return self.submit(recipes.again(recipe, name), **request)
