"""What is found out about an SAE later, in short, as the API answers it."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from mistudiod.api.fields import Described


class Certificate(Described):
    """Of the latest certification of an SAE; ``certificate.json`` beside it has all of it."""

    at: str | None = None
    holds: str | None = Field(
        None,
        description="declared: it is read as it was meant; other: another way is; none; changed: its files are others",
    )
    verdict: list[str] | None = None
    tokens: int | None = Field(None, description="held-out tokens that it was run on")
    tokenization: str | None = None
    repaired: str | None = Field(None, description="the SAE as it was meant")


class Figure(Described):
    """Of an evaluation."""

    value: float | None = None
    interval: list[float] | None = Field(None, description="of 95 %, by the documents of the text")


class Evaluation(Described):
    """Of the latest evaluation of an SAE; ``evaluation.json`` beside it has all of it."""

    at: str | None = None
    verdict: list[str] | None = None
    tokens: int | None = Field(None, description="held-out tokens that it was measured on")
    tokenization: str | None = None
    documents: dict[str, Any] | None = Field(
        None, description="unit, count, and how many the intervals were drawn from"
    )
    figures: dict[str, Figure | None] | None = Field(None, description="fvu, l0, alive, ce_delta and ce_recovered_mean")
