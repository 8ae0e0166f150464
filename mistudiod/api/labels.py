"""Labels of one feature and of all, and what they are worth; marks and lists; what asking would take."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from aiohttp import web
from pydantic import Field

from mistudiod.api import label_answers as answers
from mistudiod.api.asks import Id, Ref, RefPath
from mistudiod.api.body import encoded
from mistudiod.api.fields import Fields
from mistudiod.api.keys import GIVING, INDEX, LABELS
from mistudiod.api.route import Asked, route
from mistudiod.errors import Conflict, Invalid, NotFound
from mistudiod.labelling import cost
from mistudiod.specs import Label, Score
from mistudiod.tokens import Scope

_IMPORT_BYTES = 32 << 20


class LabelledFeaturePath(Fields):
    ref: Ref = Field(description="name or id of the SAE")
    index: int = Field(ge=0, lt=2**31, description="index of the feature")


class LabelPath(Fields):
    ref: Ref = Field(description="name or id of the SAE")
    id: Id = Field(description="id of the label")


class EstimateRequest(Fields):
    spec: Annotated[Label | Score, Field(discriminator="kind", description="of the job that might be")]


async def _sae(asked: Asked[Any]) -> str:
    return str((await asked.app[INDEX].get("sae", asked.path.ref))["name"])


async def _feature(asked: Asked[Any]) -> tuple[str, int, str | None]:
    """Name of the SAE, index of the feature, and the newest extraction. Raises NotFound."""
    sae = await asked.app[INDEX].get("sae", asked.path.ref)
    extraction = await asked.app[INDEX].newest_features(sae["name"])
    width, index = (extraction or {}).get("d_sae", sae.get("width")), asked.path.index
    if isinstance(width, int) and index >= width:
        raise NotFound(f"{sae['name']} has features 0 to {width - 1}")
    return sae["name"], index, extraction["name"].rpartition("/")[2] if extraction else None


@route(
    "GET", "/api/saes/{ref}/features/{index}/label", scope=Scope.READ, path=LabelledFeaturePath,
    answer=answers.FeatureLabel, refusals=(NotFound,),
)  # fmt: skip
async def show_label(asked: Asked[None]) -> Any:
    """Show what a feature is called."""
    sae, index, _ = await _feature(asked)
    label = (await asked.app[LABELS].about(sae, index))["label"]
    if label is None:
        raise NotFound(f"feature {index} of {sae} has no label")
    return label


@route(
    "PUT", "/api/saes/{ref}/features/{index}/label", scope=Scope.WRITE, path=LabelledFeaturePath,
    body=answers.LabelText, answer=answers.FeatureLabel, refusals=(NotFound,),
)  # fmt: skip
async def set_label(asked: Asked[None]) -> Any:
    """Say what a feature stands for. No machine's label takes the place of a person's."""
    sae, index, extraction = await _feature(asked)
    return await asked.app[LABELS].put(sae, index, asked.body.text, asked.body.explanation, extraction)


@route(
    "GET", "/api/saes/{ref}/features/{index}/labels", scope=Scope.READ, path=LabelledFeaturePath,
    answer=answers.LabelHistory, refusals=(NotFound,),
)  # fmt: skip
async def list_labels(asked: Asked[None]) -> Any:
    """List every label that a feature has had, with what it is worth."""
    sae, index, _ = await _feature(asked)
    return await asked.app[LABELS].history(sae, index)


@route(
    "PATCH", "/api/saes/{ref}/features/{index}", scope=Scope.WRITE, path=LabelledFeaturePath, body=answers.MarksEdit,
    answer=answers.Marks, refusals=(NotFound,),
)  # fmt: skip
async def mark_feature(asked: Asked[None]) -> Any:
    """Star a feature, write a note on it, put it in lists."""
    sae, index, _ = await _feature(asked)
    return await asked.app[LABELS].mark(sae, index, asked.body.model_dump(exclude_unset=True))


@route("GET", "/api/saes/{ref}/lists", scope=Scope.READ, path=RefPath, answer=answers.FeatureLists,
       refusals=(NotFound,))  # fmt: skip
async def list_lists(asked: Asked[None]) -> Any:
    """List the lists of an SAE's features."""
    return {"lists": await asked.app[LABELS].lists(await _sae(asked))}


