"""What one run taught the plan of the next: when it holds, and which of several is taken."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mistudiod.plan_measured import Measured, as_fast, key, nearest

MODEL = {
    "name": "pythia", "source": "EleutherAI/pythia-70m", "revision": "a39f36b", "path": "/cache/pythia",
    "parameters": 70_426_624, "size_bytes": 166_029_852, "family": "gpt_neox",
}  # fmt: skip
SAME: dict[str, Any] = {
    "model": MODEL, "precision": "bf16", "context": 128, "hooks": ["blocks.2.hook_resid_post"],
    "device": "NVIDIA H100 80 GiB", "versions": {"torch": "2.9.0", "transformers": "5.1.0"},
}  # fmt: skip
OTHERS: dict[str, Any] = {
    "another revision": {"model": MODEL | {"revision": "b40a1c2"}},
    "another source": {"model": MODEL | {"source": "EleutherAI/pythia-70m-deduped"}},
    "another folder": {"model": MODEL | {"path": "/models/pythia"}},
    "other weights": {"model": MODEL | {"parameters": 70_426_625}},
    "other files": {"model": MODEL | {"size_bytes": 332_059_704}},
    "another precision": {"precision": "int8"},
    "another context": {"context": 256},
    "another block": {"hooks": ["blocks.3.hook_resid_post"]},
    "another block as well": {"hooks": ["blocks.2.hook_resid_post", "blocks.3.hook_resid_post"]},
    "another device": {"device": "NVIDIA H100 40 GiB"},
    "another torch": {"versions": {"torch": "2.9.1", "transformers": "5.1.0"}},
    "another library beside it": {"versions": {"torch": "2.9.0", "transformers": "5.1.0", "bitsandbytes": "0.50.2"}},
}

sizes = st.integers(1, 1 << 20)


@st.composite
def records(draw: st.DrawFn) -> Measured:
    return Measured(draw(sizes), draw(st.integers(1, 512)), draw(sizes), draw(sizes), draw(sizes))


def measured(parameters: int = 4096, entries: int = 32, batch_tokens: int = 4096, **fields: Any) -> Measured:
    return Measured(parameters, entries, batch_tokens, **{"peak_bytes": 1_100, "formula_bytes": 1_000, **fields})


def test_the_same_run_has_the_same_key_whatever_the_model_is_called_here() -> None:
    assert key(**SAME) == key(**SAME | {"model": MODEL | {"name": "mine"}})
    assert len(key(**SAME)) == 32 and int(key(**SAME), 16) >= 0


def test_the_order_in_which_versions_are_told_is_no_difference() -> None:
    backwards = dict(reversed(SAME["versions"].items()))
    assert key(**SAME) == key(**SAME | {"versions": backwards})


@pytest.mark.parametrize("change", OTHERS.values(), ids=OTHERS)
def test_a_measurement_does_not_hold_for(change: dict[str, Any]) -> None:
    assert key(**SAME | change) != key(**SAME)


def test_no_two_of_these_differences_are_taken_for_each_other() -> None:
    assert len({key(**SAME | change) for change in OTHERS.values()}) == len(OTHERS)


def test_a_model_that_is_no_copy_of_the_hubs_has_no_revision_and_a_key_all_the_same() -> None:
    local = {name: value for name, value in MODEL.items() if name != "revision"}
    assert key(**SAME | {"model": local}) == key(**SAME | {"model": local | {"revision": None}}) != key(**SAME)


def test_a_record_is_json_and_comes_back_as_it_was() -> None:
    one = measured(tokens_per_s=1234.5)
    assert Measured(**json.loads(json.dumps(asdict(one)))) == one


def test_what_the_formula_made_too_much_of_counts_less_than_nothing() -> None:
    assert measured().excess_bytes == 100
    assert measured(peak_bytes=900).excess_bytes == -100


def test_nothing_remembered_is_near_to_nothing() -> None:
    assert nearest([], 4096, 32, 4096) is None
    assert as_fast([], "sizes") is None


def test_twice_the_parameters_are_nearer_than_eight_times_the_batch() -> None:
    wider, longer = measured(8192), measured(batch_tokens=32768)
    assert nearest([wider, longer], 4096, 32, 4096) == wider
    assert nearest([longer, wider], 4096, 32, 4096) == wider


def test_half_is_as_near_as_twice_and_the_later_record_is_taken() -> None:
    half, twice = measured(2048), measured(8192)
    assert nearest([half, twice], 4096, 32, 4096) == twice
    assert nearest([twice, half], 4096, 32, 4096) == half


@settings(deadline=None)
@given(st.lists(records(), min_size=1), sizes, st.integers(1, 512), sizes)
def test_a_record_of_these_very_sizes_is_nearest_and_of_several_the_last(
    remembered: list[Measured], parameters: int, entries: int, batch_tokens: int
) -> None:
    older, newer = (Measured(parameters, entries, batch_tokens, peak, 1) for peak in (10, 20))
    assert nearest([older, *remembered, newer], parameters, entries, batch_tokens) is newer
    found = nearest([older, *remembered], parameters, entries, batch_tokens)
    assert found is not None
    assert (found.parameters, found.entries, found.batch_tokens) == (parameters, entries, batch_tokens)
    assert nearest(iter(remembered), parameters, entries, batch_tokens) in remembered


def test_how_fast_a_run_is_is_known_from_one_of_exactly_its_sizes() -> None:
    slow, fast = (measured(sizes="these", tokens_per_s=speed) for speed in (1_000.0, 2_000.0))
    assert as_fast([slow, fast, measured(sizes="others", tokens_per_s=3_000.0)], "these") is fast
    assert as_fast([slow], "others") is None


def test_a_run_whose_speed_was_not_taken_says_nothing_of_it() -> None:
    timed = measured(sizes="these", tokens_per_s=1_000.0)
    assert as_fast([timed, measured(sizes="these")], "these") is timed
    assert as_fast([measured(sizes="these")], "these") is None
