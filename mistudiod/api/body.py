"""Requests in, JSON out: how a body and a query are read, and how pydantic's errors become ours."""

from __future__ import annotations

import json
from typing import Any, TypeVar

import pydantic_core
from aiohttp import web
from pydantic import BaseModel, ValidationError

from mistudiod.errors import Invalid, WrongContentType
from mistudiod.specs import KINDS

Model = TypeVar("Model", bound=BaseModel)


def answer(data: Any, status: int = 200) -> web.Response:
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return web.Response(text=text, status=status, content_type="application/json")


async def read_body(request: web.Request, model: type[Model]) -> Model:
    """The body as a model. Raises WrongContentType, or Invalid with every field that is wrong."""
    if request.content_type != "application/json":
        raise WrongContentType(f"the body must be application/json, not {request.content_type}")
    try:
        # Not json.loads: that takes NaN, and a deep nesting makes it raise RecursionError.
        data = pydantic_core.from_json(await request.read(), allow_inf_nan=False)
    except ValueError as error:
        raise Invalid(f"the body is not JSON: {error}") from None
    return check(data, model)


def check(data: object, model: type[Model]) -> Model:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        fields = {_field(e["loc"]): _reason(e) for e in error.errors(include_input=False, include_url=False)}
        sentence = "; ".join(f"{name}: {reason}" if name else reason for name, reason in fields.items())
        raise Invalid(sentence, {name: reason for name, reason in fields.items() if name}) from None


def _field(loc: tuple[int | str, ...]) -> str:
    """``("spec", "train", "width")`` is the field ``width`` to a person."""
    parts = [str(part) for part in loc]
    if parts[:1] == ["spec"]:
        parts = parts[2:] if len(parts) > 1 and parts[1] in KINDS else parts[1:] or ["kind"]
    return ".".join(parts)


def _reason(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return "there is no such field"
    if error["type"] == "missing":
        return "is missing"
    if error["type"].startswith("union_tag"):
        return f"there is no such kind of job; kinds are {', '.join(KINDS)}"
    message = str(error["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    return message[:1].lower() + message[1:]


def query_int(request: web.Request, name: str, default: int, low: int, high: int) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    if not low <= value <= high or len(text) > 20:
        raise Invalid(f"{name} must be a whole number from {low} to {high}", {name: "is no such number"})
    return value
