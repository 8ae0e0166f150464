"""The specs of measuring: one SAE with intervals, and several beside each other."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from mistudiod.specs.base import Name, Spec, check_name

_STEP = re.compile(r"\d{1,12}")


def sae_and_step(text: str) -> tuple[str, int | None]:
    """``NAME`` or ``NAME@STEP``, an SAE as it was at a checkpoint of its training."""
    name, at, step = text.partition("@")
    return name, int(step) if at else None


def _sae_at(text: str) -> str:
    name, at, step = text.partition("@")
    check_name(name)
    if at and not _STEP.fullmatch(step):
        raise ValueError("must be the name of an SAE, or NAME@STEP with the step of one of its checkpoints")
    return text


def _different(saes: list[str]) -> list[str]:
    if len(set(saes)) < len(saes):
        raise ValueError("must be different ones")
    return saes


SaeAt = Annotated[str, AfterValidator(_sae_at)]


class Evaluate(Spec):
    """Measure an SAE on held-out text, each figure with its interval, beside what costs nothing to beat."""

    kind: Literal["evaluate"] = "evaluate"
    sae: Name = Field(description="name of the SAE")
    tokenization: Name | None = Field(
        None, description="the text; that of its training when not given, else the newest of its model"
    )
    tokens: int = Field(65_536, ge=4_096, le=10_000_000, description="held-out tokens at most")
    probes: bool = Field(True, description="also k-sparse probing and absorption, on tasks that the text itself sets")


class Compare(Spec):
    """Measure SAEs of one model on the same held-out text, and match their features by what they write."""

    kind: Literal["compare"] = "compare"
    saes: Annotated[list[SaeAt], AfterValidator(_different)] = Field(
        min_length=2, max_length=8, description="names of SAEs; NAME@STEP is one as it was at a checkpoint"
    )
    tokenization: Name | None = Field(
        None, description="the text; that of the first one's training when not given, else the newest of its model"
    )
    tokens: int = Field(65_536, ge=4_096, le=10_000_000, description="held-out tokens at most")
