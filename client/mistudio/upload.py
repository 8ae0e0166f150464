"""Send a file or a folder to a studio that cannot read it here: in parts, going on where an earlier try was cut off."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from mistudio.errors import ApiError, Unreachable

PART_BYTES = 8 << 20
Told = Callable[[int, int], None]
_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # between tries of a part that brought nothing further
_BUSY, _STORE = 409, 503


class Studio(Protocol):
    """What of ``mistudio.Client`` is needed."""

    def uploads(self) -> list[dict[str, Any]]: ...

    def create_upload(self, name: str, files: list[dict[str, Any]], /) -> dict[str, Any]: ...

    def upload(self, upload: str, /) -> dict[str, Any]: ...

    def send_part(self, upload: str, path: str, offset: int, content: bytes, /) -> dict[str, Any]: ...


class _File(NamedTuple):
    path: str  # in the upload
    place: Path
    bytes: int
    sha256: str


def send(client: Studio, source: Path, name: str, told: Told | None = None, within: str = "") -> str:
    """Upload a file, or the files of a folder, and return the "upload:<id>" that a job takes as its source.

    An upload of the same files under the same name that is there already is completed. ``told`` hears how many bytes
    of how many are there; ``within``: a folder of the upload that they shall lie in. Of a folder, hidden files and
    folders stay here (no job reads them), links to files inside are followed. Raises ValueError (nothing to send, a
    link out of the folder), OSError (a file cannot be read), RuntimeError (a file was changed meanwhile), and what the
    client raises once it has tried again for a minute.
    """
    files = [_measured(f"{within}/{path}" if within else path, place) for path, place in found(source)]
    if not files:
        raise ValueError(f"the folder {source} has no files to send (hidden ones are left out)")
    upload = _begun(client, name, files) or client.create_upload(name, [_announced(file) for file in files])
    received = {file["path"]: file["received_bytes"] for file in upload["files"]}
    total_bytes, done_bytes = sum(file.bytes for file in files), sum(received.values())
    for file in files:
        last = received[file.path]
        for at in _sent(client, upload["id"], file, last):
            done_bytes, last = done_bytes + at - last, at
            if told:
                told(done_bytes, total_bytes)
    return f"upload:{upload['id']}"


def found(source: Path) -> list[tuple[str, Path]]:
    """The files that will be sent, in order: the path of each in the upload, and where it lies."""
    top = Path(os.path.realpath(source))
    if not top.is_dir():
        if not top.is_file():
            raise ValueError(f"{source} is neither a file nor a folder")
        return [(source.name or top.name, top)]
    return sorted(_inside(top))


def _inside(top: Path) -> Iterator[tuple[str, Path]]:
    def fail(error: OSError) -> None:
        raise error

    for parent, folders, names in os.walk(top, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in (*folders, *names):
            place = Path(parent, name)
            if place.is_symlink() and not Path(os.path.realpath(place)).is_relative_to(top):
                raise ValueError(
                    f"{place} is a link out of the folder {top}, and would send what lies elsewhere: remove it, or "
                    f"make a copy without links (cp -rL {top} COPY) and send that"
                )
            if name in names and not name.startswith(".") and stat.S_ISREG(_mode(place)):
                yield place.relative_to(top).as_posix(), place


def _mode(place: Path) -> int:
    try:
        return place.stat().st_mode
    except FileNotFoundError:  # a link that leads nowhere
        return 0


def _measured(path: str, place: Path) -> _File:
    digest, size = hashlib.sha256(), 0
    with place.open("rb") as file:
        while data := file.read(PART_BYTES):
            digest.update(data)
            size += len(data)
    return _File(path, place, size, digest.hexdigest())


def _announced(file: _File) -> dict[str, Any]:
    return {"path": file.path, "bytes": file.bytes, "sha256": file.sha256}


def _begun(client: Studio, name: str, files: list[_File]) -> dict[str, Any] | None:
    """An upload of the same files that an earlier try has left."""
    wanted = [_announced(file) for file in files]
    total_bytes = sum(file.bytes for file in files)
    for brief in client.uploads():
        if (brief["name"], brief["bytes"]) != (name, total_bytes):
            continue
        upload = client.upload(brief["id"])
        if [{key: file[key] for key in ("path", "bytes", "sha256")} for file in upload["files"]] == wanted:
            return upload
    return None


def _sent(client: Studio, upload: str, file: _File, at: int) -> Iterator[int]:
    """Send a file from ``at``; gives how far it has come, the last time all of it."""
    yield at
    failures = 0
    with file.place.open("rb") as source:
        while at < file.bytes:
            source.seek(at)
            part = source.read(min(PART_BYTES, file.bytes - at))
            if not part:
                raise RuntimeError(f"{file.place} became shorter while it was sent: send it again")
            before = at
            try:
                at = _stands(client.send_part(upload, file.path, at, part), file.path)
            except (Unreachable, TimeoutError, ApiError) as error:
                if failures == len(_PAUSES_S) or not _may_pass(error):
                    raise
                time.sleep(_PAUSES_S[failures])
                at = _asked(client, upload, file.path, at)
            failures = 0 if at > before else failures + 1
            yield at


def _asked(client: Studio, upload: str, path: str, at: int) -> int:
    """Where the file stands, in the studio's eyes; ``at`` when it cannot be asked yet."""
    try:
        return _stands(client.upload(upload), path)
    except (Unreachable, TimeoutError):
        return at


def _stands(upload: dict[str, Any], path: str) -> int:
    return next(int(file["received_bytes"]) for file in upload["files"] if file["path"] == path)


def _may_pass(error: Exception) -> bool:
    """Whether trying again may help: no answer, another offset, a sender whose end is not noticed yet."""
    return not isinstance(error, ApiError) or error.status in (_BUSY, _STORE)
