"""Plans: what a training will take, from what is known of its model and tokenization and from what is free now."""

from __future__ import annotations

from typing import Any

from mistudiod.api.fields import Fields
from mistudiod.api.keys import PLANNING
from mistudiod.api.plans import PlanAnswer
from mistudiod.api.route import Asked, route
from mistudiod.errors import NotFound, TooMany
from mistudiod.specs import Train
from mistudiod.tokens import Scope


class PlanRequest(Fields):
    """What POST /api/plan takes."""

    spec: Train


@route("POST", "/api/plan", scope=Scope.READ, body=PlanRequest, answer=PlanAnswer, refusals=(NotFound, TooMany))
async def make_plan(asked: Asked[None]) -> Any:
    """Say what a training would take: memory part by part, disk and time; whether it fits, and what would."""
    return (await asked.app[PLANNING].plan(asked.body.spec)).about()
