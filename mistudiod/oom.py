"""What running out of memory looks like, and what is tried then. Pure: no torch, so that every part may ask.

Only some libraries raise an error of its own for it. The others say it in words, and on a Jetson those are the words of
a failed assertion (https://github.com/pytorch/pytorch/pull/185946), which no list of "out of memory" strings knows.
"""

from __future__ import annotations

from typing import Literal

Where = Literal["device", "host"]  # whose memory ran out: the GPU's, or the machine's

MESSAGES: tuple[tuple[str, Where], ...] = (
    ("OutOfMemoryError", "device"),  # torch's own; before MemoryError, which it ends in
    ("DefaultCPUAllocator: can't allocate", "host"),
    ("MemoryError", "host"),
    ("std::bad_alloc", "host"),  # MKL, oneDNN, tokenizers
    ("Cannot allocate memory", "host"),  # ENOMEM of mmap and fork, whoever says it
    ("NVML_SUCCESS == r", "device"),
    ("CUBLAS_STATUS_ALLOC_FAILED", "device"),
    ("CUDNN_STATUS_ALLOC_FAILED", "device"),
    ("cudaErrorMemoryAllocation", "device"),
    ("NvMapMemAlloc", "device"),
    ("hipErrorOutOfMemory", "device"),
    ("out of memory", "device"),  # CUDA, the CUDA driver, HIP and Triton
)
RESTARTS = 3  # with half as much at a time; what does not fit then does not fit
_SIGKILL = 9


def classify(text: str) -> Where | None:
    """Whose memory ran out, when ``text`` (an error's, with the name of its type) says so; None when it is another."""
    return next((where for words, where in MESSAGES if words in text), None)


def killed_for_memory(exit_code: int, oom_kills: int) -> bool:
    """Whether the kernel took a process for its memory.

    ``exit_code`` is negative for a signal; ``oom_kills`` is how many it has taken meanwhile.
    """
    return exit_code == -_SIGKILL and oom_kills > 0


def halved(tokens: int, restarts: int, least: int) -> int | None:
    """How many tokens at a time the worker is started with after it ran out of memory with ``tokens``.

    ``restarts``: how often that was done before. ``least``: the fewest that are of use, one window. None: not again.
    """
    if restarts >= RESTARTS or tokens <= least:
        return None
    return max(least, tokens // 2)
