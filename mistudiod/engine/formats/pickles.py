"""Pickles of torch turned into safetensors, in a process of their own: ``python -m`` this module, IN and OUT.

A pickle is a program. torch's ``weights_only`` runs nothing but what makes tensors, dicts and numbers; should it fail
in that, the process has no secrets in its environment and no more memory than the file's weights need.
"""

from __future__ import annotations

import ctypes
import errno
import json
import math
import os
import pickle
import re
import resource
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from mistudiod.engine.formats.base import MAX_TEXT_BYTES, Listing
from mistudiod.engine.formats.pickled import SUFFIXES
from mistudiod.engine.tensor_files import Written, write_tensors

_ROOT = Path(__file__).parents[3]  # where mistudiod lies
_REFUSED, _FULL = 2, 3  # exit codes: a sentence of ours is on stdout; there is no room on the disk
_ROOM_BYTES = 1 << 30  # beside the weights: the stretch that is written, what torch's threads want
_MOST_TIMES = 8  # larger than the pickle: its float8 widened, a decoder that shares its encoder's storage
_DEPTH = 4
_PR_SET_PDEATHSIG = 1
_SLOWEST_BYTES_PER_S = 5 << 20


def convert(path: Path, out: Path) -> None:
    """Write the tensors of a pickle as float32 to ``out``, a safetensors file, and its single values as JSON beside it.

    Tensors of whole numbers and the state of an optimizer are left out; what lies in dicts is named by its path
    (``ae.encoder.weight``). Raises ValueError, one sentence, and leaves nothing when it holds more than numbers;
    OSError when the disk is full.
    """
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "mistudiod.engine.formats.pickles", str(path.absolute()), str(out.absolute())],
            cwd="/",  # the first place that python -m imports from
            env={"PATH": os.defpath, "PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1", **kept},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=600 + path.stat().st_size / _SLOWEST_BYTES_PER_S,
        )
    except subprocess.TimeoutExpired:
        raise _failed(out, f"{path.name} was not read in {600:,} s and more: it is no file of weights") from None
    if done.returncode == _REFUSED:
        raise _failed(out, done.stdout.decode(errors="replace").strip())
    if done.returncode == _FULL:
        _failed(out, "")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise _failed(out, f"{path.name} cannot be read as weights: {last[0][:300]}")


class Converted:
    """A listing whose pickles are converted into ``folder``, each when it is first wanted: for who allows pickles."""

    def __init__(self, listing: Listing, folder: Path) -> None:
        self.source, self._listing, self._folder = listing.source, listing, folder
        self._done: dict[str, Path] = {}

    def names(self) -> Sequence[str]:
        return self._listing.names()

    def size(self, name: str) -> int:
        return self._listing.size(name)

    def read(self, name: str, start: int, n: int) -> bytes:
        return self._listing.read(name, start, n)

    def text(self, name: str, limit: int = MAX_TEXT_BYTES) -> str:
        return self._listing.text(name, limit)

    def path(self, name: str) -> Path:
        if not name.endswith(SUFFIXES):
            return self._listing.path(name)
        if name not in self._done:
            out = self._folder / f"pickle-{len(self._done)}.safetensors"
            convert(self._listing.path(name), out)
            self._done[name] = out
        return self._done[name]


def _failed(out: Path, why: str) -> ValueError:
    for one in (out, out.with_suffix(".json")):
        one.unlink(missing_ok=True)
    return ValueError(why)


def write(source: Path, out: Path) -> None:
    """What ``convert`` does in its process. Raises ValueError, one sentence."""
    items = dict(_flat(_loaded(source), "", _DEPTH))
    tensors = {name: one for name, one in items.items() if name and isinstance(one, Tensor) and _usable(one)}
    if not tensors:
        raise ValueError(f"{source.name} holds no weights by name")
    if sum(4 * one.numel() for one in tensors.values()) > _MOST_TIMES * source.stat().st_size + (1 << 20):
        raise ValueError(f"{source.name} claims more numbers than there are in it")
    values = {name: value for name, one in items.items() if _single(value := _plain(one))}
    out.with_suffix(".json").write_text(json.dumps(values, allow_nan=False))
    write_tensors(out, {name: Written(one) for name, one in tensors.items()})


def _main(source: Path, out: Path) -> int:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # a job that is stopped leaves no process behind
    _limit(2 * source.stat().st_size + _ROOM_BYTES)
    try:
        write(source, out)
    except ValueError as error:
        sys.stdout.write(str(error))
        return _REFUSED
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return _FULL
        raise
    return 0


def _limit(more: int) -> None:
    """Take no more than so many bytes beside what there is now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * os.sysconf("SC_PAGE_SIZE") + more
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _loaded(source: Path) -> object:
    """What torch makes of it; ValueError when it refuses."""
    zipped = zipfile.is_zipfile(source)
    try:
        packed = zipped and _is_packed(source)
        loaded = None if packed else torch.load(source, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        if wanted := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise ValueError(
                f"{source.name} asks for {wanted[1]}, which is more than numbers: refused, and nothing in it was run"
            ) from None
        raise ValueError(f"{source.name} is not a pickle of weights, or damaged") from None
    except MemoryError:
        raise ValueError(f"{source.name} wants more memory than weights of its size take") from None
    except Exception as error:  # noqa: BLE001 - whatever a damaged file made torch raise
        why = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ValueError(f"{source.name} is damaged: {why}".replace(str(source), "it")) from None
    if packed:
        raise ValueError(
            f"{source.name} is compressed, as torch writes none: it may unpack to more than there is room for"
        )
    return loaded


def _is_packed(source: Path) -> bool:
    with zipfile.ZipFile(source) as archive:
        return any(one.compress_type for one in archive.infolist())


def _flat(value: object, path: str, depth: int) -> Iterator[tuple[str, object]]:
    if not isinstance(value, Mapping):
        yield path, value
    elif depth:
        for key, one in value.items():
            if isinstance(key, str) and key != "optimizer":
                yield from _flat(one, f"{path}.{key}" if path else key, depth - 1)


def _usable(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.layout is torch.strided and tensor.ndim > 0 and tensor.numel() > 0


def _plain(value: object) -> object:
    return value.item() if isinstance(value, Tensor) and value.numel() == 1 else value


def _single(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, bool | int) or (isinstance(value, str) and len(value) <= 1000)


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1]), Path(sys.argv[2])))
