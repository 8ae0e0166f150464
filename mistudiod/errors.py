"""The daemon's errors, each with the HTTP status and the code that a client sees."""

from __future__ import annotations


class StudioError(Exception):
    """A request that cannot be met, said in one sentence; ``fields`` maps a field to what is wrong with it.

    ``about``: what else the error object says.
    """

    status = 500
    code = "internal"

    def __init__(
        self, message: str, fields: dict[str, str] | None = None, about: dict[str, object] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.fields = fields
        self.about = about or {}

    def body(self) -> dict[str, object]:
        error: dict[str, object] = {"code": self.code, "message": self.message, **self.about}
        if self.fields:
            error["fields"] = self.fields
        return {"error": error}


class Invalid(StudioError):
    status, code = 400, "invalid"


class Unauthorized(StudioError):
    status, code = 401, "unauthorized"


class Forbidden(StudioError):
    status, code = 403, "forbidden"


class NotFound(StudioError):
    status, code = 404, "not_found"


class ModelNotFound(NotFound):
    """Of a model that is asked for below /v1, in OpenAI's words."""

    code = "model_not_found"

    def __init__(self, message: str) -> None:
        super().__init__(message, {"model": message})


class WrongMethod(StudioError):
    status, code = 405, "method"


class Conflict(StudioError):
    status, code = 409, "conflict"


class GpuBusy(Conflict):
    """A job has the GPU: ``about`` says which (``job``) and what can be done (``choices``)."""

    code = "gpu_busy"


class SessionBusy(Conflict):
    """The session writes for somebody else, with another model."""

    code = "session_busy"


class Changed(StudioError):
    """It is no longer what the caller has seen (If-Match)."""

    status, code = 412, "changed"


class TooLarge(StudioError):
    status, code = 413, "too_large"


class WrongContentType(StudioError):
    status, code = 415, "content_type"


class WrongRange(StudioError):
    status, code = 416, "range"


class WrongHost(StudioError):
    status, code = 421, "wrong_host"


class TooMany(StudioError):
    """As many as there may be at once are there."""

    status, code = 429, "too_many"


class TooOften(StudioError):
    """Whoever asks has been wrong too often, and has to wait ``retry_after_s`` seconds."""

    status, code = 429, "too_often"

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class StoreError(StudioError):
    """The database cannot be used: too new, damaged, or the disk is full."""

    status, code = 503, "store"


class SessionFailed(StudioError):
    status, code = 500, "session_failed"


class OutOfMemory(StudioError):
    status, code = 507, "out_of_memory"


class DiskFull(StudioError):
    status, code = 507, "disk_full"
