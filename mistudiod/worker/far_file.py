"""A file on the Hub that is read where it lies: only the ranges that are asked for, ahead as long as they follow."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from huggingface_hub import hf_hub_url
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from mistudiod.worker.hub import HTTP_ERROR, TIMEOUT_S, Gone, Kind, answered, endpoint, persisted, refusal
from mistudiod.worker.link import Link

_LEAST_BYTES, _MOST_BYTES = 1 << 16, 8 << 20  # of one request
_AHEAD = 4  # a request asks for a quarter of what has been read on, so that little is fetched in vain
_KEPT_BYTES = 2 << 20
_WINDOWS = 8  # places that are read on from in turn, as the columns of a parquet file are
_BUFFER_BYTES = 1 << 15


class FarFiles:
    """The files of a repository at one of its commits. Opening and reading them raise Refused and, at once, Asked."""

    def __init__(self, id: str, revision: str, link: Link, kind: Kind = "dataset") -> None:
        self._id, self._revision, self._link, self._kind = id, revision, link, kind
        self._token = link.secret("hf")
        self._name = ""  # of the file that was opened last
        self._kept: dict[tuple[int, int], bytes] = {}  # of it: files are looked at first, and then read from the start

    def open(self, name: str, size: int) -> BinaryIO:
        if name != self._name:
            self._name, self._kept = name, {}

        def fetch(start: int, end: int) -> bytes:
            data = self._kept.get((start, end)) if name == self._name else None
            if data is None:
                data = self.fetch(name, start, end)
                if name == self._name and sum(map(len, self._kept.values())) < _KEPT_BYTES:
                    self._kept[start, end] = data
            return data

        return io.BufferedReader(FarFile(size, fetch), _BUFFER_BYTES)

    def fetch(self, name: str, start: int, end: int) -> bytes:
        """The bytes of a file from ``start`` on, ``end`` excluded."""
        repo_type = "dataset" if self._kind == "dataset" else None
        url = hf_hub_url(self._id, name, repo_type=repo_type, revision=self._revision, endpoint=endpoint())

        def fetched(gone: threading.Event) -> bytes:
            return _fetched(url, self._token, start, end, gone)

        try:
            return answered(self._link, fetched)
        except (HTTP_ERROR, OSError) as error:
            refused = refusal(error, self._kind, self._id, self._token)
            if refused is None:
                raise
            raise refused from error


def _fetched(url: str, token: str | None, start: int, end: int, gone: threading.Event) -> bytes:
    """After a cut connection only what is missing is asked for again."""
    headers = build_hf_headers(token=token or False) | {"Accept-Encoding": "identity"}
    come = bytearray()

    def append() -> None:
        begin = start + len(come)
        asked = headers | {"Range": f"bytes={begin}-{end - 1}"}
        with get_session().stream("GET", url, headers=asked, timeout=TIMEOUT_S, follow_redirects=True) as answer:
            hf_raise_for_status(answer)
            skip = begin if answer.status_code == 200 else 0  # whoever knows no ranges sends it all
            for piece in answer.iter_bytes():
                if gone.is_set():
                    raise Gone
                skip, piece = max(skip - len(piece), 0), piece[skip:]
                come.extend(piece[: end - start - len(come)])
                if len(come) == end - start:
                    return

    persisted(append, gone, lambda: len(come))
    return bytes(come)


@dataclass
class _Window:
    start: int
    data: bytes
    read_on: int  # bytes that were read without a gap, these included

    @property
    def end(self) -> int:
        return self.start + len(self.data)


class FarFile(io.RawIOBase):
    """``fetch`` takes a range of at most ``size``, its end excluded, and returns its bytes."""

    def __init__(self, size: int, fetch: Callable[[int, int], bytes]) -> None:
        self._size, self._fetch, self._at = size, fetch, 0
        self._windows: list[_Window] = []  # the one that was used last is the last

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        wanted = min(len(buffer), self._size - self._at)
        if wanted <= 0:
            return 0
        window = self._window(wanted)
        data = memoryview(window.data)[self._at - window.start :][:wanted]
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _window(self, wanted: int) -> _Window:
        """One that holds the byte at which we are."""
        for window in reversed(self._windows):
            if window.start <= self._at < window.end:
                break
        else:
            window = self._next(wanted)
            del self._windows[: -_WINDOWS + 1]
            self._windows.append(window)
        return window

    def _next(self, wanted: int) -> _Window:
        read_on = 0
        for window in self._windows:
            if window.end == self._at:
                self._windows.remove(window)
                read_on = window.read_on
                break
        ahead = min(max(read_on // _AHEAD, _LEAST_BYTES), _MOST_BYTES)
        end = min(self._at + max(wanted, ahead), self._size)
        data = self._fetch(self._at, end)
        if len(data) != end - self._at:
            raise EOFError  # it cannot be: the revision is pinned
        return _Window(self._at, data, read_on + len(data))
