"""The file of a backup: any tar reads it, and what is not as we write it is refused before it can do harm."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mistudiod import backup_file
from mistudiod.backup_file import ABOUT, SUMS, BadBackup, Piece, pack, unpack

SAID: dict[str, Any] = {"version": "0.8.0", "made_at": "2026-11-30T04:12:00Z", "migrations": ["m001"], "left_out": []}
LONG = f"saes/{'ü' * 60}/{'x' * 200}/{'y' * 200}.json"
FILES = {"mistudio.db": b"d" * 5000, "runs/1/job.json": b"{}", LONG: b"long", "empty.txt": b"", "block.bin": b"b" * 512}


def pieces_in(folder: Path, files: dict[str, bytes] = FILES) -> Iterator[Piece]:
    for number, (name, content) in enumerate(files.items()):
        path = folder / str(number)
        path.write_bytes(content)
        yield Piece(name, path, len(content), 1_700_000_000)


def packed(folder: Path) -> bytes:
    size, blocks = pack(SAID, list(pieces_in(folder)))
    whole = b"".join(blocks)
    assert len(whole) == size, "what is announced is what comes"
    return whole


def read(whole: bytes, to: Path | None = None) -> dict[str, Any]:
    return unpack(io.BytesIO(whole), to)


def test_what_is_packed_is_unpacked_with_its_names_and_times(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    out = tmp_path / "out"
    out.mkdir()
    known = unpack(io.BytesIO(packed(tmp_path)), out, told=lambda *far: told.append(far))
    assert {name: (out / name).read_bytes() for name in FILES} == FILES
    assert (out / LONG).stat().st_mtime == 1_700_000_000 and (out / LONG).stat().st_mode & 0o777 == 0o600
    assert known["files"] == 5 and known["bytes"] == told[-1][0] == told[-1][1] == 5518


def test_any_tar_reads_it_and_sha256sum_checks_it(tmp_path: Path) -> None:
    (tmp_path / "b.tar").write_bytes(packed(tmp_path))
    out = tmp_path / "out"
    out.mkdir()
    subprocess.run(["tar", "xf", tmp_path / "b.tar", "-C", out], check=True)
    assert (out / LONG).read_bytes() == b"long"
    subprocess.run(["sha256sum", "-c", "--strict", SUMS], cwd=out, check=True, stdout=subprocess.DEVNULL)
    with tarfile.open(tmp_path / "b.tar") as tar:
        assert tar.getnames() == [ABOUT, *FILES, SUMS]


def test_a_file_that_goes_on_growing_is_taken_as_it_was_and_one_that_shrinks_ends_it(tmp_path: Path) -> None:
    pieces = list(pieces_in(tmp_path))
    with pieces[1].path.open("ab") as file:
        file.write(b"more")
    size, blocks = pack(SAID, pieces)
    whole = b"".join(blocks)
    assert len(whole) == size
    assert read(whole)["files"] == 5
    os.truncate(pieces[0].path, 100)
    with pytest.raises(BadBackup, match=r"mistudio\.db became shorter while it was read: try again"):
        b"".join(pack(SAID, pieces)[1])


def test_one_that_is_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    whole = packed(tmp_path)
    for end in {0, 1, 100, 511, *range(512, len(whole) - 1024, 512), len(whole) // 2 + 7}:
        with pytest.raises(BadBackup, match=r"cut off|no backup of miStudio|damaged"):
            read(whole[:end])


def test_a_byte_that_has_changed_is_found_wherever_it_is(tmp_path: Path) -> None:
    whole = bytearray(packed(tmp_path))
    for at in range(0, len(whole) - 1024, 97):
        before = whole[at]
        whole[at] ^= 0x10
        try:
            read(bytes(whole))
        except BadBackup:
            pass
        else:
            assert not before or 148 <= at % 512 < 156, "only what fills a block up, or a header's sum, is for nothing"
        whole[at] = before
    assert read(bytes(whole))["files"] == 5


def tar_of(
    *members: tuple[str, bytes], kind: bytes = tarfile.REGTYPE, link: str = "", mtime: int = 0, **about: Any
) -> bytes:
    """A backup with right sums, of whatever members."""
    said = {"format": 1, **SAID, "files": len(members), "bytes": sum(len(one) for _, one in members), **about}
    head = json.dumps(said).encode()
    found, sums = io.BytesIO(), ""
    form = tarfile.GNU_FORMAT if mtime else tarfile.PAX_FORMAT  # pax has times in a record of their own
    with tarfile.open(fileobj=found, mode="w", format=form) as tar:
        for name, content in ((ABOUT, head), *members):
            entry = tarfile.TarInfo(name)
            if name != ABOUT:
                entry.type, entry.linkname, entry.mtime = kind, link, mtime
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
            sums += f"{hashlib.sha256(content).hexdigest()}  {name}\n"
        entry = tarfile.TarInfo(SUMS)
        entry.size = len(sums.encode())
        tar.addfile(entry, io.BytesIO(sums.encode()))
    return found.getvalue()


@pytest.mark.parametrize(
    "name", ["../out.txt", "/etc/x", "a/../../x", "a//b", "./a", "a\\..\\b", "a/b\nc", "x" * 256, "a/" * 600 + "b"]
)
def test_a_name_that_could_lie_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadBackup, match=r"no plain path|too long"):
        read(tar_of((name, b"x")), tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_whatever_is_no_plain_file_is_refused(tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(BadBackup, match="no plain file"):
        read(tar_of(("a", b""), kind=kind, link="/etc/passwd"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_there_twice_or_is_a_folder_too_is_refused(tmp_path: Path) -> None:
    for number, names in enumerate((("a", "a"), ("a", "a/b"), ("a/b", "a"))):
        out = tmp_path / str(number)
        out.mkdir()
        with pytest.raises(BadBackup, match="twice"):
            read(tar_of(*((name, b"x") for name in names)), out)


def test_one_that_holds_more_or_less_than_it_says_is_refused(tmp_path: Path) -> None:
    for about in ({"files": 0}, {"files": 2}, {"bytes": 0}, {"bytes": 2}):
        with pytest.raises(BadBackup, match="damaged"):
            read(tar_of(("a", b"x"), **about))


def claims(size: int, kind: bytes) -> bytes:
    entry = tarfile.TarInfo("x")
    entry.size, entry.type = size, kind
    return entry.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_SPARSE, tarfile.XGLTYPE])
def test_a_size_that_is_claimed_takes_no_memory(kind: bytes) -> None:
    class Endless(io.RawIOBase):
        """After a header, zeros for ever."""

        asked = 0

        def __init__(self) -> None:
            self._head = claims(1 << 40, kind)

        def read(self, size: int = -1) -> bytes:
            assert 0 <= size <= 1 << 20
            self.asked += size
            head, self._head = self._head[:size], self._head[size:]
            return head or bytes(size)

    endless: Any = Endless()
    with pytest.raises(BadBackup):
        unpack(endless, None)
    assert endless.asked <= 1 << 21


ODD: dict[str, Callable[[], bytes]] = {
    "no tar": lambda: b"PK\x03\x04" + bytes(2000),
    "empty": lambda: b"",
    "no json": lambda: tar_of(("a", b"x")).replace(b'{"format"', b'["format"', 1),
    "no counts": lambda: tar_of(("a", b"x"), files="many"),
    "negative": lambda: tar_of(("a", b"x"), bytes=-1),
    "too many": lambda: tar_of(("a", b"x"), files=backup_file.MOST_FILES + 1),
    "left out what?": lambda: tar_of(("a", b"x"), left_out=[7]),
    "what a terminal would do": lambda: tar_of(("a", b"x"), host="\x1b[2J"),
    "more than any disk": lambda: tar_of(("a", b"x"), bytes=10**400),
}


@pytest.mark.parametrize("odd", ODD)
def test_what_is_no_backup_is_one_sentence(odd: str) -> None:
    with pytest.raises(BadBackup, match=r"no backup of miStudio|what it says of itself cannot be read"):
        read(ODD[odd]())


@pytest.mark.parametrize("mtime", [1 << 80, -(1 << 80), 1 << 62, -5])
def test_a_time_that_no_file_can_have_is_no_harm(tmp_path: Path, mtime: int) -> None:
    read(tar_of(("a", b"x"), mtime=mtime), tmp_path)
    assert (tmp_path / "a").read_bytes() == b"x"


def test_one_of_a_newer_format_names_its_version() -> None:
    with pytest.raises(BadBackup, match=r"made by a newer miStudio \(9\.0\.0\): install that version"):
        read(tar_of(("a", b"x"), format=2, version="9.0.0"))
