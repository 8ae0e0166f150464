"""Writing what must not be lost, to a database that may refuse for a while: a full disk, another program's lock."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from mistudiod.errors import StoreError

log = logging.getLogger("mistudiod.insist")
T = TypeVar("T")
RETRY_S = 2.0  # between two tries


async def written(write: Callable[[], Awaitable[T]], closing: Callable[[], bool]) -> T:
    """Write, again and again while the database refuses. Once ``closing``, its refusal is raised: the next start's
    recovery sees to the rest.
    """
    while True:
        try:
            return await write()
        except StoreError as error:
            if closing():
                raise
            log.error("%s; trying again in %.0f s", error, RETRY_S)
            await asyncio.sleep(RETRY_S)
