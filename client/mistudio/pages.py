"""Lists come in pages: each names the cursor of the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


def given(**values: Any) -> dict[str, Any]:
    """Without those that were left open."""
    return {name: value for name, value in values.items() if value is not None}


def every(what: str, page: Callable[[str | None], dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What is in the field ``what`` of all pages; ``page`` takes a cursor."""
    cursor = None
    while True:
        found = page(cursor)
        yield from found[what]
        cursor = found["next"]
        if cursor is None:
            return
