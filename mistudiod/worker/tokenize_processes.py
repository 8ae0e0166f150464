"""Tokens from several processes, in the order of the text.

Threads of the tokenizers library contend with each other; processes (``tokenize_process``) do not.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import NoReturn

from mistudiod.engine.documents import Pieces
from mistudiod.worker.tokenize_pieces import Batch, Encoder, Encoding

_WAITING = 2  # batches that a process has: one that it is at, and the next
_AHEAD = 4  # batches a process that may be under way or done out of order: bounds memory
_CHECK_S = 0.1  # how often a wish to end is looked for


def in_order(
    batches: Iterator[Batch], encoding: Encoding, processes: int, check: Callable[[], None]
) -> Iterator[Pieces]:
    """The Pieces of ``batches``, in their order. ``check`` is called often and may raise. Close it when done early.

    With one process it is this one, whose tokenizer uses threads where it may.
    """
    if processes > 1:
        yield from _from_processes(batches, encoding, processes, check)
        return
    encoder = Encoder(encoding)
    for batch in batches:
        check()
        yield encoder(batch)


def _from_processes(
    batches: Iterator[Batch], encoding: Encoding, processes: int, check: Callable[[], None]
) -> Iterator[Pieces]:
    with ExitStack() as stack:
        children = [stack.enter_context(_Child(encoding)) for _ in range(processes)]
        done: dict[int, Pieces] = {}
        sent = given = 0
        more = True
        while more or given < sent:
            while more and sent - given < _AHEAD * processes:
                ready = [child for child in children if child.ready and len(child.waiting) < _WAITING]
                if not ready:
                    break
                child = min(ready, key=lambda child: len(child.waiting))
                batch = next(batches, None)
                if batch is None:
                    more = False
                else:
                    child.send(sent, batch, check)
                    sent += 1
            check()
            while given in done:
                yield done.pop(given)
                given += 1
            busy = {child.connection: child for child in children if child.waiting or not child.ready}
            for connection in wait(list(busy), timeout=_CHECK_S):
                done |= busy[connection].receive(check)  # type: ignore[index]


class _Child:
    """One process: ``waiting`` are the numbers of the batches that it has, in order. ``ready``: it has started."""

    def __init__(self, encoding: Encoding) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mistudiod.worker.tokenize_process", str(os.getpid()), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,  # the worker's own is its lifeline
                pass_fds=(theirs.fileno(),),
                env={**os.environ, "TOKENIZERS_PARALLELISM": "false"},
            )
        self.connection = Connection(ours.detach())
        self.waiting: deque[int] = deque()
        self.ready = False
        self.connection.send(encoding)

    def send(self, number: int, batch: Batch, check: Callable[[], None]) -> None:
        try:
            self.connection.send(batch)
        except OSError:
            self._dead(check)
        self.waiting.append(number)

    def receive(self, check: Callable[[], None]) -> dict[int, Pieces]:
        """What it has done; nothing when it says that it is ready."""
        try:
            said: Pieces | None = self.connection.recv()
        except (EOFError, OSError):
            self._dead(check)
        self.ready = True
        return {} if said is None else {self.waiting.popleft(): said}

    def _dead(self, check: Callable[[], None]) -> NoReturn:
        check()  # a wish to end may have ended it as well
        code = self._process.wait()
        if code == -signal.SIGKILL:
            raise MemoryError("a tokenizing process was killed")
        raise RuntimeError(f"a tokenizing process ended with code {code}; the log says why")

    def __enter__(self) -> _Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self.connection.close()
