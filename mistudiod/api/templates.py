"""Templates: the prompts that labels are asked for with."""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic import Field

from mistudiod import templates
from mistudiod.api.fields import Fields
from mistudiod.api.keys import TEMPLATES
from mistudiod.api.route import Asked, route
from mistudiod.errors import Conflict, Invalid, NotFound
from mistudiod.labelling import prompt
from mistudiod.specs import Name
from mistudiod.tokens import Scope


class TemplatePath(Fields):
    name: Name = Field(description="name of the template")


class TemplateText(Fields):
    text: str = Field(max_length=templates.MAX_BYTES, description="the prompt, in which the evidence is filled in")


class ListedTemplate(Fields):
    name: str
    sha256: str
    built_in: bool = Field(description="it comes with the studio and cannot be changed")


class Template(ListedTemplate):
    text: str


class TemplateList(Fields):
    templates: list[ListedTemplate]


def _shown(one: templates.Template) -> dict[str, Any]:
    return {"name": one.name, "sha256": one.sha256, "built_in": one.built_in}


@route("GET", "/api/templates", scope=Scope.READ, answer=TemplateList)
async def list_templates(asked: Asked[None]) -> Any:
    """List the prompts that labels can be asked for with."""
    return {"templates": [_shown(one) for one in await asyncio.to_thread(asked.app[TEMPLATES].all)]}


@route("GET", "/api/templates/{name}", scope=Scope.READ, path=TemplatePath, answer=Template, refusals=(NotFound,))
async def show_template(asked: Asked[None]) -> Any:
    """Show a prompt: to see it, or to copy and change it."""
    one = await asyncio.to_thread(asked.app[TEMPLATES].get, asked.path.name)
    return {**_shown(one), "text": one.text}


@route("PUT", "/api/templates/{name}", scope=Scope.WRITE, path=TemplatePath, body=TemplateText, answer=Template,
       refusals=(Conflict,))  # fmt: skip
async def set_template(asked: Asked[None]) -> Any:
    """Keep a prompt, in place of the one of that name."""
    try:
        prompt.check(asked.body.text.replace("\r", "\n"))
    except ValueError as error:
        raise Invalid(f"the template {asked.path.name} cannot be asked with: {error}", {"text": str(error)}) from None
    one = await asyncio.to_thread(asked.app[TEMPLATES].put, asked.path.name, asked.body.text)
    return {**_shown(one), "text": one.text}


ROUTES = (list_templates, show_template, set_template)
