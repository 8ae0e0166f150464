"""One of the processes that tokenize: ``python -m mistudiod.worker.tokenize_process PARENT FD``.

It gets an Encoding, says that it is ready, then answers every Batch with its Pieces. It ends with the worker: by the
kernel's word (``PR_SET_PDEATHSIG``), and by the end of the connection, for that one can be lost.
"""

from __future__ import annotations

import ctypes
import os
import queue
import signal
import sys
import threading
from multiprocessing.connection import Connection

_PR_SET_PDEATHSIG = 1


def main() -> None:
    _tie_to(int(sys.argv[1]))
    # Not before: this takes long, and the worker may end meanwhile.
    from mistudiod.worker.tokenize_pieces import Batch, Encoder

    connection = Connection(int(sys.argv[2]))
    encoder = Encoder(connection.recv())
    connection.send(None)
    batches: queue.SimpleQueue[Batch] = queue.SimpleQueue()

    def read() -> None:
        while True:
            try:
                batches.put(connection.recv())
            except (EOFError, OSError):
                os._exit(0)

    # In a thread, so that the worker never waits to send to one that waits to send to the worker.
    threading.Thread(target=read, daemon=True).start()
    while True:
        connection.send(encoder(batches.get()))


def _tie_to(parent: int) -> None:
    for signum in (signal.SIGTERM, signal.SIGINT):  # they go to the whole group: the worker ends this process
        signal.signal(signum, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before prctl took hold
        os._exit(0)


if __name__ == "__main__":
    main()
