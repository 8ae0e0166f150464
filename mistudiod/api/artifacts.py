"""Models, datasets, tokenizations and SAEs: list, show, remove."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import Field

from mistudiod.api import answers
from mistudiod.api.asks import PageQuery, RefPath, after
from mistudiod.api.fields import Page
from mistudiod.api.keys import INDEX, JOBS, LIBRARY
from mistudiod.api.route import Asked, Route
from mistudiod.errors import Conflict, NotFound
from mistudiod.tokens import Scope

_NAMED = 10  # of those that need something, in a sentence


class ArtifactsQuery(PageQuery):
    limit: int = Field(1000, ge=1, le=1000, description="how many at most")


def of_noun(noun: str, one: type[answers.Artifact], page: type[Page]) -> Iterator[Route]:
    """The routes that every noun has."""

    async def list_all(asked: Asked[ArtifactsQuery]) -> Any:
        limit = asked.query.limit
        found = await asked.app[INDEX].all(noun, limit + 1, after(asked.query.cursor))
        return {f"{noun}s": found[:limit], "next": str(found[limit - 1]["id"]) if len(found) > limit else None}

    async def show(asked: Asked[None]) -> Any:
        return await asked.app[INDEX].get(noun, asked.path.ref)

    async def remove(asked: Asked[None]) -> None:
        if noun == "sae":
            await asked.app[LIBRARY].remove(asked.path.ref)
            return
        name = (await asked.app[INDEX].get(noun, asked.path.ref))["name"]
        if users := await asked.app[JOBS].users_of(noun, name):
            raise Conflict(f"job {users[0]} uses the {noun} {name!r}; stop it first or wait for its end")
        if needing := await asked.app[INDEX].needing(noun, name):
            raise Conflict(f"the {noun} {name!r} is needed by {_listed(needing)}; remove what needs it first")
        await asked.app[INDEX].remove(noun, name)

    list_all.__doc__ = f"List the {noun}s, in the order in which they came."
    show.__doc__ = f"Show one {noun}."
    remove.__doc__ = f"Delete one {noun} with its files."
    if noun == "sae":
        remove.__doc__ = (
            "Put one SAE, with its features, labels and exports, into the trash, where it stays for 7 days."
        )
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


ROUTES = (
    *of_noun("model", answers.Model, answers.ModelPage),
    *of_noun("dataset", answers.Dataset, answers.DatasetPage),
    *of_noun("tokenization", answers.Tokenization, answers.TokenizationPage),
    *of_noun("sae", answers.Sae, answers.SaePage),
)
