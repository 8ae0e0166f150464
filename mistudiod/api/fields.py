"""What the API's models have in common."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Fields(BaseModel):
    """Known fields only; what was sent is never repeated in an error."""

    model_config = ConfigDict(defer_build=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _not_flooded(cls, data: Any) -> Any:
        # Each unknown field is an error of its own, some 1 kB: a body of them would take gigabytes.
        if isinstance(data, dict) and len(data) > len(cls.model_fields) + 5:
            raise ValueError("has many fields that there are not")
        return data


class Described(BaseModel):
    """An artifact's folder may say more of it than is listed here, or less."""

    model_config = ConfigDict(defer_build=True, extra="allow", hide_input_in_errors=True)


class Page(Fields):
    next: str | None = Field(description="give it as cursor for what follows; null at the end")
