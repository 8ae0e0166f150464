"""What workers on this machine can do: on which device, in which precisions. Asked of a worker, and kept in a file.

The answer holds for as long as the libraries and the GPUs are the same; asking costs seconds.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from mistudiod import __version__
from mistudiod.errors import StudioError
from mistudiod.paths import PARTIAL

log = logging.getLogger("mistudiod.abilities")
Found = Mapping[str, Any]  # {device, name, memory_bytes, precisions: {name: why not}, versions}
LIBRARIES = ("torch", "transformers", "bitsandbytes")


class Abilities:
    """``ask`` starts a worker that tries and tells; ``file`` is where its answer is kept."""

    def __init__(self, file: Path, ask: Callable[[], Coroutine[Any, Any, dict[str, Any]]]) -> None:
        self._file, self._ask = file, ask
        self._lock = asyncio.Lock()
        self._known: dict[str, Any] | None = None
        self._asking: asyncio.Task[dict[str, Any]] | None = None
        self._closed = False

    async def found(self, gpus: Sequence[str]) -> Found | None:
        """What a worker has found on a machine with these GPUs; None when none can tell now."""
        async with self._lock:
            if self._closed:
                return None
            asked_of = {"mistudio": __version__, "libraries": await asyncio.to_thread(versions), "gpus": list(gpus)}
            known = self._known or await asyncio.to_thread(self._read)
            if known is None or known.get("asked_of") != asked_of:
                answer = await self._asked()
                if answer is None:
                    return None
                known = {"asked_of": asked_of, "found": answer}
                await asyncio.to_thread(self._write, known)
            self._known = known
            found: Found = known["found"]
            return found

    def close(self) -> None:
        """Nobody waits any more for what is not known yet."""
        self._closed = True
        if self._asking is not None:
            self._asking.cancel()

    async def _asked(self) -> dict[str, Any] | None:
        self._asking = asyncio.create_task(self._ask())
        try:
            return await self._asking
        except StudioError as error:
            log.warning("what this machine can do is not known: %s", error)
        except asyncio.CancelledError:
            if not self._closed:  # it was who asked that was cancelled
                self._asking.cancel()
                raise
        finally:
            self._asking = None
        return None

    def _read(self) -> dict[str, Any] | None:
        try:
            known = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return known if isinstance(known, dict) and isinstance(known.get("found"), dict) else None

    def _write(self, known: dict[str, Any]) -> None:
        partial = self._file.with_name(PARTIAL + self._file.name)
        try:
            partial.write_text(json.dumps(known, indent=1), encoding="utf-8")
            partial.replace(self._file)
        except OSError as error:  # it is asked for again after the next start
            log.warning("%s cannot be written: %s", self._file, error)


def versions() -> dict[str, str | None]:
    """Of the libraries that a worker stands on; None for one that is not installed. Nothing is imported."""
    return {name: _version(name) for name in LIBRARIES}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
