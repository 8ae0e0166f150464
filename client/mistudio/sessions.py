"""The part of the client that is about the session, a model kept in memory, and about edits that are kept by a name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from mistudio.pages import given
from mistudio.steerings import Edit


class Sessions:
    """``Client`` has these methods."""

    _ask: Callable[..., dict[str, Any]]

    def session(self) -> dict[str, Any] | None:
        """``{"state", "model", "saes", "precision", "memory_bytes", "expires_at", …}``, None when there is none."""
        found: dict[str, Any] | None = self._ask("session")["session"]
        return found

    def start_session(
        self,
        model: str | None = None,
        saes: Iterable[str] = (),
        precision: str | None = None,
        keep_alive: str | float | None = None,
        hold: str | float | None = None,
        if_busy: str | None = None,
    ) -> dict[str, Any]:
        """Load a model, or that of these SAEs and them, and return once they are; what is there already stays.

        ``keep_alive``: how long it stays when nobody uses it ("5m", seconds, -1: for ever). ``hold``: how long no job
        may take its place. ``if_busy``: "pause" lets a job that has the GPU make room.
        """
        body = given(model=model, saes=list(saes) or None, precision=precision, keep_alive=keep_alive, hold=hold)
        return self._ask("start_session", body={**body, **given(if_busy=if_busy)}, limit_s=None)

    def stop_session(self) -> None:
        self._ask("stop_session")

    def profiles(self) -> list[dict[str, Any]]:
        """``[{"name", "model", "steering", "note", "created_at"}]``."""
        found: list[dict[str, Any]] = self._ask("profiles")["profiles"]
        return found

    def profile(self, name: str) -> dict[str, Any]:
        return self._ask("profile", name=name)

    def save_profile(
        self, name: str, edits: Iterable[Edit], note: str | None = None, replace: bool = False
    ) -> dict[str, Any]:
        """Keep edits, each with its ``sae``, by a name: the model ``<model>:<name>`` of the OpenAI endpoint.

        Raises ApiError 409 when there is one of that name, unless it is to be replaced.
        """
        about = {"name": name, "steering": [dict(one) for one in edits], "replace": replace}
        return self._ask("save_profile", body={**about, **given(note=note)})

    def remove_profile(self, name: str) -> None:
        self._ask("remove_profile", name=name)
