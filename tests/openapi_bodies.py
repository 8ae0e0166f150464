"""Bodies made from the OpenAPI document: the least that a route takes, and the same with one text in every place."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

Place = tuple[str | int, ...]
# What a schema alone does not tell: a value that passes the checks of its model.
PLAIN = {
    "hook": ["blocks.0.hook_resid_post"],
    "sha256": "0" * 64,
    "source": "org/name",
    "repo": "org/name",
    "endpoint": "tokens",
    "model": "x",
    "name": "fresh",
    "sae": "s",
    "expires_in_s": 60,
}


class Bodies:
    def __init__(self, document: Mapping[str, Any]) -> None:
        self._schemas = document["components"]["schemas"]

    def of(self, operation: Mapping[str, Any]) -> Iterator[tuple[str, Any, list[Place]]]:
        """Of each form that the body can have: what it is called, the least of it, and where texts can stand in it."""
        content = operation.get("requestBody", {}).get("content", {}).get("application/json")
        if content is None:
            return
        schema = self._seen(content["schema"])
        spec = self._seen(schema.get("properties", {}).get("spec", {}))
        for kind in spec.get("discriminator", {}).get("mapping", {"": ""}):
            least = self._least(schema, kind)
            places = list(self._places(schema, (), kind))
            yield f"{operation['operationId']} {kind}".strip(), least, places

    def _seen(self, schema: Any) -> dict[str, Any]:
        while "$ref" in schema:
            schema = self._schemas[schema["$ref"].rpartition("/")[2]]
        return dict(schema)

    def _one(self, schema: Any, kind: str) -> dict[str, Any]:
        """Of several forms the first that is not null, or that of the kind."""
        schema = self._seen(schema)
        if "discriminator" in schema:
            return self._seen({"$ref": schema["discriminator"]["mapping"][kind]})
        forms = [self._seen(one) for one in schema.get("anyOf", schema.get("oneOf", []))]
        return next((one for one in forms if one.get("type") != "null"), schema)

    def _least(self, schema: Any, kind: str, name: str = "") -> Any:
        schema = self._one(schema, kind)
        if name in PLAIN:
            return copy.deepcopy(PLAIN[name])
        if "const" in schema or "enum" in schema:
            return schema.get("const", schema.get("enum", [None])[0])
        if schema.get("type") == "object":
            known = schema.get("properties", {})
            wanted = [*schema.get("required", []), *(["kind"] if "kind" in known else [])]
            return {one: self._least(known[one], kind, one) for one in wanted}
        if schema.get("type") == "array":
            return [self._least(schema["items"], kind)] * max(schema.get("minItems", 0), 1)
        numbers = {"integer": schema.get("minimum", 1), "number": schema.get("minimum", 0.5), "boolean": False}
        return numbers.get(schema.get("type", ""), "x")

    def _places(self, schema: Any, at: Place, kind: str) -> Iterator[Place]:
        schema = self._one(schema, kind)
        if "const" in schema or "enum" in schema:
            return
        if schema.get("type") == "object":
            for name, one in schema.get("properties", {}).items():
                yield from self._places(one, (*at, name), kind)
        elif schema.get("type") == "array":
            yield from self._places(schema.get("items", {}), (*at, 0), kind)
        elif schema.get("type") == "string":
            yield at


def with_text(body: Any, place: Place, text: str) -> Any:
    """A copy of the body with the text there; what is missing on the way is made."""
    found = body = copy.deepcopy(body)
    for step, after in zip(place, (*place[1:], None), strict=True):
        empty: Any = text if after is None else [] if isinstance(after, int) else {}
        if isinstance(step, int):
            found[:] = [found[0] if found and after is not None else empty]
        elif after is None or not isinstance(found.get(step), dict | list):
            found[step] = empty
        found = found[step]
    return body
