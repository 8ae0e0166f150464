"""The feature stores that are open: a few, the least used is closed for another."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from pathlib import Path
from typing import Any

from mistudiod.pages import Pages
from mistudiod.paths import Paths

MOST = 4


class OpenStores:
    """A store closes once it is forgotten and the last thread that reads it is done."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._open: OrderedDict[Path, Pages] = OrderedDict()
        self._opening = asyncio.Lock()
        self._heard = 0

    async def get(self, folder: Path) -> Pages:
        """Raises ValueError, one sentence, when the folder holds no store, or a damaged one."""
        if folder not in self._open:
            async with self._opening:
                if folder not in self._open:
                    heard, pages = self._heard, await asyncio.to_thread(Pages, folder)
                    if heard != self._heard:  # it may have been removed meanwhile: who has asked reads it, nobody else
                        return pages
                    self._open[folder] = pages
                    while len(self._open) > MOST:
                        self._open.popitem(last=False)
        self._open.move_to_end(folder)
        return self._open[folder]

    def heard(self, topic: str, data: dict[str, Any]) -> None:
        """What is told of artifacts: one that is removed, or written anew, is not read on."""
        if topic == "artifact" and data["noun"] == "features":
            self._heard += 1
            self._open.pop(self._paths.artifact("features", data["name"]), None)
