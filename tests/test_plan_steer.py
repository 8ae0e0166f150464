"""The plan of a steering session: its sizes against those of what is really held, and what it says. No daemon."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mistudiod
from mistudiod import plan_steer, plan_train
from mistudiod.budget import MIB, Budget
from mistudiod.facts import UnknownModel, read_facts
from mistudiod.plan_steer import SaeSize, SteerPlan, plan, rows_at_once
from mistudiod.planner import Abilities

PICO = read_facts(Path(mistudiod.__file__).parent / "demo" / "pico")
# A model of 7 G parameters, by its shapes.
LARGE = replace(
    PICO,
    n_layers=32,
    d_model=4096,
    d_mlp=11008,
    n_heads=32,
    n_kv_heads=8,
    d_head=128,
    vocab_size=128_000,
    weight_bytes={precision: size * 2000 for precision, size in PICO.weight_bytes.items()},
)
ALL = Abilities(("fp32", "bf16", "fp16", "int8", "nf4"))
SAE = SaeSize(4096, 65_536, 4096)
ENOUGH = 1 << 40


def made(free: int | None = ENOUGH, facts: Any = LARGE, precision: Any = "bf16", rows: int = 16, tokens: int = 1024,
         saes: tuple[SaeSize, ...] = (SAE,), device: Any = "cuda", able: Abilities = ALL,
         host: int | None = None) -> SteerPlan:  # fmt: skip
    return plan(facts, precision, saes, rows, tokens, Budget(device, "a device", ENOUGH, free, 512 * MIB, host), able)


def part(of: SteerPlan, name: str) -> int:
    return next(line.bytes for line in of.parts if line.part == name)


def test_weights_saes_and_cache_are_counted_to_the_byte() -> None:
    found = made()
    assert part(found, "weights") == LARGE.weight_bytes["bf16"]
    assert part(found, "saes") == 4 * (2 * 4096 * 65_536 + 3 * 65_536 + 4096)
    assert part(found, "cache") == 2 * 16 * 1024 * (2 * 32 * 8 * 128 * 2), "of the prompt, and of the row"
    assert part(made(precision="fp32"), "cache") == 2 * part(found, "cache")
    assert part(found, "reserve") == 512 * MIB
    skip = SaeSize(4096, 65_536, 4096, skip=True)
    assert skip.bytes - SAE.bytes == 4 * 4096 * 4096


def test_the_constants_are_the_engines() -> None:
    strength_range = pytest.importorskip("mistudiod.engine.strength_range")
    lm = pytest.importorskip("mistudiod.engine.lm")
    assert strength_range.AT_ONCE == plan_steer.CALIBRATING_PASS
    assert strength_range.TOGETHER * len(strength_range.SEEDS) == plan_steer.CALIBRATING_ROWS
    assert strength_range.PROMPT_TOKENS + strength_range.WRITTEN == plan_steer.CALIBRATING_TOKENS
    assert plan_train.LOGIT_BYTES == plan_steer.LOGIT_TENSORS * 4 * lm.LOGIT_ELEMENTS


def test_the_parts_at_the_peak_are_the_total() -> None:
    for found in (made(), made(rows=200, tokens=16), made(precision="int8"), made(saes=(), rows=1, tokens=1)):
        assert sum(line.at_peak_bytes for line in found.parts) == found.total_bytes
        assert all(line.bytes >= line.at_peak_bytes >= 0 for line in found.parts)
        assert found.total_bytes == found.peak_bytes + 512 * MIB


def test_what_is_free_is_compared_with_all_of_it_and_unknown_stays_unknown() -> None:
    needed = made().total_bytes
    assert made(needed).fits is True and made(needed).rows_at_once == 16
    assert made(needed - 1).fits is False and 0 < made(needed - 1).rows_at_once < 16
    unknown = made(None)
    assert unknown.fits is None and unknown.rows_at_once == 16 and unknown.ways == ()
    assert "how much is free is not known" in unknown.verdict


@settings(max_examples=60, deadline=None)
@given(free=st.integers(0, 40_000_000_000), rows=st.integers(1, 64), tokens=st.integers(1, 8192))
def test_as_many_rows_are_written_at_once_as_fit_and_no_more(free: int, rows: int, tokens: int) -> None:
    found = made(free, rows=rows, tokens=tokens)
    at_once = found.rows_at_once
    assert 0 <= at_once <= rows and (at_once == rows) == bool(found.fits)
    assert at_once == 0 or made(free, rows=at_once, tokens=tokens).fits
    assert at_once == rows or not made(free, rows=at_once + 1, tokens=tokens).fits


def test_a_session_that_is_loaded_has_its_weights_already() -> None:
    def most(usable: int | None, rows: int = 64) -> int:
        return rows_at_once(LARGE, "bf16", [SAE], rows, 1024, "cuda", usable)

    assert most(None) == 64 and most(ENOUGH) == 64
    assert most(0) == 1, "what one text takes is found out by writing it"
    found = made(rows=20)
    beside = found.peak_bytes - sum(part(found, name) for name in ("weights", "saes", "runtime"))
    assert 20 <= most(int(1.06 * beside)) < 24
    assert most(beside // 2) < 20


def test_what_would_fit_is_said_in_numbers() -> None:
    two = (SAE, SAE)
    found = made(made(saes=two).total_bytes - 1, saes=two)
    assert {way.field: way.value for way in found.ways} == {
        "precision": "int8", "tokens": 512, "rows": found.rows_at_once, "saes": 1,
    }  # fmt: skip
    for way in found.ways:
        again = {"precision": {"precision": way.value}, "tokens": {"tokens": way.value},
                 "rows": {"rows": way.value}, "saes": {"saes": (SAE,)}}[way.field]  # fmt: skip
        assert way.fits and made(found.budget.free_bytes, **{"saes": two, **again}).total_bytes == way.total_bytes
    assert "does not fit" in found.verdict and "precision int8 (" in found.verdict and "tokens 512 (" in found.verdict


def test_nothing_is_proposed_that_does_not_work_here() -> None:
    ways = made(1, able=Abilities(("fp32", "bf16"))).ways
    assert "precision" not in {way.field for way in ways}
    stored = replace(LARGE, quantized="nf4", weight_bytes={"nf4": 4_000_000_000})
    assert "precision" not in {way.field for way in made(1, facts=stored, precision="nf4").ways}
    assert {way.field for way in made(1, rows=1, tokens=32, saes=(), able=Abilities(("bf16",))).ways} == set()
    with pytest.raises(UnknownModel, match="stored as nf4"):
        made(facts=stored, precision="bf16")


def test_where_nothing_alone_makes_it_fit_that_is_said() -> None:
    found = made(1000)
    assert found.rows_at_once == 0 and not any(way.fits for way in found.ways)
    assert found.verdict.endswith("nothing smaller alone makes it fit")


def test_the_largest_sae_is_the_one_that_goes() -> None:
    small = SaeSize(4096, 1024, 4096)
    found = made(made(saes=(small,)).total_bytes, saes=(small, SAE))
    assert next(way for way in found.ways if way.field == "saes").fits
    assert next(way for way in found.ways if way.field == "saes").value == 1


def test_of_a_gpus_machine_the_memory_counts_too() -> None:
    found = made(host=1_000_000_000)
    assert found.fits is False and found.rows_at_once == 0
    assert "of the machine's memory" in found.verdict
    assert made(host=8_000_000_000).fits is True


def test_a_longer_or_a_wider_request_never_takes_less() -> None:
    totals = [made(rows=rows, tokens=tokens).peak_bytes for rows in (1, 4, 16, 64) for tokens in (16, 256, 4096)]
    for rows in range(4):
        row = totals[3 * rows : 3 * rows + 3]
        assert row == sorted(row)
        assert rows == 0 or all(one <= other for one, other in zip(totals[3 * rows - 3 : 3 * rows], row, strict=True))
