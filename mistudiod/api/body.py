"""Requests in, JSON out: how a body is read, how pydantic's errors become ours, and what an answer's ETag is."""

from __future__ import annotations

import hashlib
import json
from typing import Any, TypeVar

import pydantic_core
from aiohttp import web
from pydantic import BaseModel, ValidationError

from mistudiod.errors import Invalid
from mistudiod.specs import KINDS

Model = TypeVar("Model", bound=BaseModel)


def encoded(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def answer(data: Any, status: int = 200) -> web.Response:
    return web.Response(body=encoded(data).encode(errors="replace"), status=status, content_type="application/json")


def etag(data: Any) -> str:
    return f'"{hashlib.sha256(encoded(data).encode(errors="replace")).hexdigest()[:16]}"'


def matches(header: str | None, data: Any) -> bool:
    """Whether an If-Match or If-None-Match header names what ``data`` is; False when there is none."""
    if header is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return "*" in tags or etag(data) in tags


def read_json(data: bytes) -> Any:
    """Raises Invalid. Not json.loads: that takes NaN, and a deep nesting makes it raise RecursionError."""
    try:
        return pydantic_core.from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise Invalid(f"the body is not JSON: {error}") from None


def check(data: object, model: type[Model]) -> Model:
    """Raises Invalid with every field that is wrong."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        fields = {_field(e["loc"]): _reason(e) for e in error.errors(include_input=False, include_url=False)}
        sentence = "; ".join(f"{name}: {reason}" if name else reason for name, reason in fields.items())
        raise Invalid(sentence, {name: reason for name, reason in fields.items() if name}) from None


def _field(loc: tuple[int | str, ...]) -> str:
    """``("spec", "train", "width", 0)`` is the field ``width`` to a person, who may have given one value or several."""
    parts = [str(part) for part in loc]
    if len(loc) > 1 and isinstance(loc[-1], int):
        parts.pop()
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
