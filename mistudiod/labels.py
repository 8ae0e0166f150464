"""A stand-in until labels are stored: there are none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mistudiod.database import Database


class Labels:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def of(self, sae: str, indices: Sequence[int]) -> dict[int, dict[str, Any]]:
        return {index: {"label": None, "score": None, "starred": False} for index in indices}

    async def order(self, sae: str, key: str) -> list[int]:
        return []

    async def matching(self, sae: str, **conditions: Any) -> set[int]:
        return set()

    async def about(self, sae: str, index: int) -> dict[str, Any]:
        return {"label": None, "score": None, "marks": {"starred": False, "note": None, "lists": []}}
