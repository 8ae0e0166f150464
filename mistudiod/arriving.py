"""One file on its way into the studio: appended piece by piece, hashed as it comes, moved to its place when whole."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from mistudiod import errors, paths
from mistudiod.errors import Conflict, Invalid, TooLarge
from mistudiod.paths import require_space

P = ParamSpec("P")
T = TypeVar("T")
SILENCE_S = 30.0  # a sender of whom nothing comes for this long is gone, and another may go on
_PIECE_BYTES = 1 << 20  # written and hashed at once
_HASH_BYTES = 16 << 20  # hashed at once when what lies on disk must be read again


@dataclass
class ArrivingFile:
    """An announced file: ``part`` grows while it comes, ``final`` is there when it is whole."""

    path: str
    size_bytes: int
    sha256: str
    part: Path
    final: Path
    received_bytes: int = 0
    whole: bool = False
    busy: bool = False
    _hashed_bytes: int = 0
    _hash: Any = field(default_factory=hashlib.sha256)

    @property
    def stands(self) -> int:
        """Bytes that need not be sent again. Never all of them before the sha256 is found right."""
        return self.size_bytes if self.whole else min(self.received_bytes, self.size_bytes - 1)

    def shown(self) -> dict[str, Any]:
        return {"path": self.path, "bytes": self.size_bytes, "sha256": self.sha256, "received_bytes": self.stands}

    def _begin(self) -> None:
        self.received_bytes = self.stands
        if self._hashed_bytes > self.received_bytes:
            self._hash, self._hashed_bytes = hashlib.sha256(), 0

    # What follows runs in a thread, one at a time for each file.

    def _write(self, data: bytes) -> None:
        """Append. After an error the file stands where it stood."""
        require_space(self.part.parent, len(data))
        handle = os.open(self.part, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(handle, self.received_bytes)
            done = 0
            while done < len(data):
                done += os.pwrite(handle, data[done:], self.received_bytes + done)
        finally:
            os.close(handle)
        self._hash.update(data)
        self.received_bytes += len(data)
        self._hashed_bytes = self.received_bytes

    def _hash_more(self) -> None:
        """Hash some of what came before the daemon was started."""
        with self.part.open("rb") as file:
            file.seek(self._hashed_bytes)
            data = file.read(min(_HASH_BYTES, self.received_bytes - self._hashed_bytes))
        if not data:
            raise OSError(errno.EIO, "a part is shorter than it was", str(self.part))
        self._hash.update(data)
        self._hashed_bytes += len(data)

    def _seal(self) -> bool:
        """Make it a file of the upload; False, and nothing of it is kept, when its sha256 is wrong."""
        if self._hash.hexdigest() != self.sha256:
            self.part.unlink()
            self.received_bytes = self._hashed_bytes = 0
            self._hash = hashlib.sha256()
            return False
        with self.part.open("rb") as file:
            os.fsync(file.fileno())
        self.final.parent.mkdir(parents=True, exist_ok=True)
        self.part.rename(self.final)
        self.whole = True
        return True

    # This runs in the event loop.

    async def take(self, stream: AsyncIterator[bytes]) -> None:
        """Append what ``stream`` gives until it ends. However that is, what came is on disk.

        Raises TooLarge, errors.DiskFull, Invalid (wrong sha256), Conflict (nothing comes any more), and what the stream
        raises when its sender is gone.
        """
        self._begin()
        while not self.whole and self._hashed_bytes < self.received_bytes:
            await in_thread(self._hash_more)
        waiting = bytearray()
        try:
            while data := await self._next(stream):
                if self.received_bytes + len(waiting) + len(data) > self.size_bytes:
                    raise TooLarge(
                        f"{self.path} was announced with {self.size_bytes} bytes, and more came; send it as it is"
                    )
                waiting += data
                if len(waiting) >= _PIECE_BYTES:
                    await self._append(waiting)
        finally:
            await self._append(waiting)
        if self.received_bytes == self.size_bytes and not self.whole and not await in_thread(self._seal):
            raise Invalid(
                f"{self.path} came with another sha256 than was announced: it was changed meanwhile, or damaged on the "
                "way; send it again from 0",
                {"sha256": "is wrong"},
            )

    async def _append(self, waiting: bytearray) -> None:
        piece = bytes(waiting)
        waiting.clear()
        if piece:
            await in_thread(self._write, piece)

    async def _next(self, stream: AsyncIterator[bytes]) -> bytes:
        """b"" at the end."""
        try:
            return await asyncio.wait_for(anext(stream, b""), SILENCE_S)
        except asyncio.TimeoutError:
            raise Conflict(f"nothing more of {self.path} came for {SILENCE_S:.0f} s; go on where it stands") from None


async def in_thread(function: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
    """Run what touches the disk; a cancelled caller stays until its end, so that nothing is written out of turn.

    Raises errors.DiskFull for a full disk.
    """
    task = asyncio.ensure_future(asyncio.to_thread(function, *args, **named))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        with contextlib.suppress(OSError):
            await task
        raise
    except paths.DiskFull as error:
        raise errors.DiskFull(str(error)) from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise errors.DiskFull("the disk of the studio is full: free some space and try again") from None
        raise
