"""What is sent to the studio: files that arrive in parts, are checked by sha256, and wait for the job that reads them.

On disk: ``<id>/upload.json`` is what was announced, ``<id>/parts/<n>`` what has come of the nth file, ``<id>/files/…``
the files that are whole. A file moves from the one to the other when its sha256 is right: what lies under ``files``
needs no other note, and after a restart the size of a part says where to go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import secrets
import shutil
import stat
import time
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mistudiod.arriving import ArrivingFile, in_thread
from mistudiod.errors import Conflict, Invalid, NotFound, TooLarge
from mistudiod.jobs import now
from mistudiod.paths import PARTIAL, join, publish, require_space

log = logging.getLogger("mistudiod.uploads")
MAX_FILES = 10_000
MAX_UPLOADS = 100  # at once; they are all held in memory
KEPT_S = 7 * 24 * 3600.0  # of silence, before an upload that nobody finished or used is removed
_EMPTY = hashlib.sha256().hexdigest()


@dataclass
class _Upload:
    id: str
    name: str
    created_at: str
    folder: Path
    files: dict[str, ArrivingFile]
    last_s: float  # monotonic time of the last sign of life

    @property
    def complete(self) -> bool:
        return not self.missing

    def __post_init__(self) -> None:
        # Kept beside the files, for with 10,000 of them no request can afford to look at each.
        self.bytes = sum(file.size_bytes for file in self.files.values())
        self.whole_bytes = sum(file.size_bytes for file in self.files.values() if file.whole)
        self.missing = sum(not file.whole for file in self.files.values())
        self.begun = {path for path, file in self.files.items() if file.received_bytes and not file.whole}

    def settle(self, file: ArrivingFile) -> None:
        """Take in how far a file has come."""
        self.begun.discard(file.path)
        if file.whole:
            self.whole_bytes += file.size_bytes
            self.missing -= 1
        elif file.received_bytes:
            self.begun.add(file.path)
        self.last_s = time.monotonic()

    def summary(self) -> dict[str, Any]:
        received_bytes = self.whole_bytes + sum(self.files[path].stands for path in self.begun)
        return {
            "id": self.id,
            "name": self.name,
            "created_at": self.created_at,
            "bytes": self.bytes,
            "received_bytes": received_bytes,
            "complete": self.complete,
        }

    def shown(self, files: Iterable[ArrivingFile]) -> dict[str, Any]:
        return self.summary() | {"files": [file.shown() for file in files]}


class Uploads:
    """Every upload there is. ``limit_bytes`` is the most that one may hold."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder, self._limit_bytes = folder, limit_bytes
        self._all: dict[str, _Upload] = {}
        self._loading, self._making = asyncio.Lock(), asyncio.Lock()
        self._loaded = False

    async def create(self, name: str, files: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        """Announce files: ``path``, ``bytes`` and ``sha256`` of each. Raises Invalid, TooLarge, Conflict, DiskFull."""
        await self._load()
        announced = list(files)
        total_bytes = await asyncio.to_thread(_checked, announced)
        if total_bytes > self._limit_bytes:
            raise TooLarge(
                f"{name} has {total_bytes:,} bytes, more than the {self._limit_bytes:,} that an upload may have; "
                "raise the setting upload_limit_bytes or send less"
            )
        entry = {"id": secrets.token_hex(16), "name": name, "created_at": now(), "files": announced}
        async with self._making:
            if len(self._all) >= MAX_UPLOADS:
                raise Conflict(f"{MAX_UPLOADS} uploads are waiting already; use or delete some of them first")
            upload = await in_thread(self._make, entry, total_bytes)
        return upload.shown(upload.files.values())

    async def receive(self, id: str, path: str, offset: int, stream: AsyncIterator[bytes]) -> dict[str, Any]:
        """Append what comes to a file, which must stand at ``offset`` bytes. Whatever ends it, what came is kept.

        Answers with the upload, of whose files only this one is shown. Raises NotFound, TooLarge, DiskFull, Conflict
        (another offset, or another sender), Invalid (the sha256 is wrong, and the file stands at 0 again).
        """
        upload = await self._get(id)
        file = upload.files.get(path)
        if file is None:
            raise NotFound(f"no file {path[:200]!r} was announced for this upload")
        if file.busy:
            raise Conflict(f"{path} is being sent by somebody else; wait for the end of that")
        if offset != file.stands:
            raise Conflict(f"{path} stands at {file.stands} bytes, not at {offset}; go on from {file.stands}")
        was_whole, file.busy = file.whole, True
        try:
            await file.take(stream)
        finally:
            file.busy = False
            if not was_whole:
                upload.settle(file)
        return upload.shown([file])

    async def get(self, id: str) -> dict[str, Any]:
        upload = await self._get(id)
        return upload.shown(upload.files.values())

    async def all(self) -> list[dict[str, Any]]:
        """Every upload, oldest first, without its files."""
        await self._load()
        return [upload.summary() for upload in sorted(self._all.values(), key=lambda one: (one.created_at, one.id))]

    async def remove(self, id: str) -> None:
        upload = await self._get(id)
        if any(file.busy for file in upload.files.values()):
            raise Conflict(f"the upload {upload.name} is being sent; end that first")
        del self._all[id]
        await in_thread(_delete, upload.folder)

    async def sweep(self, unfinished: Collection[str], done: Collection[str]) -> list[str]:
        """Remove what nobody needs any more, and return the ids.

        ``unfinished`` and ``done`` are the sources ("upload:<id>") of jobs: what an unfinished job will read stays,
        what a finished one has read goes, everything else goes after 7 days without a byte.
        """
        await self._load()
        removed = []
        for id, upload in list(self._all.items()):
            silent = time.monotonic() - upload.last_s > KEPT_S
            source = f"upload:{id}"
            if source not in unfinished and (source in done or silent):
                with contextlib.suppress(Conflict, NotFound):  # it is being sent, or somebody else was faster
                    await self.remove(id)
                    removed.append(id)
        return removed

    async def _get(self, id: str) -> _Upload:
        await self._load()
        if id not in self._all:
            raise NotFound(f"there is no upload {id[:64]!r}")
        return self._all[id]

    async def _load(self) -> None:
        async with self._loading:
            if not self._loaded:
                self._all = await asyncio.to_thread(self._read)
                self._loaded = True

    def _read(self) -> dict[str, _Upload]:
        found = {}
        for folder in self._folder.glob("[0-9a-f]*"):
            try:
                entry = json.loads((folder / "upload.json").read_text(encoding="utf-8"))
                found[folder.name] = _restored(folder, entry)
            except (OSError, ValueError, KeyError, TypeError) as error:
                log.warning("the upload %s cannot be read and is left alone: %s", folder.name, error)
        return found

    def _make(self, entry: dict[str, Any], total_bytes: int) -> _Upload:
        self._folder.mkdir(exist_ok=True)
        require_space(self._folder, total_bytes)
        partial, folder = self._folder / f"{PARTIAL}{entry['id']}", self._folder / entry["id"]
        try:
            for made in (partial, partial / "parts", partial / "files"):
                made.mkdir()
            (partial / "upload.json").write_text(json.dumps(entry), encoding="utf-8")
            for file in entry["files"]:
                if not file["bytes"]:
                    path = join(partial / "files", file["path"])
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.touch()
            publish(partial, folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        upload = self._all[folder.name] = _restored(folder, entry)  # here, for the caller may be gone meanwhile
        return upload


def _checked(files: Collection[Mapping[str, Any]]) -> int:
    """The bytes of all files. Raises Invalid for names that cannot lie together in a folder."""
    if not 1 <= len(files) <= MAX_FILES:
        raise Invalid(f"an upload has 1 to {MAX_FILES:,} files, not {len(files):,}", {"files": "too few or too many"})
    paths: set[str] = set()
    folders: set[str] = set()
    for number, file in enumerate(files):
        try:
            join(Path("/nowhere"), file["path"])
        except ValueError as error:
            raise Invalid(str(error), {f"files.{number}.path": str(error)}) from None
        if not file["bytes"] and file["sha256"] != _EMPTY:
            raise Invalid(f"{file['path']} is empty but its sha256 is another", {f"files.{number}.sha256": "is wrong"})
        if file["path"] in paths:
            raise Invalid(f"{file['path']} is announced twice", {f"files.{number}.path": "is there twice"})
        paths.add(file["path"])
        folders.update(str(parent) for parent in Path(file["path"]).parents)
        if len(folders) > MAX_FILES:  # each takes room on the disk that no file's size tells of
            raise Invalid(f"an upload has at most {MAX_FILES:,} folders", {"files": "too many folders"})
    if both := paths & folders:
        raise Invalid(f"{min(both)} cannot be a file and a folder at once", {"files": "a file is also a folder"})
    return sum(file["bytes"] for file in files)


def _restored(folder: Path, entry: Mapping[str, Any]) -> _Upload:
    """An upload as it lies on disk."""
    files, newest = {}, folder.stat().st_mtime
    for number, announced in enumerate(entry["files"]):
        path, size = str(announced["path"]), int(announced["bytes"])
        part, final = folder / "parts" / str(number), join(folder / "files", path)
        file = files[path] = ArrivingFile(path, size, str(announced["sha256"]), part, final)
        file.whole = _is_regular(final) and final.stat().st_size == size
        if not file.whole and _is_regular(part):
            file.received_bytes = min(part.stat().st_size, size)
            newest = max(newest, part.stat().st_mtime)
    last_s = time.monotonic() - max(0.0, time.time() - newest)
    return _Upload(folder.name, str(entry["name"]), str(entry["created_at"]), folder, files, last_s)


def _is_regular(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _delete(folder: Path) -> None:
    """Gone at once for whoever looks; a crash between leaves a folder that the next sweep removes."""
    gone = folder.with_name(f"{PARTIAL}deleted-{folder.name}")
    folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)
