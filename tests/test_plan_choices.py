"""What is given up for memory's sake, in which order, and what of it is taken back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mistudiod.plan_choices import NAMES, fewer, halves, made_fit, steps, usual_buffer
from mistudiod.plan_train import Choices

FIRST = Choices("fp32", 4096, 524_288, 4096, 6, True)
STEPS = steps(FIRST, context=128, batch_tokens=4096, saes=6)


def size(of: Choices) -> int:
    """Of no run that there is, but smaller for whatever is given up."""
    return (
        of.forward_tokens + of.micro_tokens + of.buffer_tokens // 8 + 10_000 * of.saes_at_once + 5_000 * of.whole_model
    )


def test_what_fits_is_left_as_it_is() -> None:
    assert made_fit(FIRST, STEPS, lambda _: True) == (FIRST, True)


def test_when_nothing_fits_all_is_given_up() -> None:
    assert made_fit(FIRST, STEPS, lambda _: False) == (Choices("fp32", 128, 8192, 256, 1, False), False)


def test_the_order_is_the_mildest_first() -> None:
    names = []
    for name, values in STEPS:
        names += [name] * bool(values)
    assert names == ["whole_model", "forward_tokens", "micro_tokens", "buffer_tokens", "saes_at_once", "buffer_tokens"]
    assert dict(STEPS[:4])["buffer_tokens"][-1] == 65_536 and STEPS[5][1] == [32_768, 16_384, 8192]


def test_what_was_given_up_in_vain_is_taken_back() -> None:
    found, fits = made_fit(FIRST, STEPS, lambda one: one.saes_at_once <= 2)
    assert fits and found == replace(FIRST, saes_at_once=2)
    found, _ = made_fit(FIRST, STEPS, lambda one: one.saes_at_once <= 2 and one.buffer_tokens <= 100_000)
    assert found == replace(FIRST, saes_at_once=2, buffer_tokens=65_536)


@settings(deadline=None)
@given(st.integers(0, 200_000), st.sets(st.sampled_from(NAMES[1:])))
def test_what_is_found_fits_and_nothing_more_of_it_would(free: int, fixed: set[str]) -> None:
    open_steps = [(name, values) for name, values in STEPS if name not in fixed]
    found, fits = made_fit(FIRST, open_steps, lambda one: size(one) <= free)
    assert fits is (size(found) <= free)
    for name in fixed:
        assert getattr(found, name) == getattr(FIRST, name)
    if fits and found != FIRST:
        dearest = [name for name, _ in open_steps if getattr(found, name) != getattr(FIRST, name)][-1]
        values: list[Any] = [
            getattr(FIRST, dearest),
            *(value for name, more in STEPS if name == dearest for value in more),
        ]
        larger = values[values.index(getattr(found, dearest)) - 1]
        assert size(replace(found, **{dearest: larger})) > free


@settings(deadline=None)
@given(st.integers(1, 1 << 40), st.integers(16, 1 << 20))
def test_a_buffer_is_a_quarter_of_the_tokens_within_bounds(tokens: int, batch_tokens: int) -> None:
    buffer = usual_buffer(tokens, batch_tokens)
    assert buffer >= max(8192, 2 * batch_tokens)
    assert buffer <= max(524_288, 2 * batch_tokens)
    assert buffer <= max(tokens / 4, 8192, 2 * batch_tokens)


def test_the_usual_buffer_of_the_usual_training() -> None:
    assert usual_buffer(2_000_000, 4096) == 499_712
    assert usual_buffer(10_000_000, 4096) == 524_288


@settings(deadline=None)
@given(st.integers(1, 1 << 30), st.integers(1, 1 << 20))
def test_halves_end_at_the_least(value: int, least: int) -> None:
    found = list(halves(value, least))
    assert found == sorted(set(found), reverse=True)
    assert not found or (found[-1] == least and found[0] < value)


@settings(deadline=None)
@given(st.integers(1, 64), st.integers(1, 64))
def test_every_number_of_passes_that_makes_a_difference_is_tried(at_once: int, saes: int) -> None:
    found = fewer(at_once, saes)
    assert found == sorted(set(found), reverse=True)
    assert all(1 <= n < at_once for n in found)
    assert at_once == 1 or found[-1] == 1
    passes = [-(-saes // n) for n in found]
    assert len(set(passes)) == len(passes)
