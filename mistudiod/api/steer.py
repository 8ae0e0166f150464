"""What the session is asked here: steered texts beside their baselines, and ranges of strengths."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from mistudiod.api import steer_answers as answers
from mistudiod.api.asking import Asking, answered
from mistudiod.api.asks import RefPath, check_feature
from mistudiod.api.fields import Fields
from mistudiod.api.keys import INDEX, RANGES, STEERINGS
from mistudiod.api.route import Asked, route
from mistudiod.api.session import REFUSALS
from mistudiod.errors import NotFound
from mistudiod.specs import Calibrate, Precision, Steer
from mistudiod.tokens import Scope


class SteerRequest(Asking, Steer):
    """What a job of this kind takes, and how the session is to treat it."""


class RangesRequest(Asking):
    features: Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1, max_length=100)] = Field(
        description="indices of the features"
    )
    precision: Precision | None = Field(None, description="of the model: that in which the SAE was trained by default")


class RangesQuery(Fields):
    features: str | None = Field(
        None, max_length=4000, pattern=r"^\d{1,10}(,\d{1,10})*$", description="indices, as 3,17,401; all by default"
    )


@route("POST", "/api/steer", scope=Scope.WRITE, body=SteerRequest, answer=answers.Steered, streams=True,
       refusals=REFUSALS)  # fmt: skip
async def steer(asked: Asked[None]) -> Any:
    """Write texts with features amplified or suppressed, each beside its baseline; the run is kept.

    The model is loaded first if it is not. Hanging up stops the writing at the next token, and nothing is kept.
    """
    spec = Steer.model_validate(asked.body.model_dump(include=set(Steer.model_fields)))
    for n, edit in enumerate(spec.steering):
        check_feature(await asked.app[INDEX].get("sae", edit.sae or spec.sae), edit.feature, f"steering.{n}.feature")

    async def keep(result: dict[str, Any]) -> dict[str, Any]:
        return {**result, "id": await asked.app[STEERINGS].keep(spec.model_dump(), result)}

    return await answered(asked, spec, keep)


@route("POST", "/api/saes/{ref}/ranges", scope=Scope.WRITE, path=RefPath, body=RangesRequest,
       answer=answers.RangeList, streams=True, refusals=REFUSALS)  # fmt: skip
async def find_ranges(asked: Asked[None]) -> Any:
    """Find, by forward passes over held-out text, at which strengths features change the model by 0.1, 0.5 and 2 nats,
    and where texts fall apart; kept for the SAE as it is.
    """
    sae = await asked.app[INDEX].get("sae", asked.path.ref)
    for n, feature in enumerate(asked.body.features):
        check_feature(sae, feature, f"features.{n}")
    spec = Calibrate(sae=sae["name"], features=asked.body.features, precision=asked.body.precision)

    async def keep(result: dict[str, Any]) -> dict[str, Any]:
        ranges = await asked.app[RANGES].keep(spec.sae, result["sae_sha256"], result["ranges"])
        return {"sae": spec.sae, "ranges": ranges}

    return await answered(asked, spec, keep)


@route("GET", "/api/saes/{ref}/ranges", scope=Scope.READ, path=RefPath, query=RangesQuery, answer=answers.RangeList,
       refusals=(NotFound,))  # fmt: skip
async def list_ranges(asked: Asked[RangesQuery]) -> Any:
    """List the ranges that were found for an SAE as it is; those of an earlier state of it are left out."""
    sae = await asked.app[INDEX].get("sae", asked.path.ref)
    features = None if asked.query.features is None else list(map(int, asked.query.features.split(",")))
    return {"sae": sae["name"], "ranges": await asked.app[RANGES].of(sae["name"], sae.get("sae_sha256"), features)}


ROUTES = (steer, find_ranges, list_ranges)
