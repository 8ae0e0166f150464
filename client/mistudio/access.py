"""The part of the client that is an administrator's: who may do what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mistudio.pages import given


class Access:
    """Access tokens and secrets of a studio; ``Client`` has these methods."""

    _ask: Callable[..., dict[str, Any]]

    def tokens(self) -> list[dict[str, Any]]:
        """``[{"id", "name", "scope", "created_at", "expires_at", "last_used_at"}]``."""
        found: list[dict[str, Any]] = self._ask("tokens")["tokens"]
        return found

    def create_token(self, name: str, scope: str = "write", expires_in_s: int | None = None) -> dict[str, Any]:
        """``scope`` is read, write or admin. The answer's ``token`` is shown this once and kept nowhere."""
        return self._ask("create_token", body=given(name=name, scope=scope, expires_in_s=expires_in_s))

    def revoke_token(self, token: int | str) -> None:
        """By its id. Whoever has it is refused from now on."""
        self._ask("revoke_token", token=token)

    def create_pairing(
        self, name: str | None = None, scope: str = "write", expires_in_s: int | None = None
    ) -> dict[str, Any]:
        """A code for a device, which gets a token of that scope for it.

        ``{"code", "scope", "name", "ends_in_s", "url", "fingerprint"}``; the last two: of the studio, for others.
        """
        return self._ask("create_pairing", body=given(name=name, scope=scope, expires_in_s=expires_in_s))

    def pair(self, code: str, name: str) -> dict[str, Any]:
        """A token for a code, without one; as ``create_token`` answers. ``name``: what this machine is called."""
        return self._ask("pair", body={"code": code, "name": name}, look=False)

    def secrets(self) -> list[dict[str, Any]]:
        """``[{"name", "source", "set_at"}]``; their values never leave the studio."""
        found: list[dict[str, Any]] = self._ask("secrets")["secrets"]
        return found

    def set_secret(self, name: str, value: str) -> None:
        self._ask("set_secret", body={"value": value}, name=name)

    def remove_secret(self, name: str) -> None:
        self._ask("remove_secret", name=name)

    def settings(self) -> list[dict[str, Any]]:
        """``[{"name", "value", "default", "source", "where", "changeable", "help"}]``."""
        found: list[dict[str, Any]] = self._ask("settings")["settings"]
        return found

    def change_settings(self, changes: Mapping[str, object]) -> list[dict[str, Any]]:
        """Those given are kept, for what starts from now on; None: as it would be without. All of them, as they are."""
        found: list[dict[str, Any]] = self._ask("change_settings", body=dict(changes))["settings"]
        return found

    def daemon_log(self, tail_bytes: int = 65_536) -> str:
        """The end of what the daemon wrote."""
        return str(self._ask("daemon_log", {"tail_bytes": tail_bytes})["log"])
