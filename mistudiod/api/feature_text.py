"""What a feature's page does not hold: a whole window that was read, and the question that an LLM is asked of it."""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic import Field

from mistudiod.api import feature_answers as answers
from mistudiod.api.asks import Ref
from mistudiod.api.features import FeatureIndex, FeaturePath, encoded_rows, opened, response_of
from mistudiod.api.fields import Fields
from mistudiod.api.keys import TEMPLATES
from mistudiod.api.route import Asked, route
from mistudiod.errors import Conflict, Invalid, NotFound
from mistudiod.feature_places import whole_window
from mistudiod.labelling import prompt
from mistudiod.specs import Name
from mistudiod.tokens import Scope


class WindowPath(Fields):
    ref: Ref = Field(description="name or id of the SAE")
    index: FeatureIndex = Field(description="index of the feature")
    row: int = Field(ge=0, lt=2**31, description="which of the windows that were read")


class PromptQuery(Fields):
    template: Name = Field("default", description="the prompt to ask with")


@route(
    "GET", "/api/saes/{ref}/features/{index}/windows/{row}", scope=Scope.READ, path=WindowPath,
    answer=answers.WholeWindow, refusals=(NotFound, Conflict),
)  # fmt: skip
async def show_window(asked: Asked[None]) -> Any:
    """Show the whole of a window that was read, and how strongly a feature fires on each of its tokens."""
    one, index, row = await opened(asked), asked.path.index, asked.path.row
    one.check(index)
    if row >= one.pages.rows:
        raise NotFound(f"extraction {one.id} has read windows 0 to {one.pages.rows - 1}")
    return response_of(
        await one.scan(lambda: encoded_rows(one.named | {"index": index} | whole_window(one.pages, index, row)))
    )


@route(
    "GET", "/api/saes/{ref}/features/{index}/prompt", scope=Scope.READ, path=FeaturePath, query=PromptQuery,
    answer=answers.Prompt, refusals=(NotFound, Conflict),
)  # fmt: skip
async def show_prompt(asked: Asked[PromptQuery]) -> Any:
    """Show the very question that an LLM is asked when it is to label a feature."""
    one, index = await opened(asked), asked.path.index
    one.check(index)
    template = await asyncio.to_thread(asked.app[TEMPLATES].get, asked.query.template)
    try:
        prompt.check(template.text)
    except ValueError as error:
        message = f"the template {template.name} cannot be asked with: {error}"
        raise Invalid(message, {"template": str(error)}) from None
    page = await one.read(one.pages.page, index)
    return {
        "template": template.name,
        "evidence": prompt.has_evidence(page),
        "messages": prompt.build(page, template.text),
    }


ROUTES = (show_window, show_prompt)
