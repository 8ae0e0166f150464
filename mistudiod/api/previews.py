"""Answers at once, by a short worker run: a source before it is stored, a dataset's documents, a text's tokens.

And what is here already without the studio: the models in the machine's Hugging Face cache.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from mistudiod import hub_cache
from mistudiod.api.asks import RefPath
from mistudiod.api.fields import Described, Fields
from mistudiod.api.keys import COMMAND, INDEX, PATHS, SECRETS, SETTINGS, UPLOADS
from mistudiod.api.route import Asked, route
from mistudiod.errors import NotFound, TooMany
from mistudiod.peer import same_user
from mistudiod.preview import PreviewFailed, preview
from mistudiod.secret import SecretsUnusable
from mistudiod.sources import resolve
from mistudiod.specs import PreviewDataset, PreviewFilters, PreviewModel, PreviewSae, PreviewTokens, SampleDataset, Spec
from mistudiod.tokens import Scope


class Row(Described):
    text: str = Field(description="its beginning, when it is long")
    characters: int | None = Field(None, description="of the whole text")
    row: int | None = Field(None, description="its number among the stored rows")
    continues: bool | None = Field(None, description="it goes on the document of the row before")


class Rows(Described):
    rows: list[Row]
    offset: int | None = None
    total: int | None = Field(None, description="stored rows in all")


class Column(Fields):
    name: str
    type: str


class DatasetPreview(Described):
    source: str
    revision: str | None = None
    licence: str | None = None
    config: str | None = Field(None, description="of a dataset of the Hub: the one that is shown")
    configs: list[str] | None = Field(None, description="those that there are; when none is shown, name one")
    split: str | None = None
    splits: list[str] | None = None
    files: int | None = None
    bytes: int | None = Field(None, description="size of the whole source")
    documents: int | None = None
    columns: list[Column] | None = None
    text_columns: list[str] | None = Field(None, description="those that hold text")
    text_column: str | None = Field(None, description="the one that would be taken; null: name one")
    rows: list[dict[str, Any]] | None = Field(None, description="the first rows")


class ModelPreview(Fields):
    """Null is what there is not, or what nobody can say without access."""

    source: str
    revision: str | None = Field(description="commit on the Hub")
    licence: str | None
    page: str | None = Field(description="on the Hub, where access is asked for")
    gated: bool | None = Field(description="its files are given only to those who have asked for access")
    why: str | None = Field(description="why it cannot be added as things stand; null: it can")
    missing_bytes: int = Field(description="that adding it would download; 0: all of it is on this machine")
    family: str | None = Field(description="model_type of its config")
    n_layers: int | None = Field(description="blocks")
    d_model: int | None = Field(description="width of the residual stream")
    context: int | None = Field(description="longest sequence, in tokens")
    vocab_size: int | None
    parameters: int | None = Field(description="by the headers of its weights; as the Hub says where those are closed")
    dtype: str | None = Field(description="of the weights that are not quantised")
    quantized: str | None = Field(description="the precision in which the weights are stored quantised")
    size_bytes: int | None = Field(description="of the weight files")
    weight_bytes: dict[str, int] | None = Field(description="of the model in each precision it can be loaded in")
    hooks: int | None = Field(description="how many hook points it has")


class PublishedSae(Fields):
    """Null is what its files do not say, or only its weights would."""

    path: str = Field(description="in the source; what is named is source:path")
    format: str = Field(description="whose layout it is")
    layer: int | None
    width: int | None = Field(description="how many latents")
    l0: float | None = Field(description="latents active on a token, as its maker says")
    hook: str | None = Field(description="what it reads, by TransformerLens' name")
    model: str | None = Field(description="as its maker calls it")
    pickle: bool = Field(description="it is brought in only with allow_pickle")
    bytes: int = Field(description="of the files that are fetched for it")


class SaePreview(Described):
    source: str
    revision: str | None = Field(None, description="commit on the Hub")
    licence: str | None = None
    count: int = Field(0, description="how many SAEs there are")
    saes: list[PublishedSae] = Field(default_factory=list, description="by layer, width and L0")
    left_out: int = Field(0, description="how many of them the answer had no room for")


class TextTokens(Fields):
    """``ids`` and what follows it are of one length; the tokens do not overlap and come in the text's order."""

    model: str
    tokens: int = Field(description="of the whole text, with the BOS before it")
    left_out: int = Field(description="tokens at the end that the answer had no room for")
    ids: list[int]
    texts: list[str] = Field(description="what each decodes to by itself")
    starts: list[int] = Field(description="where each begins, in bytes of the text as UTF-8")
    ends: list[int] = Field(description="where each ends; a token that is not in the text ends where it begins")
    special: list[bool] = Field(description="whether it is a special token, as BOS is")


class Filtered(Fields):
    dataset: str
    documents: int = Field(description="that were looked at, from a few places of the dataset")
    kept: int
    dropped: dict[str, int] = Field(description="documents by the setting that drops them; the same only among these")


