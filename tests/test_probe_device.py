"""What a machine computes with, and in which precisions: found out by kernels that may end their process."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from run_job import run_job

from mistudiod.abilities import versions
from mistudiod.engine import precision
from mistudiod.facts import PRECISIONS
from mistudiod.paths import Paths
from mistudiod.preview import preview
from mistudiod.runner import WORKER
from mistudiod.specs import ProbeDevice
from mistudiod.worker import probe_device, try_precisions

GPU = {"device": "cuda", "name": "a GPU", "memory_bytes": 8_000_000_000}
# A process that tries what it is told to; PLAN says what it runs before a precision works.
FAKE = """
import json, os, sys
plan = json.load(open(sys.argv[1]))
tell = lambda what: print(json.dumps(what), flush=True)
open(sys.argv[1] + ".asked", "a").write(" ".join(sys.argv[3:]) + "\\n")
tell(plan["device"])
for name in sys.argv[3:]:
    if name in plan:
        exec(plan[name])
    tell({"precision": name, "reason": None})
"""


def probe_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **plan: str) -> dict[str, Any]:
    """The result when the process that tries does as ``plan`` says: what it runs before a precision works."""
    (tmp_path / "plan").write_text(json.dumps({"device": GPU, **plan}))
    (tmp_path / "fake.py").write_text(FAKE)
    monkeypatch.setattr(probe_device, "TRY", (sys.executable, str(tmp_path / "fake.py"), str(tmp_path / "plan")))
    return run_job(tmp_path / "data", "probe_device")


def asked(tmp_path: Path) -> list[list[str]]:
    return [line.split() for line in (tmp_path / "plan.asked").read_text().splitlines()]


def test_the_daemon_is_told_of_its_device_and_every_precision(tmp_path: Path) -> None:
    found = asyncio.run(preview(ProbeDevice(), Paths(tmp_path), 120, WORKER))
    assert list(found) == ["device", "name", "memory_bytes", "precisions", "versions"]
    assert found["device"] == ("cuda" if torch.cuda.is_available() else "cpu")
    assert found["name"] and found["memory_bytes"] > 1 << 28
    assert found["precisions"] == dict.fromkeys(PRECISIONS)
    assert found["versions"] == versions() and found["versions"]["torch"] == torch.__version__
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_kernel_that_ends_its_process_switches_off_its_precision_and_the_others_are_still_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "Error named symbol not found at line 62 in file /src/csrc/ops.cu"
    ends = f"print('a warning', file=sys.stderr); sys.exit({said!r})"
    found = probe_with(tmp_path, monkeypatch, int8=ends)
    assert found["precisions"] == dict.fromkeys(PRECISIONS) | {"int8": f"int8 does not work on cuda: {said}"}
    assert found.items() >= GPU.items()
    assert asked(tmp_path) == [list(PRECISIONS), ["nf4"]]


def test_code_that_was_built_for_another_processor_is_said_to_end_by_its_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = probe_with(tmp_path, monkeypatch, nf4="os.kill(os.getpid(), 4)", int8="os._exit(3)")
    assert found["precisions"] == dict.fromkeys(PRECISIONS) | {
        "int8": "int8 does not work on cuda: its process ended with the exit code 3",
        "nf4": "nf4 does not work on cuda: its process was ended by SIGILL",
    }


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ("raise RuntimeError('CUDA error: out of memory\\nCompile with it')", "CUDA error: out of memory"),
        ("sys.exit('Error out of memory at line 38 in file /src/csrc/ops.cu')", "Error out of memory at line 38"),
        ("sys.exit('NvMapMemAllocInternalTagged: 1075072515 error 12')", "NvMapMemAllocInternalTagged"),
        ("os.kill(os.getpid(), 9)", "the process that tried the precisions was killed"),
    ],
)
def test_too_little_memory_says_nothing_about_any_precision(
    ends: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MemoryError, match=said):
        probe_with(tmp_path, monkeypatch, bf16=ends)


def test_a_torch_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(name='torch')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ModuleNotFoundError) as caught:
        run_job(tmp_path / "data", "probe_device")
    assert caught.value.name == "torch"


def test_a_torch_that_cannot_be_loaded_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so.12: cannot open shared object file')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(RuntimeError) as caught:
        run_job(tmp_path / "data", "probe_device")
    assert str(caught.value) == (
        "torch cannot be used on this machine: OSError: libcudart.so.12: cannot open shared object file"
    )


def test_nothing_is_tried_in_a_process_that_a_gpu_has_spoilt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    gpu = SimpleNamespace(name="a GPU", total_memory=8_000_000_000)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: gpu)
    monkeypatch.setattr(
        precision, "why_not", lambda name, device: None if name == "fp32" else f"{name} is not on {device}"
    )
    out = io.StringIO()
    try_precisions.try_all(list(PRECISIONS), out)
    assert [json.loads(line) for line in out.getvalue().splitlines()] == [
        GPU,
        {"precision": "fp32", "reason": None},
        {"precision": "bf16", "reason": "bf16 is not on cuda"},
    ]


def test_on_a_processor_the_other_precisions_are_tried_in_the_same_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(precision, "why_not", lambda name, device: f"{name} is not on {device}")
    out = io.StringIO()
    try_precisions.try_all(list(PRECISIONS), out)
    device, *tried = [json.loads(line) for line in out.getvalue().splitlines()]
    assert (device["device"], device["memory_bytes"]) == (
        "cpu",
        os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    )
    assert [one["reason"] for one in tried] == [f"{name} is not on cpu" for name in PRECISIONS]
