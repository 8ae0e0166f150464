"""The format of a backup: one tar file that any tar reads, its sums in it, written and read a block at a time.

The first member, ``backup.json``, says what it is of and what was left out; the last, ``sha256sums.txt``, has the sum
of every member before it, as ``sha256sum -c`` reads them. A file without that last one was cut off. It is read by our
own few lines: of a file that somebody gave us nothing may be a link, lie elsewhere, or take memory by its size.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from mistudiod.paths import join

FORMAT = 1
ABOUT, SUMS = "backup.json", "sha256sums.txt"
MOST_FILES = 200_000
_MOST_ABOUT_BYTES = 4 << 20
_MOST_PAX_BYTES = 64 << 10
_TOO_MANY_BYTES = 1 << 63  # for any file system
_LATEST_S = 1 << 33  # of the times of files; the year 2242
_BLOCK_BYTES = 1 << 20
_RECORD_BYTES = 512  # of which a tar file consists
_DIGEST_CHARACTERS = 64
Told = Callable[[int, int], None]


class BadBackup(ValueError):
    """It cannot be used; the message says why, in one sentence."""


class Piece(NamedTuple):
    """A file: what it is called in the backup, where it lies, its size, and when it was written (seconds)."""

    name: str
    path: Path
    bytes: int
    mtime: int


def is_plain(name: str) -> bool:
    """Whether a file of that name can be in a backup."""
    try:
        join(Path("/nowhere"), name)
    except ValueError:
        return False
    return name.isprintable() and name not in (ABOUT, SUMS)


def pack(about: Mapping[str, Any], pieces: Sequence[Piece]) -> tuple[int, Iterator[bytes]]:
    """How many bytes the backup has, and they themselves. ``about`` must be JSON; how many files and bytes is added.

    The blocks raise BadBackup when a file has become shorter, OSError when one cannot be read.
    """
    known = {"format": FORMAT, **about, "files": len(pieces), "bytes": sum(piece.bytes for piece in pieces)}
    head = json.dumps(known, indent=1).encode()
    if len(head) > _MOST_ABOUT_BYTES or len(pieces) > MOST_FILES:
        raise BadBackup(f"there are more than {MOST_FILES:,} files, which is more than a backup can hold")
    names = [ABOUT, *(piece.name for piece in pieces)]
    sums_bytes = sum(_DIGEST_CHARACTERS + 3 + len(name.encode()) for name in names)
    size = 2 * _RECORD_BYTES + _padded(len(_header(SUMS, sums_bytes, 0)) + sums_bytes)
    size += len(_header(ABOUT, len(head), 0)) + _padded(len(head))
    size += sum(len(_header(piece.name, piece.bytes, piece.mtime)) + _padded(piece.bytes) for piece in pieces)
    return size, _blocks(head, pieces)


def _blocks(head: bytes, pieces: Sequence[Piece]) -> Iterator[bytes]:
    sums = [f"{hashlib.sha256(head).hexdigest()}  {ABOUT}\n"]
    yield _header(ABOUT, len(head), 0) + head + _padding(len(head))
    for piece in pieces:
        digest = hashlib.sha256()
        yield _header(piece.name, piece.bytes, piece.mtime)
        with open(piece.path, "rb") as file:
            for block in _content(file, piece.bytes, f"{piece.name} became shorter while it was read: try again"):
                digest.update(block)
                yield block
        yield _padding(piece.bytes)
        sums.append(f"{digest.hexdigest()}  {piece.name}\n")
    text = "".join(sums).encode()
    yield _header(SUMS, len(text), 0) + text + _padding(len(text)) + bytes(2 * _RECORD_BYTES)


def about(file: BinaryIO) -> dict[str, Any]:
    """What a backup says of itself, from its beginning on. Raises BadBackup."""
    return _about(file)[0]


def unpack(
    file: BinaryIO, to: Path | None, only: Callable[[str], bool] = lambda _: True, told: Told | None = None
) -> dict[str, Any]:
    """Read a backup to its end, which must be whole, and write those of its files that are wanted below ``to``.

    ``to`` is None when it is only looked at. ``told`` hears how many bytes of how many were read. What it says of
    itself is returned. What is written is on the disk only after a sync. Raises BadBackup, OSError; what
    was written until then is of no use.
    """
    known, digest = _about(file)
    sums = hashlib.sha256(f"{digest}  {ABOUT}\n".encode())
    files = done_bytes = 0
    for entry in _entries(file):
        if entry.name == SUMS:
            if (files, done_bytes) != (known["files"], known["bytes"]) or _digest(file, entry) != sums.hexdigest():
                raise BadBackup("the backup is damaged: what it holds has other sums than it should")
            return known
        files, done_bytes = files + 1, done_bytes + entry.bytes
        if files > known["files"] or done_bytes > known["bytes"]:
            raise BadBackup("the backup is damaged: it holds more than it says")
        if not is_plain(entry.name):
            raise BadBackup(f"the backup holds {entry.name[:100]!r}, which is no plain path: it is not used")
        place = join(to, entry.name) if to is not None and only(entry.name) else None
        digest = _digest(file, entry) if place is None else _written(file, entry, place)
        sums.update(f"{digest}  {entry.name}\n".encode())
        if told:
            told(done_bytes, known["bytes"])
    raise BadBackup("the backup is cut off: its end is missing")


class _Entry(NamedTuple):
    name: str
    bytes: int
    mtime: int


def _about(file: BinaryIO) -> tuple[dict[str, Any], str]:
    """And the sum of it."""
    entry = next(_entries(file), None)
    if entry is None or entry.name != ABOUT or entry.bytes > _MOST_ABOUT_BYTES:
        raise BadBackup("it is no backup of miStudio")
    text = b"".join(_member(file, entry))
    try:
        known = json.loads(text)
        counts = [known[name] for name in ("format", "files", "bytes")]
        shown = [known["version"], known["made_at"], known.get("host", ""), *known["migrations"]]
        texts = [*shown, *(one["what"] for one in known["left_out"])]
        usable = all(type(count) is int and 0 <= count < _TOO_MANY_BYTES for count in counts)
        usable = usable and all(isinstance(one, str) for one in texts) and known["files"] <= MOST_FILES
        usable = usable and all(one.isprintable() for one in shown)  # they come to a terminal as they are
    except (ValueError, LookupError, TypeError, RecursionError):
        usable = False
    if not usable:
        raise BadBackup("the backup is damaged: what it says of itself cannot be read")
    if known["format"] > FORMAT:
        raise BadBackup(f"the backup was made by a newer miStudio ({known['version']:.40}): install that version")
    return known, hashlib.sha256(text).hexdigest()


def _entries(file: BinaryIO) -> Iterator[_Entry]:
    """Of each member its header; whoever takes it reads its content before the next."""
    while (block := file.read(_RECORD_BYTES)).strip(b"\0"):
        name = None
        header = _parsed(block)
        if header.type == tarfile.XHDTYPE:
            if header.size > _MOST_PAX_BYTES:
                raise BadBackup("the backup is damaged: a name in it is too long")
            records = _pax(b"".join(_member(file, _Entry("", header.size, 0))))
            header = _parsed(file.read(_RECORD_BYTES))
            name, header.size = records.get("path"), int(records.get("size", header.size))
        if header.type != tarfile.REGTYPE or header.size < 0:
            raise BadBackup(f"the backup holds {header.name[:100]!r}, which is no plain file: it is not used")
        yield _Entry(name or header.name, header.size, min(max(int(header.mtime), 0), _LATEST_S))


def _parsed(block: bytes) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise BadBackup("it is no backup of miStudio, or damaged") from error


def _pax(text: bytes) -> dict[str, str]:
    """Records of ``<length> <name>=<value>\\n`` (POSIX pax)."""
    records = {}
    try:
        while text:
            length = int(text.partition(b" ")[0])
            name, _, value = text[:length].partition(b" ")[2].decode().rstrip("\n").partition("=")
            if length <= 0 or (name == "size" and not (value.isdecimal() and len(value) < 20)):
                raise ValueError
            records[name], text = value, text[length:]
    except ValueError:
        raise BadBackup("the backup is damaged: a name in it cannot be read") from None
    return records


def _member(file: BinaryIO, entry: _Entry) -> Iterator[bytes]:
    yield from _content(file, entry.bytes, "the backup is cut off: its end is missing")
    file.read(_padded(entry.bytes) - entry.bytes)


def _digest(file: BinaryIO, entry: _Entry) -> str:
    digest = hashlib.sha256()
    for block in _member(file, entry):
        digest.update(block)
    return digest.hexdigest()


def _written(file: BinaryIO, entry: _Entry, place: Path) -> str:
    digest = hashlib.sha256()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except (FileExistsError, NotADirectoryError):
        raise BadBackup(f"the backup holds {entry.name[:100]!r} twice: it is not used") from None
    with open(handle, "wb") as out:
        for block in _member(file, entry):
            digest.update(block)
            out.write(block)
    os.utime(place, (entry.mtime, entry.mtime))
    return digest.hexdigest()


def _content(file: BinaryIO, size: int, complaint: str) -> Iterator[bytes]:
    while size:
        block = file.read(min(_BLOCK_BYTES, size))
        if not block:
            raise BadBackup(complaint)
        size -= len(block)
        yield block


def _header(name: str, size: int, mtime: int) -> bytes:
    """Of a long name, or one that is not ASCII, with a pax header in front; so of more than 8 GB."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime, entry.mode = size, max(mtime, 0), 0o600
    return entry.tobuf(tarfile.PAX_FORMAT)


def _padded(size: int) -> int:
    return -(-size // _RECORD_BYTES) * _RECORD_BYTES


def _padding(size: int) -> bytes:
    return bytes(_padded(size) - size)
