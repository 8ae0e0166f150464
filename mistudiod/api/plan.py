"""Plans: what can be asked of a training, and what it takes, by what is known of its text and what is free now."""

from __future__ import annotations

import functools
from typing import Any

from pydantic import Field

from mistudiod.api.fields import Fields
from mistudiod.api.keys import PLANNING
from mistudiod.api.plans import PlanAnswer
from mistudiod.api.route import Asked, route
from mistudiod.errors import NotFound, TooMany
from mistudiod.specs import PRESETS, Train
from mistudiod.tokens import Scope


class PlanRequest(Fields):
    """What POST /api/plan takes."""

    spec: Train


class TrainingPlan(PlanAnswer):
    names: list[str] = Field(description="of the SAEs that are made")


class TrainingSpec(Fields):
    fields: dict[str, Any] = Field(description="JSON schema of each field: what it is, its default, what it may be")
    presets: dict[str, dict[str, int]] = Field(description="the fields that each preset sets, unless they are given")


@route("GET", "/api/specs/train", scope=Scope.READ, answer=TrainingSpec)
async def show_training_spec(asked: Asked[None]) -> Any:
    """Say what can be asked of a training: its fields with their defaults, and what the presets set."""
    return {"fields": _fields(), "presets": PRESETS}


@functools.cache
def _fields() -> dict[str, Any]:
    fields: dict[str, Any] = Train.model_json_schema()["properties"]
    return fields


@route("POST", "/api/plan", scope=Scope.READ, body=PlanRequest, answer=TrainingPlan, refusals=(NotFound, TooMany))
async def make_plan(asked: Asked[None]) -> Any:
    """Say what a training would take: memory part by part, disk and time; whether it fits, and what would."""
    spec = asked.body.spec
    made = await asked.app[PLANNING].plan(spec)
    return {**made.about(), "names": [one.name for one in spec.saes()]}


ROUTES = (show_training_spec, make_plan)
