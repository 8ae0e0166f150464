"""The worker itself, for tests of uploads: of so small requests that a small SAE takes many."""

from __future__ import annotations

import runpy
import sys

if __name__ == "__main__":
    del sys.path[0]  # the tests' own modules
    from mistudiod.neuronpedia import upload

    upload.AT_ONCE = 8
    runpy.run_module("mistudiod.worker", run_name="__main__", alter_sys=True)