class CachedModel(Fields):
    source: str = Field(description="id on the Hub: the source of a job that adds it")
    revision: str = Field(description="commit on the Hub")
    refs: list[str] = Field(description="branches and tags that were at this commit when they were last asked for")
    path: str
    size_bytes: int = Field(description="of the weights that are there")
    is_whole: bool = Field(description="nothing is missing: it can be added without the Hub")


class CachedModels(Fields):
    models: list[CachedModel]


class SampleQuery(Fields):
    rows: int = Field(5, ge=1, le=20, description="documents to show")
    offset: int | None = Field(None, ge=0, lt=2**53, description="from this row on; some from all over when not given")
    chars: int = Field(500, ge=1, le=20_000, description="characters of each, as far as the answer has room")


class TextBody(Fields):
    text: str = Field(min_length=1, max_length=20_000, description="text to show as tokens")


@route(
    "POST", "/api/datasets/preview", scope=Scope.WRITE, body=PreviewDataset, answer=DatasetPreview,
    refusals=(TooMany, PreviewFailed, SecretsUnusable),
)  # fmt: skip
async def preview_dataset(asked: Asked[None]) -> Any:
    """Look at a source before anything of it is stored: its columns, its first rows, how large it is."""
    return await _source_previewed(asked)


@route(
    "POST", "/api/models/preview", scope=Scope.WRITE, body=PreviewModel, answer=ModelPreview,
    refusals=(TooMany, PreviewFailed, SecretsUnusable),
)  # fmt: skip
async def preview_model(asked: Asked[None]) -> Any:
    """Look at a model before it is fetched: what it is, what it takes, whether it can be read, who may have it."""
    return await _source_previewed(asked)


@route(
    "POST", "/api/saes/preview", scope=Scope.WRITE, body=PreviewSae, answer=SaePreview,
    refusals=(TooMany, PreviewFailed, SecretsUnusable),
)  # fmt: skip
async def preview_sae(asked: Asked[None]) -> Any:
    """List the SAEs of a source before any of them is fetched: by layer, width and L0, with what their files say."""
    return await _source_previewed(asked)


@route(
    "GET", "/api/datasets/{ref}/sample", scope=Scope.READ, path=RefPath, query=SampleQuery, answer=Rows,
    refusals=(NotFound, TooMany, PreviewFailed),
)  # fmt: skip
async def sample_dataset(asked: Asked[SampleQuery]) -> Any:
    """Show a few documents of a dataset."""
    dataset = await asked.app[INDEX].get("dataset", asked.path.ref)
    query = asked.query
    spec = SampleDataset(dataset=dataset["name"], rows=query.rows, offset=query.offset, chars=query.chars)
    return await _previewed(asked, spec)


@route(
    "POST", "/api/datasets/filtered", scope=Scope.READ, body=PreviewFilters, answer=Filtered,
    refusals=(TooMany, PreviewFailed),
)  # fmt: skip
async def preview_filters(asked: Asked[None]) -> Any:
    """Try the filters of a tokenization on some documents: how many they keep, and drop for which reason."""
    return await _previewed(asked, asked.body)


@route(
    "POST", "/api/models/{ref}/tokens", scope=Scope.READ, path=RefPath, body=TextBody, answer=TextTokens,
    refusals=(NotFound, TooMany, PreviewFailed),
)  # fmt: skip
async def preview_tokens(asked: Asked[None]) -> Any:
    """Show a text as the tokens that a model reads."""
    model = await asked.app[INDEX].get("model", asked.path.ref)
    return await _previewed(asked, PreviewTokens(model=model["name"], text=asked.body.text))


@route("GET", "/api/cache/models", scope=Scope.READ, answer=CachedModels)
async def list_cached_models(asked: Asked[None]) -> Any:
    """List the models in the machine's Hugging Face cache, whichever program has fetched them."""
    return {"models": await asyncio.to_thread(lambda: [_shown(model) for model in hub_cache.cached_models(os.environ)])}


def _shown(model: hub_cache.CachedModel) -> dict[str, Any]:
    return {
        "source": model.id,
        "revision": model.revision,
        "refs": list(model.refs),
        "path": os.fsencode(model.path).decode(errors="replace"),
        "size_bytes": model.size_bytes,
        "is_whole": model.is_whole,
    }


async def _source_previewed(asked: Asked[None]) -> dict[str, Any]:
    app = asked.app
    spec = await resolve(asked.body, same_user(asked.request), app[SETTINGS].allowed_folders, app[PATHS], app[UPLOADS])
    secrets = await asyncio.to_thread(app[SECRETS].for_kind, getattr(spec, "kind"))  # noqa: B009 - Spec has none
    return await _previewed(asked, spec, secrets)


async def _previewed(asked: Asked[Any], spec: Spec, secrets: Mapping[str, str] | None = None) -> dict[str, Any]:
    app = asked.app
    return await preview(spec, app[PATHS], app[SETTINGS].preview_limit_s, app[COMMAND], secrets)


ROUTES = (
    preview_dataset,
    preview_model,
    preview_sae,
    sample_dataset,
    preview_filters,
    preview_tokens,
    list_cached_models,
)
