"""The specs of labelling features, and of finding out what labels are worth."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator
from typing_extensions import Self

from mistudiod.specs.base import Name, Spec

KEYLESS = "tokens"  # the endpoint that is none: labels and scores out of the evidence alone
FeatureIndex = Annotated[int, Field(ge=0, lt=2**31)]
Money = Annotated[float, Field(gt=0, le=1_000_000)]
_OF_ALL = " by the job, its pauses and retries included"
Method = Literal["tokens", "detection", "fuzzing"]


def _check_endpoint(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name):
        raise ValueError("must be the name of an endpoint of the settings, such as openai or ollama, never a URL")
    return name


Endpoint = Annotated[str, AfterValidator(_check_endpoint)]


class Asking(Spec):
    """What labelling and scoring have in common: which features, and whom to ask at what cost."""

    sae: Name = Field(description="name of the SAE")
    model: str | None = Field(None, min_length=1, max_length=200, description="name of the endpoint's model")
    features: list[FeatureIndex] | None = Field(None, min_length=1, max_length=10_000, description="these features")
    top: int | None = Field(None, ge=1, lt=2**31, description="the features that fire most strongly, so many")
    again: bool = Field(False, description="also features that have one already; a person's label is never replaced")
    concurrency: int = Field(4, ge=1, le=64, description="questions at once")
    timeout_s: float = Field(120.0, ge=1, le=3600, description="seconds that an answer may take")
    price_in: float | None = Field(None, ge=0, le=10_000, description="US$ for a million tokens of questions")
    price_out: float | None = Field(None, ge=0, le=10_000, description="US$ for a million tokens of answers")
    max_cost: Money | None = Field(None, description=f"stop before more US$ than this are spent{_OF_ALL}")
    max_tokens: int | None = Field(
        None, ge=1, lt=2**53, description=f"stop before more tokens than this are used{_OF_ALL}"
    )
    share_gpu: bool = Field(False, description="let an endpoint on this machine work beside a job on its GPU")


class Label(Asking):
    """Let an LLM say in a few words what features stand for; or, without one, describe them by their tokens."""

    kind: Literal["label"] = "label"
    endpoint: Endpoint = Field(
        KEYLESS, description="whom to ask: a name of the setting endpoints, or tokens for a description without an LLM"
    )
    unlabeled: bool = Field(False, description="all features that are alive and have no label")
    template: Name = Field("default", description="the prompt to ask with")

    @property
    def asks(self) -> str | None:
        """The endpoint that is asked; None when the evidence alone is enough."""
        return None if self.endpoint == KEYLESS else self.endpoint

    @model_validator(mode="after")
    def _which(self) -> Self:
        given = sum((self.features is not None, self.unlabeled, self.top is not None))
        if given > 1 or (given == 0 and self.endpoint != KEYLESS):
            raise ValueError("say which features: give one of features, unlabeled and top")
        if self.endpoint != KEYLESS and self.model is None:
            raise ValueError(f"say which model of {self.endpoint} to ask: give model")
        return self


class Score(Asking):
    """Find out how well labels tell where their features fire, on text that they were not made from."""

    kind: Literal["score"] = "score"
    methods: list[Method] = Field(
        ["tokens"],
        min_length=1,
        max_length=3,
        description="tokens: by the tokens in the label, without an LLM; detection: a judge says in which texts the "
        "feature fires; fuzzing: a judge says whether the right tokens are marked",
    )
    endpoint: Endpoint | None = Field(None, description="who judges: a name of the setting endpoints")
    examples: int = Field(20, ge=2, le=200, description="texts in which the feature fires, and as many in which not")
    seed: int = Field(0, ge=0, lt=2**31, description="seed of the choice of texts")

    @property
    def asks(self) -> str | None:
        """The endpoint that is asked; None when the evidence alone is enough."""
        return self.endpoint if set(self.methods) - {"tokens"} else None

    @model_validator(mode="after")
    def _who(self) -> Self:
        if self.features is not None and self.top is not None:
            raise ValueError("say which features: give one of features and top, or none for all that have a label")
        if set(self.methods) - {"tokens"} and (self.endpoint in (None, KEYLESS) or self.model is None):
            raise ValueError("detection and fuzzing need a judge: give endpoint and model")
        return self
