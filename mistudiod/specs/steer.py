"""What a steered model is asked for: texts beside their baseline, a useful range of strengths, a completion."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from mistudiod.specs.base import Name, Spec

MOST_WRITTEN = 16_384  # tokens of all texts of one request: its answer is one line
MOST_MEASURED = 4_096  # times that a feature is measured in a text of one request
MOST_EDITS = 100
Op = Literal["add", "clamp", "scale", "ablate"]
Role = Literal["system", "user", "assistant"]
Precision = Literal["fp32", "bf16", "fp16", "int8", "nf4"]
_SCOPE = re.compile(r"all|generated|active|from:\d{1,6}")
Number = Annotated[float, Field(ge=-1000, le=1000)]


def _scope(text: str) -> str:
    if not _SCOPE.fullmatch(text):
        raise ValueError("must be all, generated, active, or from:N with the number of a token, such as from:5")
    return text


class Edit(Spec):
    """What is done to one feature, whose row of the decoder is d and largest activation is m; a is its activation.

    add: h += strength·m·d. clamp: h += (strength·m − a)·d. scale: h += (strength − 1)·a·d. ablate: h −= a·d.
    """

    feature: int = Field(ge=0, lt=2**31, description="index of the feature")
    strength: Number = Field(
        1.0, description="add and clamp: in units of the feature's own largest activation; scale: a factor"
    )
    op: Op = Field("add", description="add: push by the strength; clamp: set to it; scale: multiply; ablate: remove")
    scope: Annotated[str, AfterValidator(_scope)] = Field(
        "all",
        description="where: all tokens, generated ones only, active: where the feature fires by itself, or from:N on, "
        "the number of a token of the prompt",
    )
    sae: Name | None = Field(None, description="name of its SAE; that of the request when not given")


class Message(Spec):
    role: Role
    content: str = Field(max_length=100_000)


Steering = Annotated[list[Edit], Field(max_length=MOST_EDITS)]
Messages = Annotated[list[Message], Field(min_length=1, max_length=200)]
Prompt = Annotated[str, Field(min_length=1, max_length=100_000)]


class Sampling(Spec):
    """How tokens are chosen."""

    max_tokens: int = Field(100, ge=1, le=4096, description="tokens to write")
    temperature: float = Field(0.7, ge=0, le=5, description="0 takes the likeliest token")
    top_p: float = Field(1.0, gt=0, le=1, description="of the likeliest tokens, as many as have this probability")
    top_k: int = Field(0, ge=0, le=1_000_000, description="of the likeliest tokens, so many; 0: all")
    repetition_penalty: float = Field(1.0, ge=0.1, le=10, description="above 1: tokens that are there come less often")
    seed: int = Field(0, ge=0, lt=2**31, description="seed of the sampling, the same for a text and its baseline")


class Steer(Sampling):
    """Write texts with features amplified or suppressed, each beside its baseline."""

    kind: Literal["steer"] = "steer"
    sae: Name = Field(description="name of the SAE")
    prompt: Prompt | None = Field(None, description="text to continue")
    messages: Messages | None = Field(None, description="a conversation to answer, in the place of a prompt")
    steering: Annotated[Steering, Field(min_length=1)] = Field(description="features and what is done to them")
    sweep: list[Number] | None = Field(
        None,
        min_length=1,
        max_length=50,
        description="a text for each of these, by which all strengths are multiplied",
    )
    samples: int = Field(1, ge=1, le=64, description="texts of each kind, each with a seed of its own")
    precision: Precision | None = Field(
        None, description="of the model: that in which the SAE was trained when not given"
    )
    rows_at_once: int | None = Field(
        None,
        ge=1,
        description="texts that are written at once, no more than there is memory for: a run that is to be the same to "
        "the last bit needs the number that its result says; as many as fit when not given",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Steer:
        require_one_text(self.prompt, self.messages)
        if self.sweep and all(edit.op == "ablate" for edit in self.steering):
            raise ValueError("sweep multiplies strengths, and ablate has none: use add, clamp or scale")
        if (rows := self.samples * (1 + self.variants)) * self.max_tokens > MOST_WRITTEN:
            raise ValueError(
                f"{rows} texts of {self.max_tokens} tokens are more than the {MOST_WRITTEN:,} tokens that one request "
                "may write: lower max_tokens, samples or the number of strengths"
            )
        if rows * len(self.steering) > MOST_MEASURED:
            raise ValueError(
                f"{rows} texts with {len(self.steering)} features measured in each are more than one answer has room "
                "for: lower samples, the number of strengths or of features"
            )
        return self

    @property
    def variants(self) -> int:
        """Steered texts beside each baseline."""
        return len(self.sweep) if self.sweep else 1

    def strengths(self) -> list[list[Edit]]:
        """What is done to the features in each variant."""
        if not self.sweep:
            return [self.steering]
        return [[one if one.op == "ablate" else times(one, factor) for one in self.steering] for factor in self.sweep]


def times(edit: Edit, factor: float) -> Edit:
    return edit.model_copy(update={"strength": edit.strength * factor})


class Calibrate(Spec):
    """Find the strengths at which adding a feature changes the model by 0.1, 0.5 and 2 nats, and where it breaks."""

    kind: Literal["calibrate"] = "calibrate"
    sae: Name = Field(description="name of the SAE")
    features: list[Annotated[int, Field(ge=0, lt=2**31)]] = Field(
        min_length=1, max_length=100, description="indices of the features"
    )
    precision: Precision | None = Field(None, description="of the model: that in which the SAE was trained by default")


class Complete(Sampling):
    """Continue a text with a steered model, without a baseline: what the OpenAI endpoint asks for."""

    kind: Literal["complete"] = "complete"
    model: Name
    prompt: Prompt | None = None
    messages: Messages | None = None
    steering: Steering = []
    samples: int = Field(1, ge=1, le=64)
    shorter: bool = Field(False, description="write fewer tokens where the context has no room for max_tokens")
    stop: list[Annotated[str, Field(min_length=1, max_length=1000)]] = Field(default_factory=list, max_length=16)
    precision: Precision | None = None

    @model_validator(mode="after")
    def _has_text(self) -> Complete:
        require_one_text(self.prompt, self.messages)
        return self


def require_one_text(prompt: str | None, messages: Any) -> None:
    """Raises ValueError."""
    if (prompt is None) == (messages is None):
        raise ValueError("give either a prompt or messages")


class Load(Spec):
    """Have a model and SAEs of it in memory."""

    kind: Literal["load"] = "load"
    model: Name
    saes: list[Name] = Field(default_factory=list, max_length=20)
    precision: Precision | None = None


class Session(Spec):
    """The order of a resident worker; what it is asked afterwards comes down stdin, a line each."""

    kind: Literal["session"] = "session"
    model: Name
    saes: list[Name] = Field(
        default_factory=list, max_length=20, description="to begin with; the first says the precision"
    )
    precision: Precision | None = None
    rows_at_once: int | None = Field(None, ge=1, description="texts that are written at once; None: as many as fit")
