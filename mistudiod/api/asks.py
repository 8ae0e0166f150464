"""What several routes ask: parts of paths, and pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from mistudiod.api.fields import Fields
from mistudiod.errors import Invalid

Id = Annotated[int, Field(ge=1, lt=2**62)]
Ref = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class JobPath(Fields):
    id: Id = Field(description="the job's id")


class RefPath(Fields):
    ref: Ref = Field(description="name or id")


class PageQuery(Fields):
    limit: int = Field(100, ge=1, le=1000, description="how many at most")
    cursor: str | None = Field(None, max_length=20, pattern=r"^[0-9]{1,18}$", description="next of the page before")


def after(cursor: str | None) -> int:
    return int(cursor) if cursor else 0


def check_feature(sae: Mapping[str, Any], feature: int, field: str) -> None:
    """Raises Invalid for a feature that an SAE has not, as far as its folder says how many it has."""
    width = sae.get("width")
    if isinstance(width, int) and feature >= width:
        reason = f"must be 0 to {width - 1}"
        raise Invalid(f"{sae['name']} has features 0 to {width - 1}: there is no feature {feature}", {field: reason})
