"""The worker itself, whose pipe to the daemon breaks at SIGUSR2."""

from __future__ import annotations

import os
import runpy
import signal
import sys


def break_pipe(_signal: int, _frame: object) -> None:
    """Leave, in the place of the pipe of events, one that nobody reads any more."""
    read, write = os.pipe()
    os.close(read)
    os.dup2(write, EVENTS)
    os.close(write)


if __name__ == "__main__":
    EVENTS = int(os.environ["MISTUDIO_EVENTS_FD"])
    signal.signal(signal.SIGUSR2, break_pipe)
    del sys.path[0]  # the drills' own modules
    runpy.run_module("mistudiod.worker", run_name="__main__", alter_sys=True)
