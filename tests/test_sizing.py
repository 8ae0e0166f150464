"""How much may go at once: found by a few measurements, on memory that is pretended and on this machine's own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import tiny_model

from mistudiod.engine.sizing import MOST_PROBES, NOISE, WontFit, find_size, peak_bytes
from mistudiod.oom import classify

BUDGET = 1_000_000_000
CPU = torch.device("cpu")


@dataclass
class Memory:
    """Memory that grows with the size; what a reading says of it may be wrong by a share, one share each reading."""

    base: int
    each: float
    cliff: int | None = None  # from this size on it takes ``jump`` more
    jump: int = 0
    noise: Sequence[float] = ()
    lag: bool = False  # the first reading comes before anything was taken
    fails: bool = False  # beyond the budget it gives no number
    peaks: list[int] = field(default_factory=list)  # what was really taken

    def takes(self, size: int) -> int:
        return self.base + int(self.each * size) + (self.jump if self.cliff and size >= self.cliff else 0)

    def __call__(self, size: int) -> int | None:
        peak, reading = self.takes(size), len(self.peaks)
        self.peaks.append(peak)
        if self.fails and peak > BUDGET:
            return None
        if self.lag and not reading:
            return self.base
        return int(peak * (1 + (self.noise[reading] if reading < len(self.noise) else 0.0)))


@dataclass(frozen=True)
class Machine:
    """What a program takes on a machine: ``best`` is the largest size that fits in the budget."""

    base: int
    best: int

    @property
    def each(self) -> float:
        return (BUDGET - self.base) / self.best


machines = st.builds(Machine, st.integers(0, int(0.95 * BUDGET)), st.integers(8, 5_000))
roomy = st.builds(Machine, st.integers(0, BUDGET // 2), st.integers(40, 5_000))
noises = st.lists(st.floats(-NOISE, NOISE), min_size=MOST_PROBES, max_size=MOST_PROBES)
shares = st.floats(0.05, 1.0)


def begin(machine: Machine, share: float) -> int:
    return max(1, int(share * machine.best))


def test_a_program_that_grows_evenly_is_sized_a_little_below_what_fits() -> None:
    memory = Memory(base=200_000_000, each=1_000_000)
    found = find_size(memory, BUDGET, 10_000, unified=False, start=100)
    assert 720 >= found.size >= 700 and found.size % 8 == 0
    assert found.limit == pytest.approx(800, abs=2)
    assert (found.base_bytes, found.each_bytes) == (pytest.approx(memory.base), pytest.approx(memory.each))
    assert [probe.peak_bytes for probe in found.probes] == memory.peaks


@given(machines, st.floats(0.1, 0.5))
def test_on_memory_of_its_own_an_even_program_gets_most_of_it_and_no_more(machine: Machine, share: float) -> None:
    memory = Memory(machine.base, machine.each)
    found = find_size(memory, BUDGET, 100_000, unified=False, start=begin(machine, share))
    assert memory.takes(found.size) <= BUDGET
    assert found.size >= 0.8 * machine.best - 8


@given(roomy, st.floats(0.1, 0.5))
def test_on_unified_memory_an_even_program_gets_more_than_half_of_it(machine: Machine, share: float) -> None:
    memory = Memory(machine.base, machine.each)
    start = begin(machine, share)
    found = find_size(memory, BUDGET, 100_000, unified=True, start=start, base_bytes=machine.base)
    assert found.size >= 0.5 * machine.best - 8


@given(machines, shares, noises, st.booleans(), st.integers(1, 20_000))
def test_on_unified_memory_no_probe_and_no_run_takes_more_than_there_is_however_wrong_the_readings(
    machine: Machine, share: float, noise: list[float], base_known: bool, most: int
) -> None:
    memory = Memory(machine.base, machine.each, noise=noise)
    start, base = begin(machine, share), machine.base if base_known else 0
    try:
        found = find_size(memory, BUDGET, most, unified=True, start=start, base_bytes=base)
    except WontFit:
        assert memory.takes(min(start, most)) * (1 + NOISE) > BUDGET
    else:
        assert memory.takes(found.size) <= BUDGET
    assert max(memory.peaks) <= BUDGET


@given(roomy, st.floats(0.05, 0.25), st.booleans())
def test_on_unified_memory_a_first_reading_that_came_too_early_leads_nowhere_too_far(
    machine: Machine, share: float, base_known: bool
) -> None:
    memory = Memory(machine.base, machine.each, lag=True)
    base = machine.base if base_known else 0
    found = find_size(memory, BUDGET, 100_000, unified=True, start=begin(machine, share), base_bytes=base)
    assert max(memory.peaks) <= BUDGET and memory.takes(found.size) <= BUDGET


@given(roomy, st.floats(0.05, 0.25), st.floats(0.3, 1.0), st.floats(0, 0.4))
def test_on_unified_memory_a_cost_that_sets_in_is_met_with_room_to_spare(
    machine: Machine, share: float, where: float, height: float
) -> None:
    start = begin(machine, share)
    cliff = max(start + 1, int(where * machine.best))
    # What is left before the leap that meets it is at least what is left at the size below.
    jump = int(height * (BUDGET - machine.base - machine.each * (cliff - 1)))
    memory = Memory(machine.base, machine.each, cliff, jump)
    found = find_size(memory, BUDGET, 100_000, unified=True, start=start, base_bytes=machine.base)
    assert max(memory.peaks) <= BUDGET and memory.takes(found.size) <= BUDGET


def test_on_unified_memory_nothing_larger_is_tried_after_more_was_taken_than_expected() -> None:
    memory = Memory(base=100_000_000, each=1_000_000, cliff=300, jump=2 * BUDGET, fails=True)
    found = find_size(memory, BUDGET, 10_000, unified=True, start=200)
    assert [probe.size for probe in found.probes] == [200, 400] and found.probes[-1].peak_bytes is None
    assert found.size == 176 and found.limit == 200


def test_on_unified_memory_nothing_is_run_that_was_not_tried() -> None:
    memory = Memory(base=100_000_000, each=1_000_000)
    found = find_size(memory, BUDGET, 10_000, unified=True, start=100)
    assert found.limit in [probe.size for probe in found.probes]


def test_where_nobody_knows_how_much_is_left_a_smaller_size_is_tried_before_a_larger_one() -> None:
    memory = Memory(base=800_000_000, each=100_000)
    found = find_size(memory, BUDGET, 10_000, unified=True, start=500)
    sizes = [probe.size for probe in found.probes]
    assert sizes[:2] == [500, 250] and max(sizes) > 500


def test_on_unified_memory_a_machine_that_is_short_of_memory_by_now_is_asked_for_no_more() -> None:
    memory = Memory(base=0, each=1_000)
    found = find_size(memory, BUDGET, 10_000, unified=True, start=16, pressed=lambda: True)
    assert [probe.size for probe in found.probes] == [16] and found.size == 8
    others = find_size(memory, BUDGET, 10_000, unified=False, start=16, pressed=lambda: True)
    assert len(others.probes) > 1


@given(roomy, st.floats(0.1, 0.25), st.floats(0.3, 1.0))
def test_on_memory_of_its_own_a_size_that_failed_is_not_come_near_again(
    machine: Machine, share: float, where: float
) -> None:
    start = begin(machine, share)
    cliff = max(start + 1, int(where * machine.best))
    memory = Memory(machine.base, machine.each, cliff, jump=BUDGET, fails=True)
    found = find_size(memory, BUDGET, 100_000, unified=False, start=start)
    fitting = [probe.size for probe in found.probes if probe.peak_bytes is not None]
    failed = [probe.size for probe in found.probes if probe.peak_bytes is None]
    assert found.limit < min(failed, default=found.limit + 1)
    if failed and min(failed) < 0.95 * machine.best:  # where an even one would have fitted
        assert found.limit == max(fitting) < cliff


def test_on_memory_of_its_own_a_start_that_was_too_bold_is_gone_back_from() -> None:
    memory = Memory(base=100_000_000, each=1_000_000, fails=True)
    found = find_size(memory, BUDGET, 10_000, unified=False, start=9_000)
    assert [probe.peak_bytes is None for probe in found.probes[:3]] == [True, True, False]
    assert 500 <= found.size <= 900


def test_all_of_what_was_asked_for_is_used_when_it_fits() -> None:
    for unified in (False, True):
        found = find_size(Memory(base=0, each=1_000), BUDGET, 77, unified=unified, start=20)
        assert found.size == found.limit == 77


@given(
    st.lists(st.none() | st.integers(0, 2 * BUDGET), min_size=MOST_PROBES, max_size=MOST_PROBES),
    st.integers(-5, 10_000),
    st.integers(1, 10_000),
    st.booleans(),
)
def test_whatever_is_read_there_are_at_most_five_probes_and_a_size_or_a_sentence(
    readings: list[int | None], start: int, most: int, unified: bool
) -> None:
    left, tried = list(readings), list[int]()

    def measure(size: int) -> int | None:
        tried.append(size)
        return left.pop(0)  # a sixth would be an IndexError

    try:
        found = find_size(measure, BUDGET, most, unified=unified, start=start)
    except WontFit:
        assert all(reading is None or reading > BUDGET for reading in readings[: len(tried)])
    else:
        assert 1 <= found.size <= found.limit <= most
        assert [probe.size for probe in found.probes] == tried
        assert [probe.peak_bytes for probe in found.probes] == readings[: len(tried)]
    assert len(set(tried)) == len(tried) and all(1 <= size <= most for size in tried)


def test_what_never_fits_is_said_with_the_least_that_was_tried_and_with_numbers() -> None:
    with pytest.raises(WontFit) as caught:
        find_size(Memory(base=BUDGET, each=1_000), BUDGET, 100, unified=False, start=16)
    assert str(caught.value) == (
        "not even 1 at a time fits: it took 1,000,001,000 bytes, and 1,000,000,000 are to be had"
    )
    with pytest.raises(WontFit) as caught:
        find_size(lambda size: None, BUDGET, 100, unified=True, start=1)
    assert str(caught.value) == ("not even 1 at a time fits: it ran out of memory, and 1,000,000,000 are to be had")
    assert isinstance(caught.value, MemoryError) and classify(f"MemoryError: {caught.value}") == "host"


def test_the_peak_of_a_run_is_what_was_there_at_once_and_not_what_came_before_it() -> None:
    def take(mebibytes: int) -> Callable[[], object]:
        return lambda: torch.ones(mebibytes << 18).sum()

    nothing = peak_bytes(lambda: None, CPU)
    assert nothing is not None
    for mebibytes in (400, 100):
        peak = peak_bytes(take(mebibytes), CPU)
        assert peak is not None and peak - nothing == pytest.approx(mebibytes << 20, abs=30 << 20)


def test_running_out_of_memory_is_no_number_and_what_was_taken_until_then_is_given_back() -> None:
    before = peak_bytes(lambda: None, CPU)

    def run() -> None:
        taken = torch.ones(300 << 18)
        raise RuntimeError(f"DefaultCPUAllocator: can't allocate memory beside {taken.numel()}")

    assert peak_bytes(run, CPU) is None
    after = peak_bytes(lambda: None, CPU)
    assert before is not None and after is not None and after - before < 50 << 20


@pytest.mark.parametrize(
    "error",
    [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), OSError(28, "No space left on device"), KeyError("x")],
    ids=lambda error: type(error).__name__,
)
def test_an_error_that_is_not_of_memory_comes_through(error: Exception) -> None:
    def run() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        peak_bytes(run, CPU)
    assert caught.value is error


# A process that may take no more than 300 MB beside what it has, and a real model in it; argv: the model's folder.
LIMITED = """
import json, resource, sys
from pathlib import Path
import torch
from mistudiod.engine.lm import load_lm
from mistudiod.engine.sizing import WontFit, find_size, peak_bytes
from mistudiod.oom import classify

