"""What a worker says, one JSON line each, and how a line is checked. Pure.

A worker is not trusted to be well-behaved: a line that is too long, no JSON, or of no known shape is dropped and
counted, never raised.
"""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

MAX_LINE_BYTES = 65_536


class Event(BaseModel):
    model_config = ConfigDict(defer_build=True, extra="forbid", allow_inf_nan=False)


class Progress(Event):
    """How far a stage has come."""

    event: Literal["progress"] = "progress"
    stage: str = Field(max_length=100)
    done: float = Field(ge=0)
    total: float | None = Field(None, ge=0)
    unit: str = Field("", max_length=20)
    eta_s: float | None = Field(None, ge=0)


class Metric(Event):
    """Measurements of one training step."""

    event: Literal["metric"] = "metric"
    step: int = Field(ge=0, lt=2**63)  # as the database takes it
    values: dict[str, float | None] = Field(max_length=50)
    sae: str | None = Field(None, max_length=64)


class Live(Event):
    """What some features of an SAE in training fire on, so far."""

    event: Literal["live"] = "live"
    sae: str = Field(max_length=64)
    step: int = Field(ge=0, lt=2**63)
    features: list[dict[str, object]] = Field(max_length=64)


Noun = Literal["model", "dataset", "tokenization", "sae", "features"]


class Artifact(Event):
    """A finished folder, already under its final name."""

    event: Literal["artifact"] = "artifact"
    noun: Noun
    name: str = Field(max_length=200)


class Result(Event):
    """What the job found; kept in its record."""

    event: Literal["result"] = "result"
    result: dict[str, object]

    @field_validator("result")
    @classmethod
    def _is_json(cls, result: dict[str, object]) -> dict[str, object]:
        json.dumps(result, allow_nan=False)  # ValueError: a number that no answer could hold
        return result


class Failure(Event):
    """Why the job ends; the exit code follows."""

    event: Literal["failure"] = "failure"
    code: str = Field(max_length=50)
    message: str = Field(max_length=4000)
    field: str | None = Field(None, max_length=100)


WorkerEvent = Annotated[Progress | Metric | Live | Artifact | Result | Failure, Field(discriminator="event")]
_ADAPTER: TypeAdapter[Progress | Metric | Live | Artifact | Result | Failure] = TypeAdapter(
    WorkerEvent, config=ConfigDict(defer_build=True)
)


def to_line(event: Event) -> bytes:
    return json.dumps(event.model_dump(exclude_none=True), allow_nan=False, ensure_ascii=False).encode() + b"\n"


def from_line(line: bytes) -> Progress | Metric | Live | Artifact | Result | Failure | None:
    """The event, or None when the line is not one."""
    if len(line) > MAX_LINE_BYTES:
        return None
    try:
        return _ADAPTER.validate_json(line)
    except ValidationError:
        return None


class Lines:
    """Bytes in, whole lines out; a line that is too long is dropped as it comes, never gathered."""

    def __init__(self) -> None:
        self._rest, self._skipping = b"", False
        self.dropped = 0

    def feed(self, data: bytes) -> list[bytes]:
        *whole, self._rest = (self._rest + data).split(b"\n")
        if whole and self._skipping:
            whole, self._skipping = whole[1:], False
        if len(self._rest) > MAX_LINE_BYTES:
            self.dropped += not self._skipping
            self._rest, self._skipping = b"", True
        return whole
