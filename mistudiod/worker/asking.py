"""Many questions at once, and an end of all of them as soon as the daemon wants one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

from mistudiod.worker.link import Link

POLL_S = 0.1
T = TypeVar("T")


def run_until_asked(link: Link, main: Coroutine[Any, Any, T], every: Callable[[], None] = lambda: None) -> T:
    """What ``main`` returns or raises. ``every`` is called ten times a second, and once more when it has ended.

    When the daemon asks for an end, ``main`` is cancelled with whatever it waits for, and Asked is raised.
    """

    async def watched() -> asyncio.Task[T]:
        task = asyncio.ensure_future(main)
        while not task.done():
            await asyncio.wait({task}, timeout=POLL_S)
            every()
            if link.asked and not task.done():
                task.cancel()
                await asyncio.wait({task})
        return task

    task = asyncio.run(watched())
    every()
    if task.cancelled():
        link.check()
    return task.result()


async def each(items: Iterable[T], at_once: int, work: Callable[[T], Awaitable[None]]) -> None:
    """``work`` on every item, ``at_once`` of them at a time. The first that raises ends all the others."""
    waiting, has_ended = iter(items), False

    async def go_on() -> None:
        for item in waiting:
            await work(item)
            if has_ended:  # asyncio.wait_for may swallow a cancellation
                return

    tasks = [asyncio.ensure_future(go_on()) for _ in range(at_once)]
    try:
        await asyncio.gather(*tasks)
    finally:
        has_ended = True
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
