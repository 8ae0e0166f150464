"""The C sources in ``c/``, compiled on first use by the machine's own compiler and kept in a cache.

There is no library where there is no compiler, or no OpenMP of torch's to share: plain torch then does the same work.
The shared object brings no OpenMP runtime of its own, because the threads of two runtimes wait for each other busily.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from torch import Tensor

SOURCES = Path(__file__).with_name("c")
FLAGS = ("-O3", "-march=native", "-std=gnu11", "-fopenmp", "-fPIC", "-fvisibility=hidden", "-fno-math-errno")
COMPILE_LIMIT_S = 120.0
LARGE_BYTES = 4 << 20
_OPENMP = re.compile(r"/lib(?:gomp|iomp5|omp)[-.\w]*\.so[.\w]*$")  # each of them has the entry points that gcc calls

log = logging.getLogger(__name__)


class Lists(ctypes.Structure):
    """``Lists`` of c/lists.h."""

    _fields_ = [
        ("values", ctypes.c_void_p),
        ("latents", ctypes.c_void_p),
        ("counts", ctypes.c_void_p),
        ("least", ctypes.c_void_p),
        ("cap", ctypes.c_int32),
        ("keep", ctypes.c_int32),
    ]


class Library:
    """The compiled functions; c/ says what each does."""

    def __init__(self, path: Path) -> None:
        self._functions = ctypes.CDLL(str(path))
        self.has_bf16 = bool(self.call("has_bf16"))

    def call(self, name: str, *arguments: Tensor | Lists | int | float | None) -> int:
        """Call ``name`` with contiguous CPU tensors and numbers; it hears last how many threads torch uses."""
        function = getattr(self._functions, name)
        function.restype = ctypes.c_int64
        return int(function(*map(_as_c, arguments), ctypes.c_int64(torch.get_num_threads())))


def _as_c(argument: Tensor | Lists | int | float | None) -> object:
    if isinstance(argument, Tensor):
        assert argument.is_contiguous() and argument.device.type == "cpu"
        return ctypes.c_void_p(argument.data_ptr())
    if isinstance(argument, Lists):
        return ctypes.byref(argument)
    if argument is None:
        return ctypes.c_void_p()
    return ctypes.c_double(argument) if isinstance(argument, float) else ctypes.c_int64(argument)


def in_large_pages(tensor: Tensor) -> Tensor:
    """The tensor, its memory in large pages where it is worth it and the machine has them."""
    if tensor.device.type == "cpu" and tensor.nbytes >= LARGE_BYTES and (found := library()) is not None:
        found.call("use_large_pages", tensor, tensor.nbytes)
    return tensor


class Unavailable(Exception):
    """Why there is no library."""


@functools.cache
def library() -> Library | None:
    """The library of this process; compiled now when no cache has it. Says in the log, once, why there is none."""
    try:
        _share_openmp()
        path, folder = _compiled()
        try:
            return Library(path)
        finally:
            if folder is not None:  # what is loaded needs its file no more
                folder.cleanup()
    except (Unavailable, OSError) as reason:
        log.warning("the autoencoder's step runs in plain torch, which is slower: %s", reason)
        return None


def _share_openmp() -> None:
    """Make torch's OpenMP runtime the one that the library finds."""
    try:
        mapped = Path("/proc/self/maps").read_text()
    except OSError:
        raise Unavailable("which OpenMP torch uses is known on Linux only") from None
    paths = {line.split(maxsplit=5)[-1] for line in mapped.splitlines() if _OPENMP.search(line)}
    torchs = [path for path in sorted(paths) if "/torch" in path] or sorted(paths)
    if not torchs:
        raise Unavailable("torch uses no OpenMP here")
    ctypes.CDLL(torchs[0], mode=ctypes.RTLD_GLOBAL)


def _compiled() -> tuple[Path, tempfile.TemporaryDirectory[str] | None]:
    """The shared object, and the folder to delete when no cache could be written. Raises Unavailable."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise Unavailable("there is no C compiler (cc) on the PATH")
    name = f"native-{_hash(compiler)}.so"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mistudio"
    if (cache / name).is_file():
        return cache / name, None
    folder = tempfile.TemporaryDirectory(prefix="mistudio-native-")
    made = _compile(compiler, Path(folder.name))
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=cache, prefix=".native-", delete=False) as copy:
            copy.write(made.read_bytes())
        os.replace(copy.name, cache / name)
    except OSError:
        return made, folder
    folder.cleanup()
    return cache / name, None


def _hash(compiler: str) -> str:
    """Of everything that the object depends on: sources, flags, compiler, and the processor that it is made for."""
    parts = [file.read_bytes() for file in sorted(SOURCES.iterdir())]
    parts += [" ".join(FLAGS).encode(), _run([compiler, "--version"], Path.cwd()).encode(), platform.machine().encode()]
    try:
        cpu = Path("/proc/cpuinfo").read_text()
    except OSError:
        cpu = ""
    parts += [line.encode() for line in cpu.split("\n\n")[0].splitlines() if line.startswith(("flags", "Features"))]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:24]


def _compile(compiler: str, folder: Path) -> Path:
    sources = [str(file) for file in sorted(SOURCES.glob("*.c"))]
    _run([compiler, *FLAGS, "-c", *sources], folder)
    # without -fopenmp: the runtime is torch's, already loaded
    objects = [str(file) for file in sorted(folder.glob("*.o"))]
    _run([compiler, "-shared", "-o", "native.so", *objects, "-lm"], folder)
    return folder / "native.so"


def _run(command: list[str], folder: Path) -> str:
    try:
        ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=COMPILE_LIMIT_S)
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"the compiler does not run ({error})") from None
    if ran.returncode:
        said = [line for line in ran.stderr.splitlines() if "error" in line] or [f"exit code {ran.returncode}"]
        raise Unavailable(f"{command[0]} does not compile it: {said[0]}")
    return ran.stdout
