"""Shuffled batches of activations: nothing lost, nothing twice, the same again after a stop."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import torch
from token_windows import CONTEXT, D_IN, NumberedWindows, as_floats, harvest, ids_of, take

from mistudiod.engine.activations import ActivationBatches, pairs_of_a_window
from mistudiod.engine.harvest import Harvest, NoActivations
from mistudiod.mixing import Mixing, mixing


def batches_of(source=None, windows=20, batch=10, seed=0, buffer=48):
    return ActivationBatches(source or harvest(), windows, batch, seed, buffer)


class Counted:
    """A model that knows how many windows it has read, and can be broken off."""

    def __init__(self):
        self.windows, self.break_at = 0, math.inf

    def __call__(self, ids):
        if self.windows >= self.break_at:
            self.break_at = math.inf
            raise KeyboardInterrupt
        self.windows += len(ids)
        return as_floats(ids)


@pytest.mark.parametrize("buffer", [8, 48, 64, 10_000])
def test_a_pass_gives_every_text_token_once_and_no_special_token(buffer):
    batches = batches_of(buffer=buffer)
    given = list(itertools.chain(*take(batches, 14 * 40)))  # 40 passes of 20 windows of 7 text tokens
    text = [i for i in range(160) if i % CONTEXT != 0]
    counts = {i: given.count(i) for i in text}
    assert sum(counts.values()) == len(given)
    assert max(counts.values()) - min(counts.values()) <= 2  # tokens wait for a pass at most
    assert batches.mixing.parts <= batches.mixing.chunks


def test_a_buffer_of_all_windows_gives_each_token_once_before_any_comes_again():
    given = list(itertools.chain(*take(batches_of(buffer=10_000), 14)))
    assert sorted(given) == [i for i in range(160) if i % CONTEXT != 0]


def test_rows_say_which_token_they_are():
    batches = batches_of(windows=300, batch=64, buffer=256)
    for _ in range(60):
        batch = next(batches)
        assert batches.where.tolist() == ids_of(batch)


def test_each_pass_has_its_own_order():
    batches = batches_of(batch=140, buffer=10_000)
    one, other = take(batches, 2)
    assert one != other
    assert sorted(one) == sorted(other)


def test_seed_decides_the_order():
    orders = [take(batches_of(seed=seed), 3) for seed in (1, 1, 2)]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]


@pytest.mark.parametrize("stop_at", [0, 1, 4, 5, 14, 17, 30, 100])
@pytest.mark.parametrize("buffer", [8, 48, 100, 10_000])
def test_resuming_at_any_batch_gives_the_same_batches(stop_at, buffer):
    straight = batches_of(seed=3, buffer=buffer)
    take(straight, stop_at)
    resumed = batches_of(seed=3, buffer=buffer)
    resumed.load(json.loads(json.dumps(straight.state())))
    for _ in range(40):
        assert torch.equal(next(resumed), next(straight))
        assert torch.equal(resumed.where, straight.where)
        assert resumed.state() == straight.state()


def test_resuming_reads_no_more_than_its_parts():
    model = Counted()
    straight, resumed = (
        batches_of(harvest(forward), windows=900, batch=5, buffer=80) for forward in (as_floats, model)
    )
    take(straight, 400)
    resumed.load(straight.state())
    next(resumed)
    assert straight.state()["chunks"] > 2 * resumed.mixing.parts > 10
    assert model.windows <= resumed.mixing.parts * resumed.mixing.chunk_windows


def test_the_first_batch_waits_for_one_chunk():
    model = Counted()
    batches = batches_of(harvest(model), windows=4_000, batch=512, buffer=8 * 1_024)
    next(batches)
    assert batches.mixing.parts == 7
    assert model.windows == batches.mixing.chunk_windows == 250


def test_harvesting_that_is_broken_off_leaves_the_state_and_goes_on():
    straight = take(batches_of(), 60)
    model = Counted()
    batches = batches_of(harvest(model))
    for number, expected in enumerate(straight):
        model.break_at = model.windows + number % 2
        before = batches.state()
        try:
            batch = next(batches)
        except KeyboardInterrupt:
            assert batches.state() == before
            resumed = batches_of()
            resumed.load(before)
            assert ids_of(next(resumed)) == expected
            batches.load(before)  # as Training.advance does
            batch = next(batches)
        assert ids_of(batch) == expected


def test_going_back_gives_the_same_batches_again():
    batches = batches_of()
    take(batches, 9)
    state, expected = batches.state(), take(batches, 12)
    batches.load(state)
    assert take(batches, 12) == expected


def test_a_position_of_an_older_version_is_the_beginning_of_its_pass():
    batches = batches_of(buffer=10_000)
    take(batches, 14)
    second = take(batches, 5)
    batches.load({"pass": 1, "block": 3, "offset": 17})
    assert sorted(itertools.chain(*take(batches, 14))) == [i for i in range(160) if i % CONTEXT != 0]
    batches.load({"pass": 1, "block": 3, "offset": 17})
    resumed = take(batches, 5)
    assert resumed == second


def test_a_batch_may_be_larger_than_the_buffer_and_than_a_pass():
    batches = batches_of(windows=3, batch=50, buffer=8)
    given = ids_of(next(batches))  # 21 text tokens a pass
    assert {given.count(i) for i in given} <= {1, 2, 3}


@pytest.mark.parametrize("buffer", [1_024, 4_096])
def test_tokens_of_a_window_meet_as_seldom_as_in_a_buffer_with_random_replacement(buffer):
    batches = batches_of(windows=6_000, batch=128, buffer=buffer)
    for _ in range(2 * buffer // 128):
        next(batches)  # until the buffer is full
    shares = []
    for _ in range(100):
        next(batches)
        shares.append(pairs_of_a_window(batches.where, CONTEXT))
    text = (CONTEXT - 1) / CONTEXT
    expected = (CONTEXT - 2) / (2 * buffer * text)  # each of the others meets a token in one of 2 x buffer places
    assert np.mean(shares) == pytest.approx(expected, rel=0.25)


def test_pairs_are_counted_as_by_hand():
    where = torch.tensor([0, 1, 2, 8, 9, 16])  # windows 0, 0, 0, 1, 1, 2
    assert pairs_of_a_window(where, 8) == pytest.approx((3 + 1) / 15)


@pytest.mark.parametrize("windows", [1, 7, 100, 5_000, 200_000])
@pytest.mark.parametrize("buffer", [1_024, 65_536, 524_288])
def test_the_buffer_holds_what_it_may_and_no_more(windows, buffer):
    found = mixing(windows, 128, 4_096, buffer)
    assert found.rows <= buffer
    assert (found.chunks - 1) * found.chunk_windows < windows <= found.chunks * found.chunk_windows
    assert 1 <= found.parts <= found.chunks
    if found.parts < found.chunks:
        assert found.rows > 0.85 * buffer
    if windows == 200_000 and buffer == 524_288:
        assert (found.chunk_tokens, found.rows) == (16_384, 524_288)


@pytest.mark.parametrize("parts", [1, 2, 3, 10, 63])
@pytest.mark.parametrize("tokens", [1, 5, 100, 16_384])
def test_what_is_left_of_chunks_always_fits_into_the_buffer(parts, tokens):
    found = Mixing(chunks=parts, chunk_windows=tokens, context=1, parts=parts)
    cuts = [found.cuts(chunk, tokens) for chunk in range(3 * parts)]
    for group in range(3 * parts):
        left = sum(tokens - cuts[group - age][age] for age in range(min(parts, group + 1)))
        assert left <= found.rows
        given = sum(cuts[group - age][age + 1] - cuts[group - age][age] for age in range(min(parts, group + 1)))
        assert 0.5 * tokens <= given + parts
        if group > 2 * parts:
            assert abs(given - tokens) <= parts
    for one in cuts:
        assert (len(one), one[0], one[-1]) == (parts + 1, 0, tokens)
        assert one == sorted(one)


def test_scale_brings_the_mean_norm_to_the_root_of_the_width():
    batches = batches_of(windows=40)
    scale, mean = batches.statistics()
    x = batches.sample()
    assert torch.linalg.vector_norm(x * scale, dim=1).mean().item() == pytest.approx(math.sqrt(D_IN), rel=1e-5)
    assert torch.allclose(mean, x.mean(0))


def test_a_sample_is_the_first_chunk_whenever_it_is_taken():
    model = Counted()
    fresh, later = batches_of(harvest(model), windows=400, buffer=160), batches_of(windows=400, buffer=160)
    first = fresh.sample()
    assert len(first) == (CONTEXT - 1) * fresh.mixing.chunk_windows
    expected = take(later, 150)
    assert torch.equal(later.sample(), first)
    assert take(fresh, 150) == expected
    read = model.windows
    fresh.load(later.state())
    assert torch.equal(fresh.sample(), first)
    assert model.windows == read + fresh.mixing.chunk_windows


def test_a_sample_is_not_harvested_twice():
    model = Counted()
    batches = batches_of(harvest(model), windows=400, buffer=160)
    batches.sample()
    batches.sample()
    next(batches)
    assert model.windows == -(-10 // (4 * (CONTEXT - 1))) * batches.mixing.chunk_windows


def test_held_out_activations_come_in_order_and_stop_at_the_limit():
    batches = list(harvest().first(np.arange(5, 15), tokens=24))
    given = [i for batch in batches for i in ids_of(batch)]
    assert given == [i for i in range(5 * CONTEXT, 15 * CONTEXT) if i % CONTEXT != 0][:24]


def test_windows_of_special_tokens_only_are_said_to_be_so():
    class OnlySpecial(NumberedWindows):
        def special_mask(self, rows):
            return np.ones_like(rows, dtype=bool)

    batches = ActivationBatches(Harvest(OnlySpecial(), as_floats, (D_IN,)), 4, batch_tokens=4, seed=0)
    with pytest.raises(NoActivations, match="special tokens or outliers only"):
        next(batches)
    with pytest.raises(NoActivations, match="mean norm"):
        batches.statistics()
    with pytest.raises(NoActivations, match="no training windows"):
        ActivationBatches(harvest(), 0, batch_tokens=4, seed=0)


def test_activations_that_are_not_finite_are_refused():
    batches = batches_of(harvest(lambda ids: as_floats(ids) / 0), windows=4)
    with pytest.raises(NoActivations, match="mean norm"):
        batches.statistics()
