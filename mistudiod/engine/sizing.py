"""How much may go through a model at once: found by measuring a few sizes and not by failing at many.

Memory grows as base + each x size, until something else sets in: another kernel, a copy that was not needed before. So
a few sizes are tried, each at most four times the one before; the slope between the last two says where the budget
ends. On a GPU with memory of its own a size may fail, and the search goes on below it. Where the memory is the whole
machine's, the first failure may be the end of somebody else's program: there every leap keeps back a part of what is
left, and what is left is reckoned as if every reading were wrong to the worse side.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import torch

from mistudiod.oom import classify

MOST_PROBES = 5
LEAP = 4  # times the size before
LEFT_SHARE = 0.5  # of what is left of unified memory that one leap may be expected to take
NOISE = 0.05  # by which a reading may be wrong, either way: allocators round, and the machine does other things
RUN_SHARE = 0.9  # of the size that just fits: memory is never again as tidy as in the first minute
MULTIPLE = 8  # sizes above it are multiples of it
CLOSE = 1.1  # a size that is so near to what fits needs no further probe


class WontFit(MemoryError):
    """Not even the smallest size fits, said in one sentence with numbers."""


@dataclass(frozen=True)
class Probe:
    size: int
    peak_bytes: int | None  # None: it ran out of memory


@dataclass(frozen=True)
class Sized:
    """``size`` is to be used; ``limit`` is the largest that is known or expected to fit in the budget."""

    size: int
    limit: int
    base_bytes: float
    each_bytes: float  # for one more
    probes: tuple[Probe, ...]


def find_size(
    measure: Callable[[int], int | None],
    budget_bytes: int,
    most: int,
    *,
    unified: bool,
    start: int = 1,
    base_bytes: int = 0,
    pressed: Callable[[], bool] = lambda: False,
) -> Sized:
    """The size to use: at most ``most``, with a peak within ``budget_bytes``. Raises WontFit.

    ``measure(size)`` does the real thing once and gives its peak in bytes, None when it ran out of memory: at most
    five calls. ``start`` is a size that should fit easily, a quarter of what a formula says, say. ``base_bytes`` is
    the peak of doing nothing, where it is known: without it unified memory is filled with more hesitation. ``pressed``:
    there, whether the machine is short of memory by now; then nothing larger is tried.
    """
    search = _Search(measure, budget_bytes, most, unified, base_bytes)
    size: int | None = max(1, min(start, most))
    while size is not None and len(search.probes) < MOST_PROBES:
        search.probe(size)
        size = None if unified and pressed() else search.next()
    return search.result()


class _Search:
    """What is known after each probe: sizes that fit, and the smallest that does not."""

    def __init__(self, measure: Callable[[int], int | None], budget: int, most: int, unified: bool, base: int) -> None:
        self._measure, self._budget, self._most, self._unified, self._base = measure, budget, most, unified, base
        self.probes: list[Probe] = []
        self._fitting: list[tuple[int, int]] = []  # sizes and peaks, growing
        self._too_large = most + 1

    def probe(self, size: int) -> None:
        peak = self._measure(size)
        self.probes.append(Probe(size, peak))
        if peak is None or peak > self._budget:
            self._too_large = min(self._too_large, size)
        else:
            # Memory does not shrink as sizes grow: a smaller reading came before the memory was taken.
            self._fitting = sorted([*self._fitting, (size, max([peak, *(p for s, p in self._fitting if s < size)]))])

    def next(self) -> int | None:
        """What to try next; None when enough is known."""
        if not self._fitting:
            return max(1, self._too_large // LEAP) if self._too_large > 1 else None
        size = self._fitting[-1][0]
        wanted = self._upwards(size) if self._unified else self._quickly(size)
        if wanted > size and min(self._reach(1.0), self._too_large - 1) > CLOSE * size:
            return wanted
        # One size says nothing of the slope: where growing would be a gamble, shrinking is not.
        alone = len(self.probes) == 1 and size < self._most
        return size // 2 if self._unified and alone and size > 1 else None

    def _quickly(self, size: int) -> int:
        """Where a size may fail."""
        wanted = 2 * size if len(self._fitting) == 1 else min(self._reach(1.0), LEAP * size)
        return min(wanted, self._halfway(size), self._most, self._too_large - 1)

    def _upwards(self, size: int) -> int:
        """Where no size may fail; ``size`` itself when it is not clear how much room there is."""
        if self._too_large <= self._most:
            return size  # more than was expected: no further step in this dark
        reach = self._reach(LEFT_SHARE)
        if len(self._fitting) == 1:
            return min(2 * size, reach) if reach >= min(2 * size, self._most) else size
        return min(reach, LEAP * size)

    def _halfway(self, size: int) -> int:
        """To the smallest size that is too large, where there is one."""
        return (size + self._too_large) // 2 if self._too_large <= self._most else LEAP * size

    def _slope(self) -> float:
        """Bytes for one more: the steepest that was seen between neighbours, for costs set in and do not end."""
        pairs = zip(self._fitting, self._fitting[1:], strict=False)
        return max(((p2 - p1) / (s2 - s1) for (s1, p1), (s2, p2) in pairs), default=0.0)

    def _worst_slope(self) -> float:
        """The steepest that the readings allow, were each as wrong as can be."""
        pairs = combinations([(0, self._base), *self._fitting], 2)
        allowed = min((p2 / (1 - NOISE) - p1 / (1 + NOISE)) / (s2 - s1) for (s1, p1), (s2, p2) in pairs)
        return max(allowed, self._slope())

    def _reach(self, share: float) -> int:
        """The size at which ``share`` of what is left is expected to be taken."""
        size, peak = self._fitting[-1]
        slope, taken = (self._worst_slope(), peak / (1 - NOISE)) if self._unified else (self._slope(), float(peak))
        grown = size + int(share * max(0.0, self._budget - taken) / slope) if slope > 0 else LEAP * size
        return min(grown, self._most)

    def result(self) -> Sized:
        if not self._fitting:
            said = [probe.peak_bytes for probe in self.probes if probe.peak_bytes is not None]
            took = f"it took {min(said):,} bytes" if said else "it ran out of memory"
            raise WontFit(f"not even {self.probes[-1].size} at a time fits: {took}, and {self._budget:,} are to be had")
        size, peak = self._fitting[-1]
        slope = self._slope()
        # Elsewhere than on unified memory what the slope says, within one leap, may be run without having been tried,
        # unless a size has failed that should have fitted: then something sets in on the way there.
        reach = min(self._reach(1.0), LEAP * size)
        untried = not self._unified and len(self._fitting) > 1 and reach < self._too_large
        limit = max(size, reach) if untried else size
        return Sized(_run_size(limit, self._most), limit, peak - slope * size, slope, tuple(self.probes))


def _run_size(limit: int, most: int) -> int:
    """A little less than what just fits; all of it where nothing larger was asked for."""
    size = limit if limit == most else max(1, int(RUN_SHARE * limit))
    return size if size < MULTIPLE or size == most else size - size % MULTIPLE


def peak_bytes(run: Callable[[], object], device: torch.device) -> int | None:
    """The most memory there is while ``run()`` runs, all that was there before included; None when it is not enough.

    On a GPU what its allocator has reserved; on a CPU the process's resident memory (Linux). Other errors come through.
    """
    _forget(device)
    failed = False
    try:
        run()
    except (RuntimeError, MemoryError, OSError) as error:
        if classify(f"{type(error).__name__}: {error}") is None:
            raise
        failed = True
    # Outside the except block: the traceback would keep the tensors of every frame alive.
    if failed:
        _forget(device)
        return None
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else _highest_resident()


def _forget(device: torch.device) -> None:
    """Give back what nothing refers to, and let the next peak be one of its own."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    else:
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM


def _highest_resident() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))
