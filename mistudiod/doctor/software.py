"""Python, miStudio and the worker's packages. Files and metadata only: importing torch takes seconds and memory."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import sys
from pathlib import Path

from mistudiod import __version__
from mistudiod.doctor.finding import Finding, Subject
from mistudiod.gpu import GpuReader
from mistudiod.host import text
from mistudiod.jetson import find_model

OLDEST_PYTHON = (3, 10)
# The extra "worker" of pyproject.toml: the oldest version of each.
WORKER = {
    "accelerate": "1.0",
    "bitsandbytes": "0.50",
    "datasets": "3",
    "huggingface-hub": "1",
    "numpy": "1.26",
    "openai": "3",
    "pyarrow": "16",
    "pyyaml": "6",
    "safetensors": "0.4.5",
    "torch": "2.4",
    "transformers": "5",
}
MODULES = {"huggingface-hub": "huggingface_hub", "pyyaml": "yaml"}  # where they are not called alike
OPTIONAL = frozenset({"accelerate", "bitsandbytes", "openai"})
_INSTALL = "run: pip install 'mistudio[worker]'"
_NVIDIA, _DISPLAY = "0x10de", "0x03"  # PCI vendor, and the class of displays and their like


def python(_subject: Subject) -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < OLDEST_PYTHON:
        return Finding("python", "problem", f"Python {version} is too old", "install Python 3.10 or newer")
    return Finding("python", "ok", f"Python {version}")


def mistudio(_subject: Subject) -> Finding:
    return Finding("mistudio", "ok", f"miStudio {__version__}")


def packages(_subject: Subject) -> Finding:
    """What workers import, with the Python that runs this: theirs is the same."""
    found = {name: _version(name) for name in WORKER}
    old = [f"{name} {v} (needs {WORKER[name]})" for name, v in found.items() if v and _older(v, WORKER[name])]
    absent = [name for name, version in found.items() if version is None]
    if missing := [name for name in absent if name not in OPTIONAL]:
        return Finding("packages", "problem", f"no job can run: {', '.join(missing)} not installed", _INSTALL)
    if old:
        return Finding("packages", "problem", f"too old: {', '.join(old)}", f"{_INSTALL} --upgrade")
    if absent:
        return Finding("packages", "warning", f"not installed: {', '.join(absent)}", _INSTALL)
    return Finding("packages", "ok", ", ".join(f"{name} {version}" for name, version in found.items()))


def torch(subject: Subject) -> Finding | None:
    """Whether the build of torch suits the GPU that is there."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.origin:
        return None
    version, built_for = _version("torch"), _built_for(Path(spec.origin).parent)
    gpus = [gpu["name"] for gpu in GpuReader().read()]
    board = find_model(subject.root)
    if board and not gpus:
        gpus = [board]
    if not gpus and _nvidia_on_the_bus(subject.root):
        return Finding(
            "torch", "warning", "there is an NVIDIA GPU, but its driver does not answer; jobs run on the processor",
            "see that nvidia-smi lists it: install or reload NVIDIA's driver, or give the container the GPU",
        )  # fmt: skip
    if not gpus:
        return Finding("torch", "ok", f"torch {version} ({built_for}); no NVIDIA GPU: jobs run on the processor")
    if not built_for.startswith("CUDA"):
        wanted = "NVIDIA's build of torch for this JetPack" if board else "the build of torch for CUDA"
        return Finding(
            "torch", "problem", f"torch {version} is built for {built_for}, so the {gpus[0]} is not used",
            f"install {wanted}: see https://pytorch.org/get-started/locally/",
        )  # fmt: skip
    return Finding("torch", "ok", f"torch {version} ({built_for}) on {', '.join(gpus)}")


def cuda_of_torch() -> int | None:
    """The first number of the CUDA that torch is built for; None of another build, or without torch."""
    spec = importlib.util.find_spec("torch")
    found = re.match(r"CUDA (\d+)", _built_for(Path(spec.origin).parent)) if spec and spec.origin else None
    return int(found[1]) if found else None


def _version(name: str) -> str | None:
    """None when it cannot be imported; "?" when it does not tell."""
    try:
        if importlib.util.find_spec(MODULES.get(name, name)) is None:
            return None
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "?"
    except ValueError:  # something has put half a module in its place
        return None


def _older(version: str, wanted: str) -> bool:
    """Compares the numbers that both have: 2.4.0+cpu is not older than 2.4."""
    have, want = ([int(n) for n in re.findall(r"\d+", v.partition("+")[0])] for v in (version, wanted))
    return bool(have) and have[: len(want)] < want


def _built_for(folder: Path) -> str:
    """``CUDA 12.8``, ``ROCm 6.2`` or ``the processor``."""
    said = text(folder / "version.py") or ""
    for name, key in (("CUDA", "cuda"), ("ROCm", "hip")):
        if found := re.search(rf"^{key}\b[^=\n]*=\s*['\"]([^'\"]+)['\"]", said, re.MULTILINE):
            return f"{name} {found[1]}"
    return "CUDA" if (folder / "lib" / "libtorch_cuda.so").exists() else "the processor"


def _nvidia_on_the_bus(root: Path) -> bool:
    devices = (root / "sys/bus/pci/devices").glob("*")
    return any(text(d / "vendor") == _NVIDIA and (text(d / "class") or "").startswith(_DISPLAY) for d in devices)
