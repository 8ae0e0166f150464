"""Models, datasets, tokenizations and SAEs: list, show, remove; an SAE's features."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import Field

from mistudiod.api import answers
from mistudiod.api.asks import PageQuery, Ref, RefPath, after
from mistudiod.api.fields import Fields, Page
from mistudiod.api.keys import INDEX, JOBS
from mistudiod.api.route import Asked, Route, route
from mistudiod.errors import Conflict, NotFound
from mistudiod.index import from_json
from mistudiod.specs import USES
from mistudiod.tokens import Scope

_NAMED = 10  # of those that need something, in a sentence


class ArtifactsQuery(PageQuery):
    limit: int = Field(1000, ge=1, le=1000, description="how many at most")


class FeaturePath(Fields):
    ref: Ref = Field(description="name or id of the SAE")
    index: int = Field(ge=0, lt=2**31, description="index of the feature")


def of_noun(noun: str, one: type[answers.Artifact], page: type[Page]) -> Iterator[Route]:
    """The routes that every noun has."""

    async def list_all(asked: Asked[ArtifactsQuery]) -> Any:
        limit = asked.query.limit
        found = await asked.app[INDEX].all(noun, limit + 1, after(asked.query.cursor))
        return {f"{noun}s": found[:limit], "next": str(found[limit - 1]["id"]) if len(found) > limit else None}

    async def show(asked: Asked[None]) -> Any:
        return await asked.app[INDEX].get(noun, asked.path.ref)

    async def remove(asked: Asked[None]) -> None:
        artifact = await asked.app[INDEX].get(noun, asked.path.ref)
        name = artifact["name"]
        if users := await asked.app[JOBS].users_of(noun, name, USES):
            raise Conflict(f"job {users[0]} uses the {noun} {name!r}; stop it first or wait for its end")
        if needing := await asked.app[INDEX].needing(noun, name):
            raise Conflict(f"the {noun} {name!r} is needed by {_listed(needing)}; remove what needs it first")
        await asked.app[INDEX].remove(noun, name)

    list_all.__doc__ = f"List the {noun}s, in the order in which they came."
    show.__doc__ = f"Show one {noun}."
    remove.__doc__ = f"Delete one {noun} with its files."
    url = f"/api/{noun}s"
    yield Route("GET", url, list_all, Scope.READ, f"list_{noun}s", answer=page, query=ArtifactsQuery)
    url += "/{ref}"
    known = {"path": RefPath, "refusals": (NotFound,)}
    yield Route("GET", url, show, Scope.READ, f"show_{noun}", answer=one, tagged=True, **known)  # type: ignore[arg-type]
    known["refusals"] = (NotFound, Conflict)
    yield Route("DELETE", url, remove, Scope.WRITE, f"remove_{noun}", **known)  # type: ignore[arg-type]


def _listed(artifacts: list[tuple[str, str]]) -> str:
    named = [f"the {'SAE' if noun == 'sae' else noun} {name}" for noun, name in artifacts]
    more = [f"{len(named) - _NAMED:,} more"] if len(named) > _NAMED else []
    *others, last = named[:_NAMED] + more
    return f"{', '.join(others)} and {last}" if others else last


@route(
    "GET", "/api/saes/{ref}/features", scope=Scope.READ, path=RefPath, query=ArtifactsQuery, answer=answers.FeaturePage,
    refusals=(NotFound,),
)  # fmt: skip
async def list_features(asked: Asked[ArtifactsQuery]) -> Any:
    """List the features of an SAE's newest extraction, each with its best example only."""
    sae, path = await _newest_features(asked)
    begin, limit = after(asked.query.cursor), asked.query.limit
    found = await asyncio.to_thread(_brief, path, begin, limit + 1)
    return {"sae": sae, "features": found[:limit], "next": str(begin + limit) if len(found) > limit else None}


@route(
    "GET", "/api/saes/{ref}/features/{index}", scope=Scope.READ, path=FeaturePath, answer=answers.FeatureOfSae,
    refusals=(NotFound,),
)  # fmt: skip
async def show_feature(asked: Asked[None]) -> Any:
    """Show one feature with all its examples."""
    sae, path = await _newest_features(asked)
    one = await asyncio.to_thread(_one, path, asked.path.index)
    if one is None:
        raise NotFound(f"feature {asked.path.index} of {sae} has no examples yet; the extraction kept others")
    return {"sae": sae, **one}


async def _newest_features(asked: Asked[Any]) -> tuple[str, Path]:
    sae = (await asked.app[INDEX].get("sae", asked.path.ref))["name"]
    extraction = await asked.app[INDEX].newest_features(sae)
    if extraction is None:
        raise NotFound(f"no features of {sae} have been extracted yet; run: mistudio feature extract {sae}")
    return sae, Path(extraction["folder"]) / "features.jsonl"


def _brief(path: Path, begin: int, limit: int) -> list[dict[str, Any]]:
    with _features(path) as found:
        return [{**one, "examples": one["examples"][:1]} for one in islice(found, begin, begin + limit)]


def _one(path: Path, index: int) -> dict[str, Any] | None:
    with _features(path) as found:
        return next((one for one in found if one["index"] == index), None)


@contextmanager
def _features(path: Path) -> Iterator[Iterator[dict[str, Any]]]:
    """One after the other: in memory all of them would be ten times the file. No line but "\\n" ends one."""
    with open(path, encoding="utf-8", newline="\n") as file:
        yield (from_json(line) for line in file if line.strip())


ROUTES = (
    *of_noun("model", answers.Model, answers.ModelPage),
    *of_noun("dataset", answers.Dataset, answers.DatasetPage),
    *of_noun("tokenization", answers.Tokenization, answers.TokenizationPage),
    *of_noun("sae", answers.Sae, answers.SaePage),
    list_features,
    show_feature,
)
