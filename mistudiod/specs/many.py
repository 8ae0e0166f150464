"""Fields that take one value or several: a training makes an autoencoder of every combination."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import core_schema

MOST_VALUES = 64
T = TypeVar("T")


class OneOrMore:
    """Of an annotated list: a lone value stands for a list of it, in JSON as well; no value comes twice."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        checked = core_schema.no_info_after_validator_function(_distinct, handler(source))
        return core_schema.no_info_before_validator_function(
            _listed, checked, serialization=core_schema.plain_serializer_function_ser_schema(_plain)
        )

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        several = {**handler(schema), "minItems": 1, "maxItems": MOST_VALUES}
        return {"anyOf": [several["items"], several]}


Many = Annotated[list[T], OneOrMore()]


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else list(value) if isinstance(value, tuple) else [value]


def _plain(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values


def _distinct(values: list[Any]) -> list[Any]:
    if not 1 <= len(values) <= MOST_VALUES:
        raise ValueError(f"must be one value, or a list of up to {MOST_VALUES}")
    if len(set(values)) < len(values):
        raise ValueError("names the same value twice")
    return values
