"""The process in which kernels are tried: ``python -m mistudiod.worker.try_precisions PARENT PRECISION...``.

One JSON object a line on stdout: first what the device is, then of every precision why it does not work, or null. After
a failure on a GPU it ends, because that may have spoilt the process for whatever is tried next.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import signal
import sys
from pathlib import Path
from typing import TextIO

_PR_SET_PDEATHSIG = 1


def main() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):  # it died before prctl took hold
        return
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print
    try:
        try_all(sys.argv[2:], out)
    except ModuleNotFoundError as error:
        _tell(out, {"missing": error.name})


def try_all(precisions: list[str], out: TextIO) -> None:
    import torch

    from mistudiod.engine.precision import why_not

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        gpu = torch.cuda.get_device_properties(0)
        _tell(out, {"device": device, "name": gpu.name, "memory_bytes": gpu.total_memory})
    else:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        _tell(out, {"device": device, "name": _processor(), "memory_bytes": memory if memory > 0 else None})
    for precision in precisions:
        reason = why_not(precision, device)
        _tell(out, {"precision": precision, "reason": reason})
        if reason and device == "cuda":
            break


def _processor() -> str:
    """What the kernel calls the processor; on Arm it names the board instead."""
    lines = _read("/proc/cpuinfo").splitlines()
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return named or _read("/proc/device-tree/model").strip("\0 \n") or platform.machine()


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _tell(out: TextIO, what: dict[str, object]) -> None:
    out.write(json.dumps(what) + "\n")
    out.flush()


if __name__ == "__main__":
    main()
    os._exit(0)  # the clean-up of a GPU's libraries may fail after a kernel has
