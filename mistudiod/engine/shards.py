"""What fires in a text, on disk, a shard at a time: so reading goes on from the latest shard after it was cut off.

A folder holds ``00000/``, ``00001/``, …, each one whole or absent: the entries of a piece of the text in order of
latent, in it in order of the text: ``edges.bin`` (u32, d_sae + 1; of latent j, entries edges[j] to edges[j + 1]),
``places.bin`` (u32), ``values.bin`` (float32). Beside them lies the same in order of the text, of all shards:
``counts.bin`` (u32, for each place of the text 0 when it does not count, else 1 + how many latents fire) and
``active.bin`` (int32, which). A place is row x context + position, where a row is the number of a window that is read.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mistudiod.engine import native
from mistudiod.engine.checkpoint import PARTIAL
from mistudiod.engine.encode import Firing
from mistudiod.engine.mapped import Stretches

SHARD_ENTRIES = 4 << 20  # with which a shard is closed
ENTRY_BYTES = 12  # of shards, on the disk
KEPT_OPEN = 100  # shards: of each three files, and a process may have 1024
MADE_OF, ABOUT = "made_of.json", "about.json"
_TYPES = {"edges": "<u4", "places": "<u4", "values": "<f4"}
Publish = Callable[[Path, Path], None]  # (partial, final): flush a folder to the disk and rename it


@dataclass(frozen=True)
class Shard:
    """``end``: places before it are done. ``batch``, ``skip``: where reading goes on: of that batch of windows the
    first ``skip`` tokens that count are done. Of this shard: ``tokens`` that count, ``outliers`` that do not, and how
    many ``seconds`` it took.
    """

    end: int
    batch: int
    skip: int
    entries: int
    tokens: int
    outliers: int
    seconds: float


class Entries(NamedTuple):
    """Of the latents from one on: of the n-th, entries edges[n] to edges[n + 1]; each latent's in order of the text."""

    edges: NDArray[np.int64]
    places: NDArray[np.uint32]
    values: NDArray[np.float32]


class Shards:
    """The shards under ``folder``, of which those that were made of something else are deleted."""

    def __init__(self, folder: Path, d_sae: int, made_of: Mapping[str, Any], publish: Publish) -> None:
        self.folder, self.d_sae, self._publish = folder, d_sae, publish
        if _read(folder / MADE_OF) != made_of:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            _write_at_once(folder / MADE_OF, json.dumps(made_of))
        for path in folder.glob(f"{PARTIAL}*"):
            shutil.rmtree(path, ignore_errors=True)
        self.whole: list[Shard] = []
        while about := _read(self._path(len(self.whole)) / ABOUT):
            self.whole.append(Shard(**about))
        _cut(folder / "counts.bin", 4 * self.end)
        _cut(folder / "active.bin", 4 * sum(shard.entries for shard in self.whole))
        self._places: list[NDArray[np.uint32]] = []
        self._firing: list[Firing] = []
        self.gathered = 0  # entries that are in no shard yet
        self._open: dict[tuple[int, str], Stretches] = {}

    @property
    def end(self) -> int:
        return self.whole[-1].end if self.whole else 0

    def add(self, places: NDArray[np.uint32], firing: Firing) -> None:
        """What fires at some places (n,), ascending."""
        self._places.append(places)
        self._firing.append(firing)
        self.gathered += len(firing.latents)

    def close(self, end: int, batch: int, skip: int, outliers: int, seconds: float) -> Entries:
        """Make a shard of what was added; returns what it holds. The disk has it when this returns."""
        places = np.concatenate([np.empty(0, np.uint32), *self._places])
        firing = _joined(self._firing)
        self._places, self._firing, self.gathered = [], [], 0
        marks = np.zeros(end - self.end, np.uint32)
        marks[places - np.uint32(self.end)] = firing.counts + 1
        _append(self.folder / "counts.bin", marks)
        _append(self.folder / "active.bin", firing.latents)
        entries = _by_latent(places, firing, self.d_sae)
        about = Shard(end, batch, skip, len(firing.latents), len(places), outliers, seconds)
        partial = self.folder / f"{PARTIAL}{len(self.whole):05d}"
        partial.mkdir()
        for name, numbers in zip(("edges", "places", "values"), entries, strict=True):
            (partial / f"{name}.bin").write_bytes(numbers.astype(_TYPES[name], copy=False).data)
        (partial / ABOUT).write_text(json.dumps(asdict(about)))
        self._publish(partial, self._path(len(self.whole)))
        self.whole.append(about)
        return entries

    def fired(self) -> NDArray[np.int64]:
        """On how many tokens each latent fires, (d_sae,)."""
        total = np.zeros(self.d_sae, np.int64)
        for number in range(len(self.whole)):
            total += np.diff(self._edges(number, 0, self.d_sae))
        return total

    def of(self, first: int, last: int) -> Iterator[Entries]:
        """Those of the latents [first, last), shard after shard."""
        for number in range(len(self.whole)):
            edges = self._edges(number, first, last)
            places, values = (self._read(number, name, edges[0], edges[-1] - edges[0]) for name in ("places", "values"))
            yield Entries(edges - edges[0], places, values)

    def _edges(self, number: int, first: int, last: int) -> NDArray[np.int64]:
        return self._read(number, "edges", first, last - first + 1).astype(np.int64)

    def _read(self, number: int, name: str, start: int, count: int) -> NDArray[Any]:
        """Of a file of a shard; those of the first KEPT_OPEN shards stay open, for a tile reads a little of each."""
        file = self._open.get((number, name))
        if file is None:
            file = Stretches(self._path(number) / f"{name}.bin", _TYPES[name])
            if number < KEPT_OPEN:
                self._open[number, name] = file
        return file.read(np.array([start]), np.array([count]))

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:05d}"


def _joined(firing: list[Firing]) -> Firing:
    none = Firing(np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.float32))
    parts = [none, *firing]
    return Firing(*(np.concatenate([getattr(one, name) for one in parts]) for name in ("counts", "latents", "values")))


def _by_latent(places: NDArray[np.uint32], firing: Firing, d_sae: int) -> Entries:
    """Sorted by latent, else in the order that they have."""
    counts, latents, values = firing.counts, firing.latents, firing.values
    n, library = len(latents), native.library()
    if library is None:
        order = np.argsort(latents, kind="stable")
        edges = np.searchsorted(latents[order], np.arange(d_sae + 1))
        return Entries(edges.astype(np.int64), np.repeat(places, counts)[order], values[order])
    starts = torch.from_numpy(np.concatenate([[0], counts.cumsum()]).astype(np.int32))
    order_, owners = torch.empty(n, dtype=torch.int32), torch.empty(n, dtype=torch.int32)
    edges_ = torch.empty(d_sae + 1, dtype=torch.int32)
    entries = torch.from_numpy(values), torch.from_numpy(latents), starts
    library.call("by_latent", *entries, len(places), d_sae, order_, owners, edges_)
    return Entries(edges_.numpy().astype(np.int64), places[owners.numpy()], values[order_.numpy()])


def _append(path: Path, numbers: NDArray[Any]) -> None:
    with path.open("ab") as file:
        file.write(numbers.data)  # not tofile, whose error does not say that the disk is full
        file.flush()
        os.fsync(file.fileno())


def _write_at_once(path: Path, text: str) -> None:
    """Whole and on the disk, or not there."""
    beside = path.with_name(f"{PARTIAL}{path.name}")
    with beside.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _cut(path: Path, size: int) -> None:
    """Forget what was appended for a shard that is not there."""
    with path.open("ab") as file:
        file.truncate(size)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None
