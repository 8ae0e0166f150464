"""The worker itself, for tests that start a studio with a file as its worker."""

from __future__ import annotations

import runpy
import sys

if __name__ == "__main__":
    del sys.path[0]  # the tests' own modules
    runpy.run_module("mistudiod.worker", run_name="__main__", alter_sys=True)
