"""What can go wrong between a client and its studio. Each message is one sentence for a person."""

from __future__ import annotations


class ApiError(Exception):
    """The studio refused. ``fields`` maps a field of the request to what is wrong with it.

    ``missing`` is the noun and the name of what was asked for by name and is not there, when that is the reason.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        fields: dict[str, str] | None = None,
        missing: tuple[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.fields = status, code, message, fields or {}
        self.missing = missing


class Unreachable(Exception):
    """No studio answers."""


class VersionMismatch(Exception):
    """The studio is of another version than this client."""
