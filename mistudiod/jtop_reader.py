"""``python -m mistudiod.jtop_reader``: one JSON line a second of what jtop knows, until stdin ends.

jtop (the package jetson-stats) is the user's own choice and under the AGPL: it is imported here, in a process of its
own, and never by the daemon. Line: ``{"gpu_share", "watts", "power_mode", "clocks_locked"}``, unknown is null.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

EVERY_S = 1.0


def main() -> None:
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    jtop = importlib.import_module("jtop").jtop
    with jtop(interval=EVERY_S) as jetson:
        while jetson.ok():  # waits for the next reading
            sys.stdout.write(json.dumps(reading(jetson)) + "\n")
            sys.stdout.flush()


def reading(jetson: Any) -> dict[str, object]:
    """The few properties that the kernel's own files do not give, each None when this board lacks it."""
    return {
        "gpu_share": _known(lambda: _integrated_load(jetson.gpu) / 100),
        "watts": _known(lambda: float(jetson.power["tot"]["power"]) / 1000),
        "power_mode": _known(lambda: str(jetson.nvpmodel.name)),
        "clocks_locked": _known(lambda: bool(jetson.jetson_clocks) if jetson.jetson_clocks is not None else None),
    }


def _integrated_load(gpus: Any) -> float:
    """Per cent."""
    return next(float(gpu["status"]["load"]) for gpu in gpus.values() if gpu["type"] == "integrated")


def _known(get: Callable[[], object]) -> object:
    try:
        return get()
    except (AttributeError, KeyError, StopIteration, TypeError, ValueError):
        return None


def _end_with_stdin() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main()
