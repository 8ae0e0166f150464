"""The features of an SAE's newest extraction: listed, shown, found in the text, compared, exported.

Whatever reads a store or turns much into JSON does so in a thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import pydantic_core
from aiohttp import web
from pydantic import Field

from mistudiod.api import feature_answers as answers
from mistudiod.api.asks import PageQuery, Ref, RefPath, after
from mistudiod.api.body import encoded
from mistudiod.api.fields import Fields
from mistudiod.api.keys import INDEX, LABELS, RANGES, STORES
from mistudiod.api.route import Asked, route
from mistudiod.errors import Conflict, Invalid, NotFound
from mistudiod.facts import UnknownModel
from mistudiod.feature_places import cosine, occurrences, together
from mistudiod.feature_query import Filter, parse_filter, parse_sort, select
from mistudiod.labels import Labels
from mistudiod.pages import Pages
from mistudiod.ranges import Ranges
from mistudiod.tokens import Scope

log = logging.getLogger("mistudiod.api")
_EXPORTED = 16  # features at once
_SCANS = ThreadPoolExecutor(2, "scan")  # of all places of a feature: pages never wait for those
T = TypeVar("T")
FeatureIndex = Annotated[int, Field(ge=0, lt=2**31)]


class FeaturePath(Fields):
    ref: Ref = Field(description="name or id of the SAE")
    index: FeatureIndex = Field(description="index of the feature")


class FeaturesQuery(PageQuery):
    sort: str = Field(
        "index",
        max_length=20,
        description="index, density, max, typical, token, label or score; - in front reverses. What has nothing to "
        "sort by, as a dead feature or one without a label, is last either way",
    )
    filter: str = Field(
        "",
        max_length=1000,
        description="terms with spaces between, all must hold: dead, alive, labelled, unlabelled, failed (the last try "
        "at a label gave none), starred, density<0.01, max>3, score>0.7 (each with < or >), provider:ollama, "
        'list:NAME, token:import, token:" import", index:5,12',
    )
    q: str | None = Field(None, min_length=1, max_length=200, description="words in labels and explanations")
    example: bool = Field(False, description="with the strongest example of each")


class OccurrencesQuery(PageQuery):
    above: float = Field(0.0, ge=0, description="the least activation")
    cursor: str | None = Field(
        None,
        max_length=40,
        pattern=r"^[0-9]{1,18}(-[0-9]{1,18})?$",
        description="next of the page before; it carries the total, which is counted once",
    )


class ComparedQuery(Fields):
    a: FeatureIndex = Field(description="index of one feature")
    b: FeatureIndex = Field(description="index of the other")


@dataclass(frozen=True)
class Extraction:
    sae: str
    sha256: str | None  # of its weights, as its folder says
    folder: Path  # of the SAE
    id: str
    pages: Pages
    labels: Labels
    ranges: Ranges

    @property
    def named(self) -> dict[str, str]:
        return {"sae": self.sae, "extraction": self.id}

    def check(self, index: int) -> None:
        if index >= self.pages.d_sae:
            raise NotFound(f"{self.sae} has features 0 to {self.pages.d_sae - 1}")

    async def said_of(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """What is known of each feature besides what its extraction has found."""
        labels = await self.labels.about_each(self.sae, indices)
        ranges = {one["feature"]: one for one in await self.ranges.of(self.sae, self.sha256, indices)}
        return [{**about, "range": ranges.get(index)} for index, about in zip(indices, labels, strict=True)]

    async def read(self, function: Callable[..., T], *given: Any) -> T:
        """In a thread; Conflict when the store turns out to be damaged, or lacks what is needed."""
        return await self._in(None, function, *given)

    async def scan(self, function: Callable[[], T]) -> T:
        """As ``read``, what may take seconds."""
        return await self._in(_SCANS, function)

    async def _in(self, threads: ThreadPoolExecutor | None, function: Callable[..., T], *given: Any) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(threads, function, *given)
        except ValueError as error:
            raise Conflict(str(error)) from None


@route(
    "GET", "/api/saes/{ref}/features", scope=Scope.READ, path=RefPath, query=FeaturesQuery, answer=answers.FeaturePage,
    refusals=(NotFound, Conflict),
)  # fmt: skip
async def list_features(asked: Asked[FeaturesQuery]) -> Any:
    """List the features of an SAE's newest extraction, sorted and filtered, dead ones too."""
    query = asked.query
    sort, wanted = _parsed("sort", parse_sort, query.sort), _parsed("filter", parse_filter, query.filter)
    one = await opened(asked)
    among = [await one.labels.matching(one.sae, **conditions) for conditions in _asked_of_labels(wanted, query.q)]
    known = await one.labels.order(one.sae, sort[0]) if sort[0] in ("label", "score") else []
    selected = await one.read(select, one.pages, sort, wanted.store, among, known)
    begin, end = after(query.cursor), after(query.cursor) + query.limit
    indices = list(selected[begin:end])
    about = await one.labels.of(one.sae, indices)
    found = {"total": len(selected), "next": str(end) if end < len(selected) else None}
    answer = await one.read(
        lambda: encoded_rows(one.named | found | {"features": _rows(one.pages, indices, about, query.example)})
    )
    return response_of(answer)


