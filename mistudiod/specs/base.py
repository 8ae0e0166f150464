"""What every spec is, and the names that are given in them."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check_name(name: str) -> str:
    """A name is a folder's name and part of a URL, and never looks like an id."""
    if not _NAME.fullmatch(name) or name.isdigit() or ".." in name:
        raise ValueError(
            "must be 1 to 64 letters, digits, '.', '_' or '-', begin with a letter or digit, not be a number"
        )
    return name


Name = Annotated[str, AfterValidator(check_name)]
Priority = Annotated[int, Field(ge=-100, le=100, description="higher goes first, then order of arrival")]


class Spec(BaseModel):
    model_config = ConfigDict(
        defer_build=True, extra="forbid", hide_input_in_errors=True, frozen=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _not_flooded(cls, data: Any) -> Any:
        # Each unknown field is an error of its own, some 1 kB: a body of them would take gigabytes.
        if isinstance(data, dict) and len(data) > len(cls.model_fields) + 5:
            raise ValueError("has many fields that there are not")
        return data
