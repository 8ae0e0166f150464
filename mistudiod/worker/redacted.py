"""stdout and stderr of a worker that holds secrets: what Python writes there is written without them.

What C code writes straight to the file descriptors goes past this; the daemon hides it when it reads the log.
"""

from __future__ import annotations

import io
import sys
import threading
from typing import TYPE_CHECKING

from mistudiod.redact import PROCESS, Redactor

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class RedactedFile(io.BufferedIOBase):
    """Writes to ``file`` without secrets, also those that come in pieces: the end of a line waits for the rest of it.

    A secret has no line break, so whole lines go at once; ``flush`` lets go of all that cannot become a secret.
    """

    def __init__(self, file: io.FileIO, redactor: Redactor) -> None:
        self._file, self._redactor = file, redactor
        self._held = ""
        self._lock = threading.RLock()  # a signal handler may print while its own thread is writing

    def write(self, data: ReadableBuffer) -> int:
        text = bytes(data).decode(errors="surrogateescape")
        with self._lock:
            line_end = max(text.rfind("\n"), text.rfind("\r")) + 1
            if line_end:
                self._write(self._redactor.hide(self._held + text[:line_end]))
                self._held = ""
            self._held += text[line_end:]
            if len(self._held) > io.DEFAULT_BUFFER_SIZE:
                self.flush()
        return memoryview(data).nbytes

    def flush(self) -> None:
        with self._lock:
            hidden = self._redactor.hide(self._held)
            settled = self._redactor.settled(hidden)
            self._held = hidden[settled:]
            self._write(hidden[:settled])

    def close(self) -> None:
        """Write what waits; ``file`` stays open."""
        with self._lock:
            if not self.closed:
                held, self._held = self._held, ""
                self._write(self._redactor.hide(held))
                super().close()

    def _write(self, text: str) -> None:
        left = memoryview(text.encode(errors="surrogateescape"))
        while left:
            left = left[self._file.write(left) :]

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._file.fileno()

    def isatty(self) -> bool:
        return False


def redact_output() -> None:
    """From now on this process writes to stdout and stderr without the secrets that it knows."""
    sys.stdout.flush()
    sys.stderr.flush()
    sys.stdout, sys.stderr = _redacted(1), _redacted(2)


def _redacted(number: int) -> io.TextIOWrapper:
    file = RedactedFile(io.FileIO(number, "w", closefd=False), PROCESS)
    return io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", write_through=True)
