"""What a plan chooses, what it never touches, and whether it keeps what it promises. No torch, no daemon."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mistudiod
from mistudiod.budget import MIB, Budget
from mistudiod.facts import UnknownHook, read_facts
from mistudiod.plan_answer import Plan
from mistudiod.plan_measured import Measured
from mistudiod.planner import CHOICES, Abilities, plan
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


def test_what_is_left_open_is_chosen_and_marked_automatic() -> None:
    found = made()
    assert set(found.choices) == set(CHOICES)
    assert all(choice.automatic for choice in found.choices.values())
    assert value(found, "precision") == "fp32", "16 bits are slow on most processors"
    assert value(made(device="cuda"), "precision") == "bf16", "as it is stored"


@pytest.mark.parametrize(
    ("name", "given_value"),
    [("precision", "nf4"), ("forward_tokens", 256), ("buffer_tokens", 16_384), ("micro_tokens", 512)],
)
@pytest.mark.parametrize("free", [PLENTY, 1_000_000_000, 1])
def test_what_a_person_set_is_never_changed_however_little_memory_there_is(
    name: str, given_value: Any, free: int
) -> None:
    found = made(free, **{name: given_value})
    assert (value(found, name), found.choices[name].automatic) == (given_value, False)


def test_less_at_a_time_comes_before_a_lower_precision() -> None:
    whole = made(device="cuda", facts=LARGE)
    less = made(whole.total_bytes - 1, device="cuda", facts=LARGE)
    assert less.fits and value(less, "precision") == "bf16"
    assert value(less, "forward_tokens") < value(whole, "forward_tokens")


def test_the_ladder_goes_down_to_four_bits_when_nothing_else_fits() -> None:
    seen = []
    for free in range(6_000_000_000, 1_500_000_000, -100_000_000):
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


def test_what_would_fit_really_does() -> None:
    short = plan(spec(width=65536, batch_tokens=16384), PICO, TOKENIZATION, budget(1_400_000_000), abilities=ALL)
    assert short.fits is False and short.ways
    for way in short.ways:
        again = plan(
            spec(**{"width": 65536, "batch_tokens": 16384, way.field: way.value}),
            PICO, TOKENIZATION, budget(1_400_000_000), abilities=ALL,
        )  # fmt: skip
        assert again.fits is way.fits and again.total_bytes == way.total_bytes, way
    assert any(way.fits for way in short.ways)
    for way in short.ways:
        assert (f"{way.field} {way.value}" in short.verdict) == way.fits


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
    first, last = made(hook="blocks.0.hook_resid_post"), made(hook="blocks.5.hook_resid_post")
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
@given(width=st.integers(64, 50_000), wider=st.integers(0, 50_000), k=st.integers(1, 64))
def test_a_wider_autoencoder_never_takes_less(width: int, wider: int, k: int) -> None:
    narrow, wide = made(width=width, k=k), made(width=width + wider, k=k)
    assert wide.peak_bytes >= narrow.peak_bytes and wide.disk_bytes >= narrow.disk_bytes


@settings(deadline=None, max_examples=50)
@given(
    free=st.one_of(st.none(), st.integers(0, 1 << 36)),
    device=st.sampled_from(["cpu", "cuda", "unified"]),
    batch_tokens=st.integers(16, 100_000),
    tokens=st.integers(1, 1 << 34),
    precision=st.sampled_from(["auto", "fp32", "bf16", "int8", "nf4"]),
)
def test_the_sums_are_right_whatever_is_asked(
    free: int | None, device: str, batch_tokens: int, tokens: int, precision: str
) -> None:
    found = made(free, device=device, batch_tokens=batch_tokens, tokens=tokens, precision=precision)
    assert found.peak_bytes == max(found.phases.values()) == found.phases[found.peak_phase]
    assert found.total_bytes == sum(line.at_peak_bytes for line in found.parts)
    assert all(line.bytes >= line.at_peak_bytes >= 0 for line in found.parts)
    assert found.fits is (None if free is None else found.total_bytes <= free)
    json.dumps(found.about())


def test_what_was_measured_takes_the_place_of_the_formula() -> None:
    before = made()
    took = Measured(2048, 32, 4096, before.formula_bytes + 123_456_789, before.formula_bytes, 1000.0, 10.0)
    after = plan(spec(), PICO, TOKENIZATION, budget(PLENTY), {"fp32": (took,)}, ALL)
    assert (after.measured, after.peak_bytes) == (True, took.peak_bytes)
    assert after.formula_bytes == before.formula_bytes
    assert after.seconds == pytest.approx(2_002_944 / 1000 + 10)
    other = plan(spec(width=4096), PICO, TOKENIZATION, budget(PLENTY), {"fp32": (took,)}, ALL)
    assert other.peak_bytes - other.formula_bytes == 123_456_789, "a like run is as much off"
    assert other.seconds is None, "its speed is another"


def test_a_measurement_counts_for_its_own_precision_only() -> None:
    took = Measured(2048, 32, 4096, 10**12, 10**9)
    found = plan(spec(precision="bf16"), PICO, TOKENIZATION, budget(PLENTY), {"fp32": (took,)}, ALL)
    assert not found.measured
    lower = plan(spec(), PICO, TOKENIZATION, budget(8_000_000_000), {"fp32": (took,)}, ALL)
    assert lower.fits and value(lower, "precision") == "bf16", "fp32 is known not to fit"


def test_what_was_settled_before_stays_automatic_and_is_not_chosen_anew() -> None:
    settled = {"precision": "int8", "buffer_tokens": 8192, "micro_tokens": 1024, "forward_tokens": 512}
    found = plan(spec(micro_tokens=2048), PICO, TOKENIZATION, budget(PLENTY), {}, ALL, settled)
    assert {name: value(found, name) for name in CHOICES} == settled | {"micro_tokens": 2048}
    assert [name for name in CHOICES if not found.choices[name].automatic] == ["micro_tokens"]