@route("POST", "/api/saes/{ref}/labels/{id}/accept", scope=Scope.WRITE, path=LabelPath, answer=answers.FeatureLabel,
       refusals=(NotFound,))  # fmt: skip
async def accept_label(asked: Asked[None]) -> Any:
    """Let a label be its feature's, until a person changes it."""
    return await asked.app[LABELS].accept(await _sae(asked), asked.path.id)


@route("POST", "/api/saes/{ref}/labels/{id}/reject", scope=Scope.WRITE, path=LabelPath, answer=answers.FeatureLabel,
       refusals=(NotFound,))  # fmt: skip
async def reject_label(asked: Asked[None]) -> Any:
    """Let a label be its feature's no more; the next best of its history is, or none."""
    return await asked.app[LABELS].reject(await _sae(asked), asked.path.id)


@route("GET", "/api/saes/{ref}/labels/export", scope=Scope.READ, path=RefPath, media="application/x-ndjson",
       refusals=(NotFound,))  # fmt: skip
async def export_labels(asked: Asked[None]) -> web.StreamResponse:
    """Download every label of an SAE's features with what it is worth, one JSON object a line."""
    sae = await _sae(asked)
    response = web.StreamResponse(headers={"Content-Disposition": f'attachment; filename="{sae}-labels.ndjson"'})
    response.content_type = "application/x-ndjson"
    await response.prepare(asked.request)
    after = 0
    while asked.request.method != "HEAD" and (labels := await asked.app[LABELS].export(sae, after)):
        await response.write("".join(f"{encoded(one)}\n" for one in labels).encode(errors="replace"))
        after = labels[-1]["id"]
    return response


@route("POST", "/api/saes/{ref}/labels/import", scope=Scope.WRITE, path=RefPath, body=answers.LabelImport,
       answer=answers.LabelsImported, refusals=(NotFound,), body_bytes=_IMPORT_BYTES)  # fmt: skip
async def import_labels(asked: Asked[None]) -> Any:
    """Take in labels as they are exported. What a person has said here stays."""
    sae = await asked.app[INDEX].get("sae", asked.path.ref)
    extraction = await asked.app[INDEX].newest_features(sae["name"])
    width = (extraction or {}).get("d_sae", sae.get("width"))
    highest = max((one.feature for one in asked.body.labels), default=0)
    if isinstance(width, int) and highest >= width:
        raise Invalid(
            f"{sae['name']} has features 0 to {width - 1}: there is no feature {highest}",
            {"labels": f"feature must be 0 to {width - 1}"},
        )
    labels = [one.model_dump(exclude_none=True) for one in asked.body.labels]
    return await asked.app[LABELS].take_in(sae["name"], labels)


@route("GET", "/api/saes/{ref}/labels/summary", scope=Scope.READ, path=RefPath, answer=answers.LabelSummary,
       refusals=(NotFound,))  # fmt: skip
async def show_labels(asked: Asked[None]) -> Any:
    """Say how many features are labelled and by whom, why others are not, and what the labels are worth."""
    return await asked.app[LABELS].summary(await _sae(asked))


@route("POST", "/api/saes/{ref}/labels/estimate", scope=Scope.READ, path=RefPath, body=EstimateRequest,
       answer=answers.Estimate, refusals=(NotFound, Conflict))  # fmt: skip
async def estimate_labels(asked: Asked[None]) -> Any:
    """Say what a job of labelling or scoring would take: calls, tokens, money; and its lane."""
    spec = asked.body.spec.model_copy(update={"sae": await _sae(asked)})
    given = await asked.app[GIVING].given(spec)
    template = given.template.text if given.template else ""
    try:
        return await asyncio.to_thread(cost.estimate, spec, given.store, given.features, template, given.endpoint)
    except ValueError as error:
        raise Conflict(str(error)) from None


ROUTES = (
    show_label, set_label, list_labels, mark_feature, list_lists, accept_label, reject_label, export_labels,
    import_labels, show_labels, estimate_labels,
)  # fmt: skip
