"""The history of steering: listed, shown, starred, taken out as one file."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal

from aiohttp import web
from pydantic import Field, model_validator

from mistudiod.api import steer_answers as answers
from mistudiod.api.asks import Id, PageQuery
from mistudiod.api.fields import Fields
from mistudiod.api.keys import LABELS, STEERINGS
from mistudiod.api.route import Asked, route
from mistudiod.errors import NotFound
from mistudiod.labels import Labels
from mistudiod.specs import Name
from mistudiod.steering_page import render
from mistudiod.steerings import Steering
from mistudiod.tokens import Scope


class SteeringPath(Fields):
    id: Id = Field(description="the steering's id")


class SteeringsQuery(PageQuery):
    sae: Name | None = Field(None, description="only those of this SAE, also one that is gone")
    starred: bool | None = Field(None, description="only those that are starred, or that are not")
    q: str | None = Field(None, min_length=1, max_length=200, description="words in prompt and note, or parts of words")


class ExportQuery(Fields):
    format: Literal["json", "html"] = Field("json", description="one JSON object, or one page to look at")


class SteeringEdit(Fields):
    """What is left out stays as it is."""

    starred: bool | None = None
    note: str | None = Field(None, max_length=10_000, description="null or empty: none")

    @model_validator(mode="after")
    def _something(self) -> SteeringEdit:
        if not self.model_fields_set:
            raise ValueError("give at least one of starred and note")
        if "starred" in self.model_fields_set and self.starred is None:
            raise ValueError("starred cannot be null")
        return self


@route("GET", "/api/steerings", scope=Scope.READ, query=SteeringsQuery, answer=answers.SteeringPage)
async def list_steerings(asked: Asked[SteeringsQuery]) -> Any:
    """List the runs of steering, the newest first; of those that are not starred the newest 1,000 are kept."""
    query = asked.query
    before = int(query.cursor) if query.cursor else 2**62
    found = await asked.app[STEERINGS].page(query.limit + 1, before, query.sae, query.starred, query.q)
    following = str(found[query.limit - 1]["id"]) if len(found) > query.limit else None
    return {"steerings": found[: query.limit], "next": following}


@route("GET", "/api/steerings/{id}", scope=Scope.READ, path=SteeringPath, answer=answers.KeptSteering,
       refusals=(NotFound,))  # fmt: skip
async def show_steering(asked: Asked[None]) -> Any:
    """Show a run: what was asked, the texts, the measures, and what it was made with."""
    return await asked.app[STEERINGS].get(asked.path.id)


@route("PATCH", "/api/steerings/{id}", scope=Scope.WRITE, path=SteeringPath, body=SteeringEdit,
       answer=answers.KeptSteering, refusals=(NotFound,))  # fmt: skip
async def edit_steering(asked: Asked[None]) -> Any:
    """Star a run, which then is kept for good, or write a note on it."""
    return await asked.app[STEERINGS].edit(asked.path.id, asked.body.model_dump(exclude_unset=True))


@route("DELETE", "/api/steerings/{id}", scope=Scope.WRITE, path=SteeringPath, refusals=(NotFound,))
async def remove_steering(asked: Asked[None]) -> None:
    """Forget a run."""
    await asked.app[STEERINGS].remove(asked.path.id)


@route("GET", "/api/steerings/{id}/export", scope=Scope.READ, path=SteeringPath, query=ExportQuery,
       answer=answers.ExportedSteering, also="text/html", refusals=(NotFound,))  # fmt: skip
async def export_steering(asked: Asked[ExportQuery]) -> web.Response:
    """Download a run as one file: JSON with all that is known of it, or a static page to show to others."""
    steering = await asked.app[STEERINGS].get(asked.path.id)
    labels = await _labels(asked.app[LABELS], steering)
    if asked.query.format == "html":
        text, media = await asyncio.to_thread(render, steering, labels), "text/html"
    else:
        whole = {"format": "mistudio-steering", "version": 1, "steering": steering, "labels": labels}
        text, media = json.dumps(whole, ensure_ascii=False, allow_nan=False, indent=1), "application/json"
    name = f"steering-{steering['id']}.{asked.query.format}"
    return web.Response(
        body=text.encode(errors="replace"),
        content_type=media,
        charset="utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


async def _labels(labels: Labels, steering: Steering) -> list[dict[str, Any]]:
    """``[{"sae", "feature", "label": text | None}]``, each feature once, in the order of the edits."""
    features: dict[str, list[int]] = {}
    for edit in steering["spec"]["steering"]:
        features.setdefault(edit["sae"] or steering["sae"], []).append(edit["feature"])
    found = []
    for sae, indices in features.items():
        for index, about in (await labels.of(sae, list(dict.fromkeys(indices)))).items():
            found.append({"sae": sae, "feature": index, "label": (about["label"] or {}).get("text")})
    return found


ROUTES = (list_steerings, show_steering, edit_steering, remove_steering, export_steering)
