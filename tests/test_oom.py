"""Running out of memory, as libraries say it; and what is tried then."""

from __future__ import annotations

import pytest

from mistudiod.ending import MEMORY, ending
from mistudiod.jobs import State
from mistudiod.oom import RESTARTS, classify, halved, killed_for_memory
from mistudiod.runner import Exit


@pytest.mark.parametrize(
    "text",
    [
        "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 7.44 GiB",
        'RuntimeError: NVML_SUCCESS == r INTERNAL ASSERT FAILED at "CUDACachingAllocator.cpp":1131',
        "RuntimeError: CUDA error: out of memory",
        "RuntimeError: CUDA driver error: out of memory",
        "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "RuntimeError: cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "RuntimeError: Triton Error [CUDA]: out of memory",
        "AcceleratorError: cudaErrorMemoryAllocation",
        "RuntimeError: hipErrorOutOfMemory",
        "RuntimeError: NvMapMemAllocInternalTagged: 1075072515 error 12",
    ],
)
def test_every_way_to_say_that_a_gpu_is_full_is_known(text: str) -> None:
    assert classify(text) == "device"


@pytest.mark.parametrize(
    "text",
    [
        "MemoryError: ",
        "RuntimeError: [enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 4294967296 bytes. Error code 12 (Cannot allocate memory)",
        "RuntimeError: std::bad_alloc",
        "OSError: [Errno 12] Cannot allocate memory",
        "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 8.00 GiB for an array",
    ],
)
def test_every_way_to_say_that_the_machine_is_full_is_known(text: str) -> None:
    assert classify(text) == "host"


@pytest.mark.parametrize(
    "text",
    [
        "RuntimeError: CUDA error: device-side assert triggered",
        "OSError: [Errno 28] No space left on device",
        "RuntimeError: CUDA error: unknown error",
        "ValueError: the loss at step 3 is nan",
        "",
    ],
)
def test_what_more_memory_would_not_mend_is_something_else(text: str) -> None:
    assert classify(text) is None


def test_a_process_that_the_kernel_took_for_its_memory_is_told_from_one_that_somebody_killed() -> None:
    assert killed_for_memory(-9, oom_kills=1)
    assert not killed_for_memory(-9, oom_kills=0)
    assert not killed_for_memory(-11, oom_kills=1)


def test_a_worker_is_started_anew_with_half_as_much_at_a_time_and_at_most_three_times() -> None:
    tokens: int | None = 4096
    tried = []
    for restarts in range(5):
        tokens = halved(tokens or 0, restarts, least=128)
        tried.append(tokens)
    assert tried[:RESTARTS] == [2048, 1024, 512]
    assert tried[RESTARTS:] == [None, None]


def test_less_than_one_window_at_a_time_is_not_tried() -> None:
    assert halved(192, 0, least=128) == 128
    assert halved(128, 1, least=128) is None


def test_a_worker_that_had_no_memory_left_to_say_so_is_spoken_for() -> None:
    end = ending(Exit(MEMORY, None, False, "MemoryError"), None, False, 60.0)
    assert end.state is State.FAILED and end.error is not None
    assert end.error["code"] == "out_of_memory" and end.error["message"].endswith("then retry the job")
