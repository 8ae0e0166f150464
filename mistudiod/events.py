"""What a worker says, one JSON line each, and how a line is checked. Pure.

A worker is not trusted to be well-behaved: a line that is too long, no JSON, or of no known shape is dropped and
counted, never raised.
"""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

MAX_LINE_BYTES = 4_194_304  # the texts of a request and what is measured of each of their tokens are the longest
MAX_LIVE_BYTES = 65_536
MAX_FEATURES, MAX_WINDOWS, MAX_TEXT_CHARS = 8, 5, 400  # of live features
MAX_LABELS = 50  # of a line
MAX_LABEL_CHARS, MAX_EXPLANATION_CHARS, MAX_REASON_CHARS, MAX_EVIDENCE_CHARS = 200, 2000, 500, 4000


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


Step = Annotated[int, Field(ge=0, lt=2**63)]  # as the database takes it
Sae = Annotated[str, Field(max_length=64)]


class Metric(Event):
    """Measurements of one training step, of one SAE; when none is named, of the only one or of the job as a whole."""

    event: Literal["metric"] = "metric"
    step: Step
    sae: Sae | None = None
    values: dict[str, float | None] = Field(max_length=50)


Piece = Annotated[str, Field(max_length=MAX_TEXT_CHARS)]


class Window(Event):
    """A token on which a feature fires, its activation, and the text on both sides."""

    value: float
    before: Piece
    token: Piece
    after: Piece


class LiveFeature(Event):
    """A latent while it is trained: the share of tokens on which it fires, and its strongest windows so far."""

    feature: int = Field(ge=0)
    density: float
    windows: list[Window] = Field(max_length=MAX_WINDOWS)


class Live(Event):
    """What an SAE is learning."""

    event: Literal["live"] = "live"
    sae: Sae | None = None
    step: Step
    features: list[LiveFeature] = Field(max_length=MAX_FEATURES)


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


Feature = Annotated[int, Field(ge=0, lt=2**31)]
Count = Annotated[int, Field(ge=0, lt=2**53)]
Share = Annotated[float, Field(ge=0, le=1)]
Provenance = Annotated[str, Field(min_length=1, max_length=200)]


class NewLabel(Event):
    """What a feature is called, why, and out of what."""

    feature: Feature
    text: str = Field(max_length=MAX_LABEL_CHARS, pattern=r"\S")
    explanation: str | None = Field(None, max_length=MAX_EXPLANATION_CHARS)
    confidence: Share | None = None
    evidence: dict[str, object] | None = None
    prompt_tokens: Count | None = None
    answer_tokens: Count | None = None

    @field_validator("evidence")
    @classmethod
    def _is_short(cls, evidence: dict[str, object] | None) -> dict[str, object] | None:
        if len(json.dumps(evidence, allow_nan=False)) > MAX_EVIDENCE_CHARS:
            raise ValueError("is too long")
        return evidence


class NoLabel(Event):
    """Why a feature has been given none."""

    feature: Feature
    error: str = Field(min_length=1, max_length=MAX_REASON_CHARS)


class Labelled(Event):
    """What features are called, all by the same provider in the same way."""

    event: Literal["labels"] = "labels"
    provider: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    model: Provenance | None = None
    template: Provenance | None = None
    template_sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    extraction: Provenance | None = None
    labels: list[NewLabel | NoLabel] = Field(max_length=MAX_LABELS)

    @field_validator("provider")
    @classmethod
    def _is_a_machine(cls, provider: str) -> str:
        if provider == "person":
            raise ValueError("no machine speaks for a person")
        return provider


class NewScore(Event):
    """How well a label tells where its feature fires, by one method."""

    feature: Feature
    label: int = Field(ge=1, lt=2**62)
    method: Literal["tokens", "detection", "fuzzing"]
    judge: Provenance | None = None
    balanced_accuracy: Share | None = None
    low: Share | None = None
    high: Share | None = None
    auroc: Share | None = None
    auroc_low: Share | None = None
    auroc_high: Share | None = None
    tp: Count
    fp: Count
    tn: Count
    fn: Count
    failed: Count
    examples: Count


class Scored(Event):
    """What labels are worth."""

    event: Literal["scores"] = "scores"
    extraction: Provenance | None = None
    scores: list[NewScore] = Field(max_length=MAX_LABELS)


Request = Annotated[int, Field(ge=1, lt=2**53)]  # number of what a resident worker was asked


class Loaded(Event):
    """A resident worker has a model and SAEs in memory."""

    event: Literal["loaded"] = "loaded"
    model: str = Field(max_length=64)
    precision: str = Field(max_length=10)
    device: str = Field(max_length=20)
    saes: list[Sae] = Field(max_length=100)


class Written(Event):
    """More of the text of one row."""

    row: int = Field(ge=0, lt=2**20)
    text: str = Field(max_length=MAX_TEXT_CHARS)


class Wrote(Event):
    """More of the texts that a request writes, and how many tokens each has by now. Rows: of each sample the baseline
    where there is one, then the variants; those of the first sample come first.
    """

    event: Literal["wrote"] = "wrote"
    request: Request
    tokens: int = Field(ge=0)
    texts: list[Written] = Field(max_length=4096)


class Replied(Event):
    """The whole answer to a request."""

    event: Literal["replied"] = "replied"
    request: Request
    result: dict[str, object]

    @field_validator("result")
    @classmethod
    def _is_json(cls, result: dict[str, object]) -> dict[str, object]:
        json.dumps(result, allow_nan=False)
        return result


class Denied(Event):
    """Why a request is not answered; ``cancelled`` when nobody wants the answer any more."""

    event: Literal["denied"] = "denied"
    request: Request
    code: str = Field(max_length=50)
    message: str = Field(max_length=4000)
    field: str | None = Field(None, max_length=100)


AnyEvent = (
    Progress | Metric | Live | Labelled | Scored | Artifact | Result | Failure | Loaded | Wrote | Replied | Denied
)
WorkerEvent = Annotated[AnyEvent, Field(discriminator="event")]
_ADAPTER: TypeAdapter[AnyEvent] = TypeAdapter(WorkerEvent, config=ConfigDict(defer_build=True))


def to_line(event: Event) -> bytes:
    return json.dumps(event.model_dump(exclude_none=True), allow_nan=False, ensure_ascii=False).encode() + b"\n"


def from_line(line: bytes) -> AnyEvent | None:
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
