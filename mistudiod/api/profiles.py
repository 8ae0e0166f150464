"""Profiles: edits kept under a name, for the endpoint and for the command line."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from mistudiod.api import steer_answers as answers
from mistudiod.api.asks import check_feature
from mistudiod.api.fields import Fields
from mistudiod.api.keys import INDEX, PROFILES
from mistudiod.api.route import Asked, route
from mistudiod.errors import Conflict, Invalid, NotFound
from mistudiod.index import Index
from mistudiod.profiles import Profile, ProfileName
from mistudiod.specs.steer import MOST_EDITS, Edit
from mistudiod.tokens import Scope
from mistudiod.wanted import wanted


class ProfilePath(Fields):
    name: ProfileName = Field(description="name of the profile")


class ProfileRequest(Fields):
    name: ProfileName = Field(description="what it is called, such as python+2")
    steering: Annotated[list[Edit], Field(min_length=1, max_length=MOST_EDITS)] = Field(
        description="features and what is done to them, each with its SAE; all SAEs of one model"
    )
    note: str | None = Field(None, max_length=10_000, description="null or empty: none")
    replace: bool = Field(False, description="put it in the place of the one of that name")


@route("GET", "/api/profiles", scope=Scope.READ, answer=answers.ProfileList)
async def list_profiles(asked: Asked[None]) -> Any:
    """List the profiles by name."""
    index = asked.app[INDEX]
    return {"profiles": [await _shown(index, one) for one in await asked.app[PROFILES].all()]}


@route("GET", "/api/profiles/{name}", scope=Scope.READ, path=ProfilePath, answer=answers.Profile, refusals=(NotFound,))
async def show_profile(asked: Asked[None]) -> Any:
    """Show a profile, and what of that which it names is not here any more."""
    return await _shown(asked.app[INDEX], await asked.app[PROFILES].get(asked.path.name))


@route("POST", "/api/profiles", scope=Scope.WRITE, body=ProfileRequest, answer=answers.Profile, status=201,
       refusals=(NotFound, Conflict))  # fmt: skip
async def save_profile(asked: Asked[None]) -> Any:
    """Keep edits under a name. Of which model they are, their SAEs say."""
    body, index = asked.body, asked.app[INDEX]
    model = await _model_of(index, body.steering)
    profile = await asked.app[PROFILES].put(body.name, model, body.steering, body.note, body.replace)
    return await _shown(index, profile)


@route("DELETE", "/api/profiles/{name}", scope=Scope.WRITE, path=ProfilePath, refusals=(NotFound,))
async def remove_profile(asked: Asked[None]) -> None:
    """Forget a profile."""
    await asked.app[PROFILES].remove(asked.path.name)


async def _model_of(index: Index, steering: list[Edit]) -> str:
    """The model of all the SAEs. Raises NotFound, Invalid."""
    saes = []
    for n, edit in enumerate(steering):
        if edit.sae is None:
            raise Invalid(f"edit {n} of the profile has no SAE: name it", {f"steering.{n}.sae": "is missing"})
        check_feature(await index.get("sae", edit.sae), edit.feature, f"steering.{n}.feature")
        saes.append(edit.sae)
    return (await wanted(index, None, saes, None, "steering")).model


async def _shown(index: Index, profile: Profile) -> dict[str, Any]:
    named = [("model", profile["model"])]
    named += [("sae", name) for name in dict.fromkeys(edit["sae"] for edit in profile["steering"])]
    return {**profile, "missing": [name for noun, name in named if not await _is_there(index, noun, name)]}


async def _is_there(index: Index, noun: str, name: str) -> bool:
    try:
        return bool(await index.get(noun, name))
    except NotFound:
        return False


ROUTES = (list_profiles, show_profile, save_profile, remove_profile)
