"""What can go wrong between a client and its studio. Each message is one sentence for a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# The HTTP status of an error that comes when an answer has begun: there the object is all there is.
_STATUS = {
    "invalid": 400, "not_found": 404, "conflict": 409, "gpu_busy": 409, "session_busy": 409, "cancelled": 409,
    "too_many": 429, "out_of_memory": 507,
}  # fmt: skip


class ApiError(Exception):
    """The studio refused. ``fields`` maps a field of the request to what is wrong with it.

    ``about`` is what else its error object says, such as the job that has the GPU. ``missing`` is the noun and the name
    of what was asked for by name and is not there, when that is the reason.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        fields: dict[str, str] | None = None,
        missing: tuple[str, str] | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.fields = status, code, message, fields or {}
        self.missing, self.about = missing, dict(about or {})


def refusal(error: Mapping[str, Any], status: int | None = None) -> ApiError:
    """Of the API's error object. Raises KeyError, TypeError where it is none."""
    about = {name: value for name, value in error.items() if name not in ("code", "message", "fields")}
    code = str(error["code"])
    return ApiError(status or _STATUS.get(code, 500), code, str(error["message"]), error.get("fields"), about=about)


class Unreachable(Exception):
    """No studio answers."""


class WrongCertificate(Exception):
    """Whoever answers is not the studio that was paired."""


class VersionMismatch(Exception):
    """The studio is of another version than this client."""


class NoService(Exception):
    """A service cannot be installed, removed or looked at here, or not so."""
