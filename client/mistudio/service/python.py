"""Which Python the service's program is made with, and the PyTorch that comes with it or with the machine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mistudio.errors import NoService
from mistudio.service.place import HOMES

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
OLDEST, OLDEST_TORCH = (3, 10), (2, 4)
SYSTEM = "/usr/bin/python3"
_HIDDEN = (*HOMES, "/tmp", "/var/tmp")  # from a service, by ProtectHome= and PrivateTmp=
_ASK = """
import importlib.metadata as found, json, platform
def of(name):
    try: return found.version(name)
    except found.PackageNotFoundError: return None
try: import ensurepip, venv
except ImportError: venv = None
print(json.dumps([platform.python_version(), venv is not None, of("torch"), of("numpy")]))
"""


@dataclass(frozen=True)
class Python:
    """``torch``, ``numpy``: the versions that it brings for every user; None where it has none that can be used."""

    path: str
    version: str
    torch: str | None = None
    numpy: str | None = None

    @property
    def minor(self) -> str:
        return ".".join(self.version.split(".")[:2])


def choose() -> Python:
    """The one below the environment that runs this, where a service can see it; else the system's. Raises NoService."""
    own = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
    return ask(SYSTEM if any(Path(own).is_relative_to(folder) for folder in _HIDDEN) else own)


def ask(path: str) -> Python:
    """Raises NoService when no program can be made with it."""
    try:
        # -I: without what a user has installed for himself, which the service would not see.
        ran = subprocess.run([path, "-I", "-c", _ASK], capture_output=True, text=True, timeout=60)
        said, has_venv, torch, numpy = json.loads(ran.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        raise NoService(f"the service needs a Python of the system, and {path} does not run: install python3") from None
    if tuple(map(int, said.split(".")[:2])) < OLDEST:
        raise NoService(
            f"the service needs Python 3.10 or newer, and {path} is {said}: Ubuntu 22.04 and Debian 12 have it"
        )
    if not has_venv:
        minor = ".".join(said.split(".")[:2])
        raise NoService(f"{path} cannot make environments: sudo apt install python{minor}-venv")
    return Python(path, said, torch if _is_new_enough(torch) else None, numpy)


def torch_version() -> str | None:
    """Of the PyTorch that runs here; None when there is none that can be used."""
    try:
        found = version("torch")
    except PackageNotFoundError:
        return None
    return found if _is_new_enough(found) else None


def is_installed(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def _is_new_enough(torch: str | None) -> bool:
    return torch is not None and tuple(map(int, re.findall(r"\d+", torch)[:2])) >= OLDEST_TORCH


def has_gpu() -> bool:
    return any(Path(path).exists() for path in ("/dev/nvidia0", "/dev/nvidiactl", "/etc/nv_tegra_release"))
