"""The OpenAPI 3.1 document, made of the routes. pydantic's JSON Schema (2020-12) is OpenAPI 3.1's own."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from mistudiod import __version__
from mistudiod.api.answers import Error
from mistudiod.api.route import Route
from mistudiod.errors import (
    Forbidden,
    Invalid,
    NotFound,
    StudioError,
    TooLarge,
    TooOften,
    Unauthorized,
    WrongContentType,
    WrongHost,
)

_REF = "#/components/schemas/"
_ALWAYS: tuple[type[StudioError], ...] = (
    *(Invalid, Unauthorized, Forbidden, TooLarge, WrongContentType, WrongHost, TooOften),
)
_BINARY = {"schema": {"type": "string", "format": "binary"}}


def document(routes: Iterable[Route]) -> dict[str, Any]:
    """The whole description; ``x-scope`` of an operation: the scope that a token must have, "none" without a token."""
    routes = list(routes)
    schemas, definitions = _schemas(routes)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.template, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "miStudio",
            "version": __version__,
            "description": "A local studio for sparse autoencoders. See docs/api.md for errors, tokens and events.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": definitions,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        # Over loopback and the UNIX socket no token is needed.
        "security": [{"token": []}, {}],
    }


def _schemas(routes: list[Route]) -> tuple[dict[type[BaseModel], dict[str, Any]], dict[str, Any]]:
    """Of each model: what stands for it in the document; and the definitions that this refers to."""
    models: dict[type[BaseModel], None] = {Error: None}
    for route in routes:
        models |= {part: None for part in (route.path, route.query, route.body, route.answer) if part is not None}
    found, top = models_json_schema([(model, "validation") for model in models], ref_template=_REF + "{model}")
    return {model: found[(model, "validation")] for model in models}, top["$defs"]


def _operation(route: Route, schemas: dict[type[BaseModel], dict[str, Any]]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.about.split("\n\n")[0].replace("\n", " "),
        "x-scope": route.scope.value if route.scope else "none",
        **({} if route.scope else {"security": []}),
        "parameters": [*_parameters(route)],
        "responses": _responses(route, schemas),
    }
    if route.raw:
        operation["requestBody"] = {"required": True, "content": {"application/octet-stream": _BINARY}}
    elif route.body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schemas[route.body]}}}
    return operation


def _parameters(route: Route) -> Iterable[dict[str, Any]]:
    for place, model in (("path", route.path), ("query", route.query)):
        if model is None:
            continue
        schema = model.model_json_schema(ref_template=_REF + "{model}")
        for name, one in schema["properties"].items():
            about = {"description": one.pop("description")} if "description" in one else {}
            required = name in schema.get("required", ())
            yield {"name": name, "in": place, "required": required, **about, "schema": one}
    for name, text in route.headers.items():
        yield {"name": name, "in": "header", "required": False, "description": text, "schema": {"type": "string"}}


def _responses(route: Route, schemas: dict[type[BaseModel], dict[str, Any]]) -> dict[str, Any]:
    refusals: dict[int, list[str]] = {}
    named = (NotFound,) if route.path is not None else ()  # what can be called so by nobody is not there
    for kind in (*_ALWAYS, *named, *route.refusals):
        refusals.setdefault(kind.status, []).append(kind.code)
    found: dict[str, Any] = {}
    if route.media != "application/json":
        found["200"] = {"description": "OK", "content": {route.media: {"schema": {"type": "string"}}}}
    elif route.answer is None:
        found["204"] = {"description": "Done"}
    else:
        content = {route.media: {"schema": schemas[route.answer]}}
        for media in (route.also, "text/event-stream" if route.streams else None):
            if media is not None:
                content[media] = {"schema": {"type": "string"}}
        for status in sorted({route.status, *((200,) if "Idempotency-Key" in route.headers else ())}):
            found[str(status)] = {"description": HTTPStatus(status).phrase, "content": content}
    if route.tagged and route.method == "GET":
        found["304"] = {"description": "It is as the caller knows it (If-None-Match)"}
    for status, codes in sorted(refusals.items()):
        content = {"application/json": {"schema": schemas[Error]}}
        found[str(status)] = {"description": f"code {' or '.join(sorted(set(codes)))}", "content": content}
    return found
