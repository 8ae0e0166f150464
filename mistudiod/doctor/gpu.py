"""The GPU, from the driver to the kernels: what torch needs of it. Files only; nothing is run on it."""

from __future__ import annotations

import grp
import importlib.util
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

from mistudiod.doctor import software
from mistudiod.doctor.finding import Finding, Subject
from mistudiod.doctor.storage import user
from mistudiod.host import text
from mistudiod.jetson import find_model

# The oldest driver for each CUDA: the table of minor version compatibility in NVIDIA's CUDA toolkit release notes.
_DRIVER_FOR_CUDA = {11: 450, 12: 525, 13: 580}
_JETPACKS = {35: 5, 36: 6, 38: 7}  # by the number of Linux for Tegra
_NODES = ("nvidia[0-9]*", "nvidiactl", "nvidia-uvm")
_NODES_OF_A_BOARD = ("nvmap", "nvhost-gpu", "nvhost-ctrl-gpu", "nvgpu/*/*", "dri/renderD*")
_MIXED = ("int8", "nf4")  # precisions whose kernels bitsandbytes brings


def driver(subject: Subject) -> Finding | None:
    """NVIDIA's driver held against the CUDA that torch was built for; on a Jetson, which JetPack it is."""
    if find_model(subject.root):
        return _jetpack(subject.root)
    said = text(subject.root / "proc/driver/nvidia/version") or ""
    version = re.search(r"Kernel Module(?: for \S+)?\s+(\d+)\.[\d.]+", said)
    if version is None:
        return None
    cuda, number = software.cuda_of_torch(), version[0].split()[-1]
    needed = _DRIVER_FOR_CUDA.get(cuda or 0)
    if needed and int(version[1]) < needed:
        return Finding(
            "driver", "problem", f"NVIDIA's driver {number} is too old for CUDA {cuda}, which torch is built for",
            f"install driver {needed} or newer, or a build of torch for an older CUDA",
        )  # fmt: skip
    return Finding("driver", "ok", f"NVIDIA's driver {number}")


def _jetpack(root: Path) -> Finding | None:
    release = re.match(r"# R(\d+) \(release\), REVISION: ([\d.]+)", text(root / "etc/nv_tegra_release") or "")
    if release is None:
        return None
    number = int(release[1])
    jetpack = f"JetPack {_JETPACKS[number]}" if number in _JETPACKS else "JetPack"
    message = f"{jetpack} (Linux for Tegra R{number}.{release[2]})"
    if number < 36:
        return Finding("driver", "problem", f"{message} is too old: its Python is 3.8", "flash JetPack 6 or newer")
    return Finding("driver", "ok", message)


def devices(subject: Subject) -> Finding | None:
    """Whether the GPU's device nodes are there, and this user may open them."""
    board, root = find_model(subject.root), subject.root
    if not board and not (root / "proc/driver/nvidia/version").exists():
        return None
    patterns = (*_NODES, *_NODES_OF_A_BOARD) if board else _NODES
    nodes = sorted({node for pattern in patterns for node in (root / "dev").glob(pattern)})
    if not nodes:
        remedy = "give the container the GPU, or run: sudo nvidia-modprobe -u -c=0"
        return Finding("device nodes", "problem", "the GPU has none below /dev: no job can use it", remedy)
    closed = [node for node in nodes if not _may_open(node)]
    if not closed:
        return Finding("device nodes", "ok", f"{len(nodes)} of the GPU's, and all of them can be opened")
    names = ", ".join(f"/{node.relative_to(root)}" for node in closed[:4])
    groups = sorted(_groups(closed) - {"root"})
    me = user(os.geteuid())
    remedy = f"run: sudo usermod -aG {','.join(groups)} {me}, and log in anew" if groups else "see who may open them"
    return Finding("device nodes", "problem", f"user {me} may not open {names}", remedy)


def readings(subject: Subject) -> Finding | None:
    """What the GPU's memory, load and temperature are read with: NVML, and on a Jetson jtop as well."""
    if find_model(subject.root):
        return _jtop(subject.root)
    if not (subject.root / "proc/driver/nvidia/version").exists():
        return None
    if importlib.util.find_spec("pynvml") is None:
        message = "the package nvidia-ml-py is missing: memory and load of the GPU are not known"
        return Finding("gpu readings", "warning", message, "run: pip install nvidia-ml-py")
    return Finding("gpu readings", "ok", "through NVML")


def _jtop(root: Path) -> Finding:
    socket = root / "run/jtop.sock"
    if importlib.util.find_spec("jtop") is None:
        return Finding("gpu readings", "ok", "from the kernel; power and power mode would need jetson-stats")
    if not socket.exists():
        message, remedy = "jtop is installed, and its service does not run", "run: sudo systemctl enable --now jtop"
        return Finding("gpu readings", "warning", message, remedy)
    if not _may_open(socket):
        me = user(os.geteuid())
        remedy = f"run: sudo usermod -aG jtop {me}, and log in anew"
        return Finding("gpu readings", "warning", f"user {me} may not ask jtop: power is not known", remedy)
    return Finding("gpu readings", "ok", "from the kernel and jtop")


def kernels(subject: Subject) -> Finding | None:
    """What a worker has found when it ran a kernel of each precision: that a library is there proves nothing."""
    try:
        found = json.loads((subject.settings.data / "abilities.json").read_text(encoding="utf-8"))["found"]
        device, reasons = str(found["device"]), {str(name): why for name, why in found["precisions"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # no worker has been asked yet
    failed = [name for name, why in reasons.items() if why]
    works = f"{', '.join(name for name in reasons if name not in failed) or 'none'} on {found.get('name') or device}"
    if device == "cpu" or not failed:
        return Finding("precisions", "ok", works)
    why = "; ".join(f"{name}: {reasons[name]}" for name in failed)
    remedy = "use another precision; a newer driver or torch may know it"
    if set(failed) & set(_MIXED):
        remedy = "run: pip install --upgrade bitsandbytes"
        if find_model(subject.root):
            remedy = "install bitsandbytes as built for this JetPack: what PyPI has for aarch64 is for servers"
    return Finding("precisions", "warning", f"{works}; not {why}", remedy)


def _groups(nodes: Iterable[Path]) -> set[str]:
    found = set()
    for node in nodes:
        number = node.stat().st_gid
        try:
            found.add(grp.getgrgid(number).gr_name)
        except KeyError:
            found.add(str(number))
    return found


def _may_open(path: Path) -> bool:
    return os.access(path, os.R_OK | os.W_OK)