@route(
    "GET", "/api/saes/{ref}/features/compare", scope=Scope.READ, path=RefPath, query=ComparedQuery,
    answer=answers.Comparison, refusals=(NotFound, Conflict),
)  # fmt: skip
async def compare_features(asked: Asked[ComparedQuery]) -> Any:
    """Compare two features of an SAE: their directions, and where both fire."""
    one, (a, b) = await opened(asked), (asked.query.a, asked.query.b)
    one.check(max(a, b))
    about = await one.labels.of(one.sae, [a, b])

    def compared() -> bytes:
        rows = dict(zip("ab", _rows(one.pages, [a, b], about), strict=True))
        return encoded_rows(one.named | rows | {"cosine": _cosine(one.folder, a, b)} | together(one.pages, a, b))

    return response_of(await one.scan(compared))


@route(
    "GET", "/api/saes/{ref}/features/export", scope=Scope.READ, path=RefPath, media="application/x-ndjson",
    refusals=(NotFound, Conflict),
)  # fmt: skip
async def export_features(asked: Asked[None]) -> web.StreamResponse:
    """Download all features of an SAE's newest extraction with their labels, one JSON object a line."""
    one = await opened(asked)
    headers = {"Content-Disposition": f'attachment; filename="{one.sae}-{one.id}.ndjson"'}
    response = web.StreamResponse(headers=headers)
    response.content_type = "application/x-ndjson"
    await response.prepare(asked.request)
    if asked.request.method == "HEAD":
        return response
    try:
        for begin in range(0, one.pages.d_sae, _EXPORTED):
            indices = range(begin, min(begin + _EXPORTED, one.pages.d_sae))
            about = await one.said_of(indices)
            await response.write(await asyncio.to_thread(_lines, one, indices, about))
    except ConnectionError:
        pass  # the reader has gone
    except ValueError as error:  # too late for a refusal: the reader is to see that there should be more
        log.error("the export of %s ends at feature %d: %s", one.sae, begin, error)
        if asked.request.transport:
            asked.request.transport.abort()
    return response


@route(
    "GET", "/api/saes/{ref}/features/{index}", scope=Scope.READ, path=FeaturePath, answer=answers.Feature,
    refusals=(NotFound, Conflict),
)  # fmt: skip
async def show_feature(asked: Asked[None]) -> Any:
    """Show all that is known of one feature."""
    one, index = await opened(asked), asked.path.index
    one.check(index)
    page, (about,) = await asyncio.gather(
        one.read(lambda: encoded_rows(one.named | one.pages.page(index))), one.said_of([index])
    )
    return response_of(page[:-1] + b"," + encoded(about).encode(errors="replace")[1:])  # two objects become one


@route(
    "GET", "/api/saes/{ref}/features/{index}/occurrences", scope=Scope.READ, path=FeaturePath, query=OccurrencesQuery,
    answer=answers.OccurrencePage, refusals=(NotFound, Conflict),
)  # fmt: skip
async def list_occurrences(asked: Asked[OccurrencesQuery]) -> Any:
    """Find every place where a feature fires in the text that was read."""
    one, index, query = await opened(asked), asked.path.index, asked.query
    one.check(index)

    begin, _, total = (query.cursor or "0").partition("-")

    def found() -> bytes:
        places = occurrences(one.pages, index, query.above, int(begin), query.limit, int(total) if total else None)
        following = None if places["next"] is None else f"{places['next']}-{places['total']}"
        return encoded_rows(one.named | {"index": index} | places | {"next": following})

    return response_of(await one.scan(found))


async def opened(asked: Asked[Any]) -> Extraction:
    """Raises Conflict, one sentence, when the newest extraction is not one of the SAE as it is, or cannot be read."""
    sae, extraction = await asked.app[INDEX].with_features(asked.path.ref)
    name = sae["name"]
    if extraction is None:
        raise NotFound(f"no features of {name} have been extracted yet; run: mistudio feature extract {name}")
    try:
        pages = await asked.app[STORES].get(Path(extraction["folder"]))
    except ValueError as error:
        raise Conflict(str(error)) from None
    id = extraction["name"].rpartition("/")[2]
    if sae.get("width", pages.d_sae) != pages.d_sae:
        raise Conflict(f"extraction {id} has {pages.d_sae} features, and {name} has {sae['width']}: extract them again")
    made_of = pages.manifest.get("sae_sha256")
    if sae.get("sae_sha256", made_of) != made_of:
        raise Conflict(f"{name} was trained further since extraction {id}: extract the features again")
    labels, ranges = asked.app[LABELS], asked.app[RANGES]
    return Extraction(name, sae.get("sae_sha256"), Path(sae["folder"]), id, pages, labels, ranges)


def _parsed(field: str, parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise Invalid(str(error), {field: str(error)}) from None


def _asked_of_labels(wanted: Filter, q: str | None) -> list[dict[str, Any]]:
    return wanted.labels + ([{"q": q}] if q else [])


def _rows(
    pages: Pages, indices: list[int], about: dict[int, dict[str, Any]], example: bool = False
) -> list[dict[str, Any]]:
    return [
        pages.row(index) | about[index] | ({"example": pages.example(index)} if example else {}) for index in indices
    ]


def _lines(one: Extraction, indices: range, about: list[dict[str, Any]]) -> bytes:
    lines = [one.named | one.pages.page(index) | known for index, known in zip(indices, about, strict=True)]
    return b"".join(encoded_rows(line) + b"\n" for line in lines)


def _cosine(folder: Path, a: int, b: int) -> float | None:
    try:
        return cosine(folder / "sae_weights.safetensors", a, b)
    except (OSError, UnknownModel):
        return None


def encoded_rows(data: dict[str, Any]) -> bytes:
    """As ``body.encoded``, four times as quickly; a store has no NaN, and of its texts each can be written."""
    return pydantic_core.to_json(data, inf_nan_mode="null")


def response_of(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")


ROUTES = (list_features, compare_features, export_features, show_feature, list_occurrences)
