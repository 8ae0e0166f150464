"""The specs of how a trained SAE is read: its features extracted, a text inspected."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from mistudiod.specs.base import Name, Spec

MOST_AROUND = 512  # tokens of an example on either side of its strongest one


def _around(text: str) -> str:
    match = re.fullmatch(r"(\d{1,3}),(\d{1,3})", text)
    if not match or max(int(match[1]), int(match[2])) > MOST_AROUND:
        raise ValueError(f"must be BEFORE,AFTER, two numbers of tokens of {MOST_AROUND} at most, such as 32,32")
    return text


class Extract(Spec):
    """Find where every feature of an SAE fires, and what speaks for its meaning, in one pass over a text."""

    kind: Literal["extract"] = "extract"
    sae: Name = Field(description="name of the SAE")
    tokenization: Name | None = Field(None, description="the text to read; that of its training when not given")
    tokens: int = Field(1_000_000, ge=128, description="tokens to read, evenly spread over the text")
    examples: int = Field(24, ge=1, le=64, description="strongest examples of each feature, each of another window")
    context: Annotated[str, AfterValidator(_around)] = Field(
        "32,32", description="tokens of an example before and after its strongest one"
    )
    postings: bool = Field(
        True, description="keep every place where a feature fires, to find it in the text and to score labels"
    )

    @property
    def around(self) -> tuple[int, int]:
        before, after = self.context.split(",")
        return int(before), int(after)


class Inspect(Spec):
    """Show which features of an SAE fire on which token of a text."""

    kind: Literal["inspect"] = "inspect"
    sae: Name = Field(description="name of the SAE")
    text: str = Field(min_length=1, max_length=20_000, description="the text")
    top: int = Field(10, ge=1, le=1000, description="features to show of each token, the strongest")
    ignore_denser: float | None = Field(
        None, gt=0, le=1, description="leave out features that fire on a larger share of tokens than this"
    )