CPU, HOOK, MB = torch.device("cpu"), "blocks.0.hook_resid_post", 10**6
lm = load_lm(Path(sys.argv[1]), layers=1)
forward = lambda windows: lm.activations(torch.ones(windows, 64, dtype=torch.int64), HOOK)
measure = lambda windows: peak_bytes(lambda: forward(windows), CPU)

def now(what):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(what))

def said(run, *arguments):
    try:
        run(*arguments)
    except Exception as error:
        return f"{type(error).__name__}: {error}"

forward(1)
limit = now("VmData") + 300 * MB
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
base, budget, found = peak_bytes(lambda: None, CPU), now("VmRSS") + 250 * MB, {}
for name, unified in (("own", False), ("unified", True)):
    sized = find_size(measure, budget, 100_000, unified=unified, start=8, base_bytes=base)
    for _ in range(5):
        forward(sized.size)
    peaks = [probe.peak_bytes for probe in sized.probes]
    found[name] = {"size": sized.size, "limit": sized.limit, "peaks": peaks, "run": measure(sized.size)}
much = 30 * found["own"]["limit"]
words = [said(forward, much), said(bytearray, 1000 * MB)]
found |= {"budget": budget, "much": measure(much), "words": words, "kinds": [classify(one) for one in words]}
found["little"] = said(lambda: find_size(measure, now("VmRSS") // 2, 100, unified=False))
found["shapes"] = said(peak_bytes, lambda: torch.ones(2, 3) @ torch.ones(2, 3), CPU)
found["ids"] = said(peak_bytes, lambda: lm.activations(torch.full((1, 8), 999), HOOK), CPU)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What that process saw."""
    folder = tiny_model("llama", tmp_path_factory.mktemp("llama"), intermediate_size=8192, num_hidden_layers=1)
    command = [sys.executable, "-c", LIMITED, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("kind", ["own", "unified"])
def test_a_real_forward_pass_under_a_limit_is_sized_so_that_it_runs(limited: dict[str, Any], kind: str) -> None:
    found = limited[kind]
    assert found["run"] <= limited["budget"]
    assert {"own": 24, "unified": 8}[kind] <= found["size"] <= found["limit"] and len(found["peaks"]) <= MOST_PROBES


def test_a_real_forward_pass_on_unified_memory_is_never_probed_beyond_the_budget(limited: dict[str, Any]) -> None:
    assert all(peak is not None and peak <= limited["budget"] for peak in limited["unified"]["peaks"])


def test_what_a_real_limit_makes_libraries_say_is_known_for_what_it_is(limited: dict[str, Any]) -> None:
    assert limited["much"] is None
    assert limited["kinds"] == ["host", "host"]
    assert "DefaultCPUAllocator: can't allocate memory" in limited["words"][0]
    assert limited["words"][1].startswith("MemoryError")


def test_a_budget_below_what_is_there_already_is_said_with_numbers(limited: dict[str, Any]) -> None:
    assert limited["little"].startswith("WontFit: not even 1 at a time fits: it took ")


def test_a_mistake_in_a_real_forward_pass_is_not_taken_for_want_of_memory(limited: dict[str, Any]) -> None:
    assert limited["shapes"].startswith("RuntimeError: mat1 and mat2 shapes cannot be multiplied")
    assert limited["ids"].startswith("IndexError: ")
