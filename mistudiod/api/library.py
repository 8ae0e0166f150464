"""The SAEs that are kept: tags and notes, names, what depends on one; and the trash."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from mistudiod.about import MOST_TAGS, NOTE_CHARACTERS, check_note, check_tag
from mistudiod.api import answers
from mistudiod.api.asks import Ref, RefPath
from mistudiod.api.fields import Fields
from mistudiod.api.keys import LIBRARY, TRASH
from mistudiod.api.route import Asked, route
from mistudiod.errors import Conflict, NotFound
from mistudiod.specs import Name
from mistudiod.tokens import Scope

Tags = Annotated[list[Annotated[str, AfterValidator(check_tag)]], Field(max_length=MOST_TAGS)]


class SaeEdit(Fields):
    """What is left out stays as it is."""

    add_tags: Tags = Field(default_factory=list, description="words that it is to have")
    remove_tags: Tags = Field(default_factory=list, description="words that it is to have no more")
    note: Annotated[str | None, AfterValidator(check_note)] = Field(
        None, max_length=NOTE_CHARACTERS, description="null or empty: none"
    )

    @model_validator(mode="after")
    def _something(self) -> SaeEdit:
        if not self.model_fields_set:
            raise ValueError("give at least one of add_tags, remove_tags and note")
        return self


class NewName(Fields):
    name: Name = Field(description="what it is to be called")


class Restoring(Fields):
    name: Name | None = Field(None, description="what it is to be called; as before when not given")


class TrashPath(Fields):
    ref: Ref = Field(description="id, or the name that the SAE had")


class Dependents(Fields):
    sae: str
    profiles: list[str] = Field(description="that change features of it; they stay, and cannot be used without it")
    steerings: int = Field(description="runs of steering that name it; they stay")
    extended_by: list[str] = Field(
        description="SAEs whose training went on from it; they stay; one that was stopped needs it to go on"
    )
    exports: list[str] = Field(description="formats in which it is exported")
    extractions: int
    labels: int = Field(description="features that are labelled")
    marked: int = Field(description="features that a person has starred, noted or listed")
    ranges: int = Field(description="features of which it is known how strongly to add them")
    jobs: list[int] = Field(description="unfinished ones, which must end before it can be removed or renamed")
    in_session: bool = Field(description="the session has it in memory, and must end before")


class Trashed(Fields):
    id: str
    name: str = Field(description="what it was called")
    removed_at: str
    deleted_at: str = Field(description="when it is deleted for good")
    job: int | None = Field(description="the job that made it")
    labels: int = Field(description="features that were labelled")


class TrashList(Fields):
    trash: list[Trashed]


class Restored(Fields):
    sae: answers.Sae
    labels: bool = Field(description="it has the labels that it had; otherwise they went with an earlier database")


class Deleted(Fields):
    deleted: int = Field(description="how many went")


@route("PATCH", "/api/saes/{ref}", scope=Scope.WRITE, path=RefPath, body=SaeEdit, answer=answers.Sae,
       refusals=(NotFound, Conflict))  # fmt: skip
async def edit_sae(asked: Asked[None]) -> Any:
    """Give an SAE tags, take tags away, write a note on it."""
    body = asked.body
    notes = {"note": body.note} if "note" in body.model_fields_set else {}
    return await asked.app[LIBRARY].say(asked.path.ref, body.add_tags, body.remove_tags, notes)


@route("POST", "/api/saes/{ref}/rename", scope=Scope.WRITE, path=RefPath, body=NewName, answer=answers.Sae,
       refusals=(NotFound, Conflict))  # fmt: skip
async def rename_sae(asked: Asked[None]) -> Any:
    """Give an SAE another name. Its features, labels, marks, ranges and exports go with it, and profiles and runs of
    steering name it so; jobs that are over keep the name that they knew it by.
    """
    return await asked.app[LIBRARY].rename(asked.path.ref, asked.body.name)


@route("GET", "/api/saes/{ref}/dependents", scope=Scope.READ, path=RefPath, answer=Dependents, refusals=(NotFound,))
async def list_dependents(asked: Asked[None]) -> Any:
    """Say what depends on an SAE, and what goes with it when it is removed."""
    return await asked.app[LIBRARY].dependents(asked.path.ref)


@route("GET", "/api/trash", scope=Scope.READ, answer=TrashList)
async def list_trash(asked: Asked[None]) -> Any:
    """List the SAEs that were removed and can be restored, the newest first. Each is kept for 7 days."""
    return {"trash": [one.shown() for one in await asked.app[TRASH].all()]}


@route("POST", "/api/trash/{ref}/restore", scope=Scope.WRITE, path=TrashPath, body=Restoring, answer=Restored,
       refusals=(NotFound, Conflict))  # fmt: skip
async def restore_sae(asked: Asked[None]) -> Any:
    """Bring an SAE back out of the trash, under its name or another."""
    sae, labels = await asked.app[LIBRARY].restore(asked.path.ref, asked.body.name)
    return {"sae": sae, "labels": labels}


@route("DELETE", "/api/trash/{ref}", scope=Scope.WRITE, path=TrashPath, answer=Deleted, refusals=(NotFound, Conflict))
async def delete_trashed(asked: Asked[None]) -> Any:
    """Delete one SAE out of the trash for good."""
    return {"deleted": len(await asked.app[TRASH].empty(asked.path.ref))}


@route("DELETE", "/api/trash", scope=Scope.WRITE, answer=Deleted)
async def empty_trash(asked: Asked[None]) -> Any:
    """Delete everything in the trash for good."""
    return {"deleted": len(await asked.app[TRASH].empty())}


ROUTES = (edit_sae, rename_sae, list_dependents, list_trash, restore_sae, delete_trashed, empty_trash)
