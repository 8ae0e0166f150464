"""Streams of tokens that become windows in a file while they grow, and go back by a document when they must.

``Packed``: documents run on with a separator between them. ``Padded``: each document has windows of its own, of which
the last is filled up. A long document comes in many parts and may be dropped at its end: ``mark`` before it begins,
``go_back`` takes it out again.
"""

from __future__ import annotations

from typing import BinaryIO, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

_FLUSH_TOKENS = 1 << 18
_Tokens = NDArray[np.uint32]


class Stream(Protocol):
    """``windows`` are written; ``waiting`` tokens have not filled one yet."""

    @property
    def windows(self) -> int: ...

    @property
    def waiting(self) -> int: ...

    def begin(self) -> None: ...

    def add(self, tokens: _Tokens) -> None: ...

    def end(self) -> None: ...

    def flush(self) -> None: ...

    def mark(self) -> None: ...

    def go_back(self) -> None: ...


class _Rows:
    """Windows in a file. ``body`` is how many tokens of its text a window holds."""

    def __init__(self, file: BinaryIO, context: int, leading: int | None, dtype: DTypeLike) -> None:
        self.file, self.leading, self.dtype = file, leading, np.dtype(dtype)
        self.context, self.body = context, context - (leading is not None)
        self.written = 0

    def write(self, bodies: _Tokens) -> None:
        """``bodies``: (n, body)."""
        rows = np.empty((len(bodies), self.context), dtype=self.dtype)
        rows[:, : self.context - self.body] = self.leading or 0
        rows[:, self.context - self.body :] = bodies
        self.file.write(rows.tobytes())  # not tofile, whose error does not say that the disk is full
        self.written += len(rows)

    def cut(self, windows: int) -> None:
        """Forget all but the first ``windows``."""
        self.file.seek(windows * self.context * self.dtype.itemsize)
        self.file.truncate()
        self.written = windows


class Packed:
    def __init__(
        self, file: BinaryIO, context: int, leading: int | None, separator: int | None, dtype: DTypeLike
    ) -> None:
        self.waiting = self.separators = 0
        self._rows, self._separator = _Rows(file, context, leading, dtype), separator
        self._parts: list[_Tokens] = []
        self._separate = self._begun = False
        self._marked: tuple[int, _Tokens, int, bool] | None = None

    @property
    def windows(self) -> int:
        return self._rows.written

    def begin(self) -> None:
        self._separate = True

    def add(self, tokens: _Tokens) -> None:
        if not len(tokens):
            return
        if self._separate and self._begun and self._separator is not None:
            self._append(np.array([self._separator], dtype=np.uint32))
            self.separators += 1
        self._separate, self._begun = False, True
        self._append(tokens)
        if self.waiting >= _FLUSH_TOKENS:
            self.flush()

    def _append(self, tokens: _Tokens) -> None:
        self._parts.append(tokens)
        self.waiting += len(tokens)

    def end(self) -> None:
        pass

    def flush(self) -> None:
        """Write the windows that are full."""
        full = self.waiting // self._rows.body
        if full:
            stream, size = np.concatenate(self._parts), full * self._rows.body
            self._rows.write(stream[:size].reshape(full, -1))
            self._parts, self.waiting = [stream[size:].copy()], self.waiting - size  # a copy lets go of the rest

    def mark(self) -> None:
        self.flush()
        left = np.concatenate(self._parts) if self._parts else np.empty(0, dtype=np.uint32)
        self._marked = (self.windows, left, self.separators, self._begun)

    def go_back(self) -> None:
        assert self._marked is not None
        windows, left, self.separators, self._begun = self._marked
        self._rows.cut(windows)
        self._parts, self.waiting = [left], len(left)


class Padded:
    """``stride``: how many tokens of its document a window repeats of the window before it."""

    waiting = 0

    def __init__(
        self, file: BinaryIO, context: int, leading: int | None, filler: int, stride: int, dtype: DTypeLike
    ) -> None:
        self.padding = 0  # tokens of it so far
        self._rows, self._filler, self._stride = _Rows(file, context, leading, dtype), filler, stride
        self._full: list[_Tokens] = []  # of (n, body) each
        self._full_windows = self._new = 0
        self._parts: list[_Tokens] = []  # of the document, not in a window yet, after those that are repeated
        self._size = 0
        self._marked = (0, 0)

    @property
    def windows(self) -> int:
        return self._rows.written + self._full_windows

    def begin(self) -> None:
        self._parts, self._size, self._new = [], 0, 0

    def add(self, tokens: _Tokens) -> None:
        self._parts.append(tokens)
        self._size += len(tokens)
        self._new += len(tokens)
        if self._size >= self._rows.body:
            self._cut()

    def _cut(self) -> None:
        body, advance = self._rows.body, self._rows.body - self._stride
        text = np.concatenate(self._parts)
        count = (len(text) - body) // advance + 1
        self._keep(np.lib.stride_tricks.sliding_window_view(text, body)[::advance][:count])
        rest = text[count * advance :].copy()
        self._parts, self._size, self._new = [rest], len(rest), len(rest) - self._stride

    def end(self) -> None:
        if self._new > 0:
            row = np.full((1, self._rows.body), self._filler, dtype=np.uint32)
            row[0, : self._size] = np.concatenate(self._parts)
            self.padding += self._rows.body - self._size
            self._keep(row)
        self._parts, self._size, self._new = [], 0, 0

    def _keep(self, bodies: _Tokens) -> None:
        self._full.append(bodies)
        self._full_windows += len(bodies)
        if self._full_windows * self._rows.body >= _FLUSH_TOKENS:
            self.flush()

    def flush(self) -> None:
        if self._full:
            self._rows.write(np.concatenate(self._full))
            self._full, self._full_windows = [], 0

    def mark(self) -> None:
        self.flush()
        self._marked = (self.windows, self.padding)

    def go_back(self) -> None:
        windows, self.padding = self._marked
        self._full, self._full_windows = [], 0
        self._rows.cut(windows)
