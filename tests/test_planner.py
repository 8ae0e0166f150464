"""What a plan chooses, what it never touches, and whether it keeps what it promises. No torch, no daemon."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mistudiod
from mistudiod.budget import MIB, Budget, of_cpu, of_gpu, of_unified
from mistudiod.facts import UnknownHook, read_facts
from mistudiod.plan_answer import Plan
from mistudiod.plan_choices import NAMES
from mistudiod.plan_measured import Measured
from mistudiod.plan_train import Choices, like, run_of
from mistudiod.planner import Abilities, Before, plan
from mistudiod.specs import Train

PICO = read_facts(Path(mistudiod.__file__).parent / "demo" / "pico")
# A model of 7 G parameters, by its shapes: what matters is that its weights are most of what a run takes.
LARGE = replace(
    PICO,
    n_layers=32,
    d_model=4096,
    d_mlp=11008,
    parts={
        name: replace(
            part,
            parameters=part.parameters * 500,
            weight_bytes={precision: size * 500 for precision, size in part.weight_bytes.items()},
        )
        for name, part in PICO.parts.items()
    },
    weight_bytes={precision: size * 500 for precision, size in PICO.weight_bytes.items()},
    hook_widths=dict.fromkeys(PICO.hook_widths, 4096),
)
TOKENIZATION = {"context": 128, "train_windows": 10_000, "held_out_windows": 200}
ALL = Abilities(("fp32", "bf16", "fp16", "int8", "nf4"))
PLENTY = 1 << 40
HOOK = "blocks.3.hook_resid_post"


def budget(free: int | None, device: Any = "cpu", reserve: int = 512 * MIB, host: int | None = None) -> Budget:
    return Budget(device, "a device", PLENTY, free, reserve, host)


def spec(**fields: Any) -> Train:
    return Train.model_validate({"name": "s", "tokenization": "t", "hook": HOOK, **fields})


def made(
    free: int | None = PLENTY, facts: Any = PICO, able: Abilities = ALL, device: Any = "cpu", **fields: Any
) -> Plan:
    return plan(spec(**fields), facts, TOKENIZATION, budget(free, device), abilities=able)


def value(of: Plan, name: str) -> Any:
    return of.choices[name].value


def fixture(name: str) -> Budget:
    """Of a machine, by what it said of itself."""
    gpu: Any = {"name": "a GPU", "memory_total_bytes": 24 << 30, "memory_free_bytes": 20 << 30}
    memory: Any = {"total_bytes": 16 << 30, "available_bytes": 10 << 30, "limit_bytes": 12 << 30}
    return {"cpu": of_cpu(memory), "cuda": of_gpu(gpu, memory), "unified": of_unified(gpu, memory)}[name]


def measured(
    of: Plan, more: int, tokens_per_s: float | None = None, other_s: float | None = None, **fields: Any
) -> Any:
    """What a run by this plan took: ``more`` than the formula."""
    choices = Choices(**{name: choice.value for name, choice in of.choices.items()})
    sizes = like(run_of(spec(**fields), PICO, TOKENIZATION, "cpu"), choices)
    return Measured(**sizes, peak_bytes=of.formula_bytes + more, formula_bytes=of.formula_bytes,
                    tokens_per_s=tokens_per_s, other_s=other_s)  # fmt: skip


def test_what_is_left_open_is_chosen_and_marked_automatic() -> None:
    found = made()
    assert set(found.choices) == set(NAMES)
    assert all(choice.automatic for choice in found.choices.values())
    assert value(found, "precision") == "fp32", "16 bits are slow on most processors"
    assert value(made(device="cuda"), "precision") == "bf16", "as it is stored"


@pytest.mark.parametrize(
    ("name", "given_value"),
    [
        *[("precision", "nf4"), ("forward_tokens", 256), ("buffer_tokens", 16_384), ("micro_tokens", 512)],
        *[("saes_at_once", 3), ("whole_model", True), ("whole_model", False)],
    ],
)
@pytest.mark.parametrize("free", [PLENTY, 1_000_000_000, 1])
def test_what_a_person_set_is_never_changed_however_little_memory_there_is(
    name: str, given_value: Any, free: int
) -> None:
    found = made(free, seed=[0, 1, 2, 3], **{name: given_value})
    assert (value(found, name), found.choices[name].automatic) == (given_value, False)


def test_less_at_a_time_comes_before_a_lower_precision() -> None:
    whole = made(device="cuda", facts=LARGE, whole_model=False)
    less = made(whole.total_bytes - 1, device="cuda", facts=LARGE, whole_model=False)
    assert less.fits and value(less, "precision") == "bf16"
    assert less.choices != whole.choices


def test_the_ladder_goes_down_to_four_bits_when_nothing_else_fits() -> None:
    seen = []
    for free in range(9_000_000_000, 1_500_000_000, -150_000_000):
        found = made(free, device="cuda", facts=LARGE, width=4096, batch_tokens=1024)
        if found.fits and value(found, "precision") not in seen:
            seen.append(value(found, "precision"))
    assert seen == ["bf16", "int8", "nf4"]


def test_a_precision_that_does_not_work_here_is_passed_over() -> None:
    able = Abilities(("fp32", "bf16", "fp16", "nf4"))
    seen = {
        value(made(free, device="cuda", facts=LARGE, able=able), "precision")
        for free in range(8_000_000_000, 1_500_000_000, -200_000_000)
    }
    assert seen == {"bf16", "nf4"}


def test_a_model_that_is_stored_quantised_is_read_as_it_is() -> None:
    assert value(made(facts=replace(PICO, quantized="nf4")), "precision") == "nf4"


def test_the_autoencoders_batch_is_never_chosen() -> None:
    found = made(1)
    assert found.fits is False
    assert "batch_tokens" not in found.choices
    assert value(found, "micro_tokens") <= spec().batch_tokens


def test_what_is_free_but_not_known_leaves_it_open_whether_it_fits() -> None:
    found = made(None)
    assert found.fits is None and found.ways == ()
    assert found.verdict.endswith("how much is free is not known")


def test_a_plan_that_fits_says_so_with_numbers() -> None:
    assert made(8_000_000_000).verdict.startswith("it fits: ")
    assert "of 8.0 GB free" in made(8_000_000_000).verdict


@pytest.mark.parametrize(
    "fields",
    [
        {"width": 65536, "batch_tokens": 16384},
        {"width": [16384, 65536], "seed": [0, 1, 2], "saes_at_once": 6},
        {"width": 65536, "batch_tokens": 16384, "precision": "fp32", "whole_model": True, "micro_tokens": 16384},
        {"width": 49152, "buffer_tokens": 524_288, "forward_tokens": 4096, "batch_tokens": 1024},
    ],
)
def test_what_would_fit_really_does(fields: dict[str, Any]) -> None:
    short = made(1_400_000_000, **fields)
    assert short.fits is False and short.ways
    for way in short.ways:
        again = made(1_400_000_000, **{**fields, way.field: way.value})
        assert again.fits is way.fits and again.total_bytes == way.total_bytes, way
        named = ",".join(map(str, way.value)) if isinstance(way.value, list) else way.value
        assert (f"{way.field} {named} (" in short.verdict) == way.fits


def test_when_nothing_would_make_it_fit_that_is_said() -> None:
    assert made(1).verdict.endswith("no smaller setting alone makes it fit")


def test_beside_a_gpu_the_machines_own_memory_must_suffice_too() -> None:
    found = plan(spec(), PICO, TOKENIZATION, budget(PLENTY, "cuda", host=100_000_000), abilities=ALL)
    assert found.fits is False
    assert "of the machine's memory" in found.verdict


def test_a_hook_that_the_model_has_not_is_refused() -> None:
    with pytest.raises(UnknownHook, match=r"blocks\.99"):
        made(hook="blocks.99.hook_resid_post")


def test_only_the_blocks_before_the_hook_are_counted() -> None:
    first, last = (made(hook=f"blocks.{n}.hook_resid_post", whole_model=False) for n in (0, 5))
    assert (first.layers, last.layers, first.model_layers) == (1, 6, 6)
    weights = [next(line.bytes for line in one.parts if line.part == "weights") for one in (first, last)]
    block = PICO.parts["block"].weight_bytes["fp32"]
    assert weights[1] - weights[0] == pytest.approx(5 * block, rel=0.01)


@settings(deadline=None, max_examples=50)
@given(free=st.integers(0, 1 << 34), more=st.integers(0, 1 << 34), width=st.integers(64, 100_000))
def test_with_more_memory_what_fits_still_fits(free: int, more: int, width: int) -> None:
    if made(free, width=width).fits:
        assert made(free + more, width=width).fits


@settings(deadline=None, max_examples=50)
@given(
    free=st.integers(0, 1 << 33), more=st.integers(0, 1 << 32), width=st.integers(64, 50_000), saes=st.integers(1, 9)
)
def test_with_more_memory_nothing_dearer_is_given_up(free: int, more: int, width: int, saes: int) -> None:
    short, ample = (made(bytes_, width=width, seed=list(range(saes))) for bytes_ in (free, free + more))
    if not short.fits:
        return
    precisions = ["fp32", "bf16", "int8", "nf4"]
    assert precisions.index(value(ample, "precision")) <= precisions.index(value(short, "precision"))
    if value(ample, "precision") == value(short, "precision"):
        assert value(ample, "saes_at_once") >= value(short, "saes_at_once")
        if value(ample, "saes_at_once") == value(short, "saes_at_once"):
            assert value(ample, "buffer_tokens") >= value(short, "buffer_tokens")


@settings(deadline=None, max_examples=50)
@given(width=st.integers(64, 50_000), wider=st.integers(0, 50_000), k=st.integers(1, 64))
def test_a_wider_autoencoder_never_takes_less(width: int, wider: int, k: int) -> None:
    narrow, wide = made(width=width, k=k), made(width=width + wider, k=k)
    assert wide.peak_bytes >= narrow.peak_bytes and wide.disk_bytes >= narrow.disk_bytes


@settings(deadline=None, max_examples=60)
@given(
    free=st.one_of(st.none(), st.integers(0, 1 << 36)),
    device=st.sampled_from(["cpu", "cuda", "unified"]),
    batch_tokens=st.integers(16, 100_000),
    tokens=st.integers(1, 1 << 34),
    precision=st.sampled_from(["auto", "fp32", "bf16", "int8", "nf4"]),
    architecture=st.lists(
        st.sampled_from(["topk", "batchtopk", "matryoshka", "jumprelu", "standard", "gated"]), min_size=1, unique=True
    ),
    width=st.lists(st.integers(64, 50_000), min_size=1, max_size=3, unique=True),
    whole_model=st.sampled_from([None, True, False]),
)
def test_the_sums_are_right_whatever_is_asked(free: int | None, device: str, **fields: Any) -> None:
    found = made(free, device=device, **fields)
    assert found.peak_bytes == max(found.phases.values()) == found.phases[found.peak_phase]
    assert found.total_bytes == sum(line.at_peak_bytes for line in found.parts)
    assert all(line.bytes >= line.at_peak_bytes >= 0 for line in found.parts)
    assert found.fits is (None if free is None else found.total_bytes <= free), "never more than there is"
    assert found.passes == -(-found.saes // value(found, "saes_at_once"))
    assert found.choices["whole_model"].automatic is (fields["whole_model"] is None)
    json.dumps(found.about())


@pytest.mark.parametrize("device", ["cpu", "cuda", "unified"])
def test_on_every_machine_what_is_chosen_fits_and_is_as_much_as_does(device: str) -> None:
    machine = fixture(device)
    found = plan(spec(width=[4096, 16384], seed=[0, 1]), PICO, TOKENIZATION, machine, abilities=ALL)
    assert found.fits and found.budget is machine
    assert (value(found, "saes_at_once"), value(found, "whole_model"), found.passes) == (4, True, 1)
    large = plan(spec(width=[65_536, 131_072], seed=[0, 1]), LARGE, TOKENIZATION, machine, abilities=ALL)
    assert large.fits is False or large.total_bytes <= (machine.free_bytes or 0)


def test_what_was_measured_takes_the_place_of_the_formula() -> None:
    before = made()
    took = measured(before, 123_456_789, 1000.0, 10.0)
    after = plan(spec(), PICO, TOKENIZATION, budget(PLENTY), {"fp32": (took,)}, ALL)
    assert (after.measured, after.peak_bytes) == (True, took.peak_bytes)
    assert after.formula_bytes == before.formula_bytes
    assert after.seconds == pytest.approx(2_002_944 / 1000 + 10)
    other = plan(spec(width=4096), PICO, TOKENIZATION, budget(PLENTY), {"fp32": (took,)}, ALL)
    assert other.peak_bytes - other.formula_bytes == 123_456_789, "a like run is as much off"
    assert other.seconds is None, "its speed is another"


def test_a_grid_takes_as_long_as_its_passes_over_the_text() -> None:
    fields: dict[str, Any] = {"seed": [0, 1, 2], "saes_at_once": 1}
    took = measured(made(**fields), 0, 1000.0, 10.0, **fields)
    after = plan(spec(**fields), PICO, TOKENIZATION, budget(PLENTY), {"fp32": (took,)}, ALL)
    assert after.seconds == pytest.approx(3 * 2_002_944 / 1000 + 10)
    at_once = plan(spec(seed=[0, 1, 2]), PICO, TOKENIZATION, budget(PLENTY), {"fp32": (took,)}, ALL)
    assert at_once.seconds is None and at_once.measured


def test_a_training_that_goes_on_from_an_sae_takes_as_long_as_is_left() -> None:
    took = measured(made(), 0, 1000.0, 10.0)
    before = Before(tokens=2_000_000)
    after = plan(spec(), PICO, TOKENIZATION, budget(PLENTY), {"fp32": (took,)}, ALL, before)
    assert after.seconds == pytest.approx(2_944 / 1000 + 10)


def test_a_measurement_counts_for_its_own_precision_only() -> None:
    took = Measured(1_000_000, 32, 4096, 10**12, 10**9)
    found = plan(spec(precision="bf16"), PICO, TOKENIZATION, budget(PLENTY), {"fp32": (took,)}, ALL)
    assert not found.measured
    lower = plan(spec(), PICO, TOKENIZATION, budget(8_000_000_000), {"fp32": (took,)}, ALL)
    assert lower.fits and value(lower, "precision") == "bf16", "fp32 is known not to fit"


SETTLED: dict[str, Any] = {
    "precision": "int8", "buffer_tokens": 8192, "micro_tokens": 1024, "forward_tokens": 512, "saes_at_once": 2,
    "whole_model": False,
}  # fmt: skip


def goes_on(free: int, settled: dict[str, Any] = SETTLED, **fields: Any) -> Plan:
    before = Before(settled)
    return plan(spec(seed=[0, 1, 2, 3], **fields), PICO, TOKENIZATION, budget(free), {}, ALL, before)


def test_what_was_settled_before_stays_automatic_and_is_not_chosen_anew() -> None:
    found = goes_on(PLENTY, micro_tokens=2048)
    assert {name: value(found, name) for name in NAMES} == SETTLED | {"micro_tokens": 2048}
    assert [name for name in NAMES if not found.choices[name].automatic] == ["micro_tokens"]


def test_of_what_was_settled_only_what_no_checkpoint_hangs_on_is_given_up_for_memory() -> None:
    settled = SETTLED | {"whole_model": True, "buffer_tokens": 131_072, "micro_tokens": 4096}
    whole = goes_on(PLENTY, settled, width=8192)
    assert value(whole, "whole_model") is True
    for free in range(int(0.7 * whole.total_bytes), whole.total_bytes, 10_000_000):
        found = goes_on(free, settled, width=8192)
        for name in ("precision", "buffer_tokens", "forward_tokens", "saes_at_once"):
            assert value(found, name) == settled[name]
    blind = goes_on(whole.total_bytes - 1, settled, width=8192)
    assert blind.fits and value(blind, "whole_model") is False


def test_a_grid_larger_than_memory_is_split_into_passes_and_that_is_said() -> None:
    fields: dict[str, Any] = {"seed": [0, 1, 2, 3, 4, 5], "width": 16_384}
    least = made(1, **fields, saes_at_once=2, buffer_tokens=65_536, precision="fp32")
    found = made(least.total_bytes, **fields)
    assert (found.fits, found.saes, found.passes, value(found, "saes_at_once")) == (True, 6, 3, 2)
    assert found.verdict.endswith(" free, in 3 passes of 2 SAEs")
    assert made(**fields).passes == 1 and "passes" not in made(**fields).verdict
    uneven = made(seed=[0, 1, 2, 3, 4], saes_at_once=2)
    assert uneven.verdict.endswith(", in 3 passes of up to 2 SAEs")
    assert made(seed=[0, 1], saes_at_once=1).verdict.endswith(", in 2 passes of 1 SAE")


def test_a_grid_is_split_before_the_model_is_read_in_a_lower_precision_and_the_buffer_made_small() -> None:
    fields: dict[str, Any] = {"seed": list(range(8)), "width": 8192}
    seen = []
    for free in range(8_000_000_000, 600_000_000, -50_000_000):
        found = made(free, **fields)
        if found.fits:
            seen.append((value(found, "saes_at_once"), value(found, "buffer_tokens"), value(found, "precision")))
    assert all(at_once == 1 for at_once, buffer, _ in seen if buffer < 65_536)
    assert all(precision == "fp32" for at_once, _, precision in seen if at_once > 1)
    assert {at_once for at_once, _, _ in seen} >= {8, 4, 1}


def test_the_whole_model_is_the_first_to_go_and_on_a_cpu_a_large_one_is_not_kept_unasked() -> None:
    whole = made()
    assert value(whole, "whole_model") is True and whole.layers == PICO.n_layers
    without = made(whole.total_bytes - 1)
    others = [name for name in NAMES if name != "whole_model"]
    assert value(without, "whole_model") is False
    assert [value(without, name) for name in others] == [value(whole, name) for name in others]
    plenty = LARGE.weight_bytes["fp32"] * 3
    assert value(made(plenty, facts=LARGE), "whole_model") is False
    assert value(made(plenty, facts=LARGE, whole_model=True), "whole_model") is True
    assert value(made(plenty, facts=LARGE, device="cuda"), "whole_model") is True


def test_the_buffer_goes_by_the_length_of_the_training_and_by_memory() -> None:
    assert value(made(tokens=100_000_000), "buffer_tokens") == 524_288
    assert value(made(), "buffer_tokens") == 499_712
    assert value(made(tokens=10_000), "buffer_tokens") == 8192
    assert value(made(tokens=10_000, batch_tokens=8192), "buffer_tokens") == 16_384


def test_activations_that_are_there_already_are_not_counted_again() -> None:
    none = made(keep_activations="bf16")
    stored = Before(stored_bytes={"fp32": 1_000_000})
    some = plan(spec(keep_activations="bf16"), PICO, TOKENIZATION, budget(PLENTY), abilities=ALL, before=stored)
    assert none.disk_bytes - some.disk_bytes == 1_000_000
    assert none.disk_bytes - made().disk_bytes == 10_200 * 128 * PICO.d_model * 2


def test_the_largest_grid_is_planned_in_good_time() -> None:
    began = time.process_time()
    found = made(1_000_000_000, width=[1024 * n for n in range(9, 25)], k=[16, 32], architecture=["topk", "gated"])
    assert found.saes == 48 and time.process_time() - began < 10
