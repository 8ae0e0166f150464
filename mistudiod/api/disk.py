"""What takes the disk, and what can be deleted."""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic import Field, model_validator

from mistudiod.api.fields import Fields
from mistudiod.api.keys import CLEANING, INDEX, PATHS
from mistudiod.api.route import Asked, route
from mistudiod.cleaning import WHAT, What
from mistudiod.disk import survey
from mistudiod.tokens import Scope

_LOOKING = asyncio.Semaphore(1)  # at all files: no second reader makes it faster


class SaeDisk(Fields):
    name: str
    job: int | None
    weights: int = Field(description="bytes of its folder")
    features: int = Field(description="bytes of what extractions have found")
    exports: int
    checkpoints: int = Field(description="of the job that made it, shared with the other SAEs of that job")
    maxima: int = Field(description="largest activations for steering")
    bytes: int = Field(description="of all of these")


class Group(Fields):
    what: What
    things: int = Field(description="how many folders or files")
    bytes: int
    lost: str = Field(description="what is lost by deleting it")


class DiskUse(Fields):
    saes: list[SaeDisk]
    places: dict[str, int] = Field(description="bytes by folder of the data folder; runs are without checkpoints")
    bytes: int = Field(description="of all of them")
    free_bytes: int = Field(description="for the daemon's user")
    clean: list[Group] = Field(description="what can be deleted without losing an SAE that is here")


class CleanRequest(Fields):
    what: list[What] = Field(
        default_factory=list, max_length=len(WHAT), description="groups; all for a dry run of none"
    )
    dry_run: bool = Field(True, description="only say what would be deleted")

    @model_validator(mode="after")
    def _said(self) -> CleanRequest:
        if not self.dry_run and not self.what:
            raise ValueError("say what is to be deleted: what has to name at least one group")
        return self


class Cleaned(Fields):
    dry_run: bool
    groups: list[Group] = Field(description="what was deleted, or would be")
    bytes: int = Field(description="of all of them")


@route("GET", "/api/disk", scope=Scope.READ, answer=DiskUse)
async def show_disk(asked: Asked[None]) -> Any:
    """Say what takes the disk: each SAE with all that is its own, each folder, and what can be deleted."""
    async with _LOOKING:
        saes = await asked.app[INDEX].all("sae", -1)
        found = await asyncio.to_thread(survey, asked.app[PATHS], saes)
    return {**found, "clean": await asked.app[CLEANING].groups()}


@route("POST", "/api/clean", scope=Scope.WRITE, body=CleanRequest, answer=Cleaned)
async def clean(asked: Asked[None]) -> Any:
    """Delete what is not needed, by group; unless it is asked for, only say what that would be."""
    body, cleaning = asked.body, asked.app[CLEANING]
    what = body.what or WHAT
    groups = await (cleaning.groups(what) if body.dry_run else cleaning.clean(what))
    return {"dry_run": body.dry_run, "groups": groups, "bytes": sum(one["bytes"] for one in groups)}


ROUTES = (show_disk, clean)
