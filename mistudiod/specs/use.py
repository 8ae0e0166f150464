"""The specs of what a trained SAE is used for."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mistudiod.specs.base import Name, Spec


class Extract(Spec):
    """Find the texts on which an SAE's features fire most."""

    kind: Literal["extract"] = "extract"
    sae: Name = Field(description="name of the SAE")
    tokens: int = Field(200_000, ge=128, description="tokens to read")
    features: int = Field(10, ge=1, le=10_000, description="features to keep examples of")
    examples: int = Field(5, ge=1, le=100, description="examples of each feature")


class Strength(Spec):
    feature: int = Field(ge=0, description="index of the feature")
    strength: float = Field(ge=-10_000, le=10_000, description="added: strength x the feature's unit decoder row")


class Steer(Spec):
    """Write a continuation with and without features amplified or suppressed."""

    kind: Literal["steer"] = "steer"
    sae: Name = Field(description="name of the SAE")
    prompt: str = Field(min_length=1, max_length=20_000, description="text to continue")
    strengths: list[Strength] = Field(min_length=1, max_length=100, description="features and their strengths")
    max_tokens: int = Field(60, ge=1, le=4096, description="tokens to write")
    temperature: float = Field(0.7, ge=0, le=5, description="0 takes the likeliest token")
    seed: int = Field(0, ge=0, lt=2**31, description="seed of the sampling, the same for both texts")
