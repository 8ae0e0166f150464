"""The studio as an OpenAI endpoint: its models write as they are, or steered by a profile or by the request."""

from __future__ import annotations

import re
from contextlib import aclosing
from datetime import datetime
from typing import Any

from pydantic import Field

from mistudiod.api.asks import check_feature
from mistudiod.api.fields import Fields
from mistudiod.api.keys import INDEX, PROFILES, SESSION
from mistudiod.api.openai_answers import (
    CHAT,
    COMPLETION,
    ChatCompletion,
    Completion,
    OpenAIModel,
    OpenAIModelList,
    Shape,
    Voice,
)
from mistudiod.api.openai_asks import ChatRequest, CompletionRequest, OpenAIRequest
from mistudiod.api.openai_stream import result_of, stream
from mistudiod.api.route import Asked, route
from mistudiod.api.session import REFUSALS
from mistudiod.errors import Invalid, ModelNotFound, NotFound
from mistudiod.index import Artifact, Index, is_name
from mistudiod.profiles import Profile
from mistudiod.specs import Edit
from mistudiod.tokens import Scope

_EDIT = re.compile(r"^steering\.(\d+)(.*)")
_WRITING = (ModelNotFound, *REFUSALS)


class ModelPath(Fields):
    id: str = Field(min_length=1, max_length=200, description="`<model>`, or `<model>:<profile>`")


@route("GET", "/v1/models", scope=Scope.READ, answer=OpenAIModelList)
async def list_openai_models(asked: Asked[None]) -> Any:
    """List what may be asked to write: every model, and every profile of it as `<model>:<profile>`."""
    profiles = await asked.app[PROFILES].all()
    return {
        "object": "list",
        "data": [
            one
            for model in await asked.app[INDEX].all("model", -1)
            for one in (_shown(model), *(_shown(model, of) for of in profiles if of["model"] == model["name"]))
        ],
    }


@route("GET", "/v1/models/{id}", scope=Scope.READ, path=ModelPath, answer=OpenAIModel, refusals=(ModelNotFound,))
async def show_openai_model(asked: Asked[None]) -> Any:
    """Show one of what may be asked to write."""
    return _shown(*await _find(asked, asked.path.id))


@route("POST", "/v1/completions", scope=Scope.WRITE, body=CompletionRequest, answer=Completion, refusals=_WRITING,
       streams=True)  # fmt: skip
async def complete(asked: Asked[None]) -> Any:
    """Continue a text, as OpenAI's API does it, with features amplified or suppressed where that is asked for."""
    return await _answered(asked, COMPLETION)


@route("POST", "/v1/chat/completions", scope=Scope.WRITE, body=ChatRequest, answer=ChatCompletion, refusals=_WRITING,
       streams=True)  # fmt: skip
async def chat(asked: Asked[None]) -> Any:
    """Answer a conversation, as OpenAI's API does it, with features amplified or suppressed where that is asked for.

    The model must have a chat template.
    """
    return await _answered(asked, CHAT)


async def _answered(asked: Asked[None], shape: Shape) -> Any:
    body: OpenAIRequest = asked.body
    model, profile = await _find(asked, body.model)
    kept = [Edit.model_validate(edit) for edit in profile["steering"]] if profile else []
    spec = body.spec(model["name"], kept + await _named(asked.app[INDEX], model["name"], body.steering))
    voice = Voice(shape, body.model, spec.seed, spec.samples, body.tells_usage)
    events = asked.app[SESSION].ask(spec, keep_alive=body.keep_alive, if_busy=body.if_busy)
    async with aclosing(events):  # whoever goes away ends the writing
        try:
            if body.stream:
                return await stream(asked.request, events, voice)
            return voice.whole(await result_of(events))
        except Invalid as error:
            raise Invalid(error.message, _as_asked(error.fields or {}, len(kept)), error.about) from None


def _as_asked(fields: dict[str, str], kept: int) -> dict[str, str]:
    """Wrong edits by their numbers in the request; the session counts the profile's, which come first."""

    def renamed(found: re.Match[str]) -> str:
        n = int(found[1]) - kept
        return f"steering.{n}{found[2]}" if n >= 0 else "model"

    return {_EDIT.sub(renamed, name): reason for name, reason in fields.items()}


async def _find(asked: Asked[None], id: str) -> tuple[Artifact, Profile | None]:
    """The model and the profile of an id. Raises ModelNotFound."""
    name, colon, kept = id.partition(":")
    try:
        if not is_name("model", name):
            raise NotFound(f"there is no model {name!r}")
        model = await asked.app[INDEX].get("model", name)
        profile = await asked.app[PROFILES].get(kept) if colon else None
    except NotFound as error:
        raise ModelNotFound(f"{error.message}; GET /v1/models lists what there is") from None
    if profile and profile["model"] != name:
        other = profile["model"]
        raise ModelNotFound(f"the profile {kept!r} is of the model {other!r}, not of {name!r}: ask for {other}:{kept}")
    return model, profile


async def _named(index: Index, model: str, steering: list[Edit]) -> list[Edit]:
    """The edits, each with its SAE. Raises NotFound, Invalid."""
    named = []
    for n, edit in enumerate(steering):
        sae = await index.get("sae", edit.sae or await _only_sae(index, model, f"steering.{n}.sae"))
        check_feature(sae, edit.feature, f"steering.{n}.feature")
        named.append(edit.model_copy(update={"sae": sae["name"]}))
    return named


async def _only_sae(index: Index, model: str, field: str) -> str:
    saes = [name for noun, name in await index.needing("model", model) if noun == "sae"]
    if len(saes) == 1:
        return saes[0]
    reason = f"say which: {model} has {', '.join(saes[:10])}" if saes else f"there is no SAE of {model} to steer with"
    raise Invalid(f"{field}: {reason}", {field: reason})


def _shown(model: Artifact, profile: Profile | None = None) -> dict[str, Any]:
    id = f"{model['name']}:{profile['name']}" if profile else model["name"]
    made = datetime.fromisoformat((profile or model)["created_at"].replace("Z", "+00:00"))
    return {"id": id, "object": "model", "created": int(made.timestamp()), "owned_by": "mistudio"}


ROUTES = (list_openai_models, show_openai_model, complete, chat)
