"""Shuffled batches of activations: nothing lost, nothing twice, the same again after a stop."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from mistudiod.engine.activations import ActivationBatches, Harvest, NoActivations

CONTEXT, D_IN = 8, 4
BOS = 0


class NumberedWindows:
    """Window w holds BOS, then tokens 8w+1 … 8w+7: every token is known by its id."""

    context = CONTEXT

    def rows(self, indices):
        numbers = np.asarray(indices, dtype=np.int64)[:, None] * CONTEXT + np.arange(CONTEXT)
        numbers[:, 0] = BOS
        return numbers

    def special_mask(self, rows):
        return rows == BOS


def as_floats(ids):
    """(n, T) → (n, T, d_in): the id in the first place."""
    x = torch.ones(*ids.shape, D_IN)
    x[..., 0] = ids
    return x


def harvest(forward=as_floats):
    return Harvest(NumberedWindows(), forward, D_IN, lm_tokens=3 * CONTEXT)


def ids_of(batch):
    return batch[:, 0].long().tolist()


def take(batches, n):
    return [ids_of(next(batches)) for _ in range(n)]


def test_a_pass_gives_every_text_token_once_and_no_special_token():
    batches = ActivationBatches(harvest(), train_windows=20, batch_tokens=10, seed=0, block_tokens=48)
    given = list(itertools.chain(*take(batches, 14)))  # 20 windows of 7 text tokens
    assert sorted(given) == [i for i in range(160) if i % CONTEXT != 0]


def test_order_is_shuffled_within_a_block_and_across_windows():
    batches = ActivationBatches(harvest(), train_windows=96, batch_tokens=56, seed=0, block_tokens=64)
    first = next(batches)
    windows = {i // CONTEXT for i in ids_of(first)}
    assert len(windows) == 8
    assert windows != set(range(8))
    assert ids_of(first) != sorted(ids_of(first))


def test_each_pass_has_its_own_order():
    batches = ActivationBatches(harvest(), train_windows=20, batch_tokens=140, seed=0, block_tokens=48)
    one, other = take(batches, 2)
    assert one != other
    assert sorted(one) == sorted(other)


def test_seed_decides_the_order():
    orders = [take(ActivationBatches(harvest(), 20, 10, seed, 48), 3) for seed in (1, 1, 2)]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2]


@pytest.mark.parametrize("stop_at", [0, 1, 4, 5, 14, 17, 30])
def test_resuming_at_any_batch_gives_the_same_batches(stop_at):
    def fresh():
        return ActivationBatches(harvest(), train_windows=20, batch_tokens=10, seed=3, block_tokens=48)

    straight = fresh()
    take(straight, stop_at)
    resumed = fresh()
    resumed.load(straight.state())
    assert take(resumed, 20) == take(straight, 20)


def test_resuming_reads_no_more_than_the_block_at_hand():
    seen = []

    def counted(ids):
        seen.append(len(ids))
        return as_floats(ids)

    straight = ActivationBatches(harvest(), train_windows=90, batch_tokens=5, seed=0, block_tokens=48)
    take(straight, 41)
    resumed = ActivationBatches(harvest(counted), train_windows=90, batch_tokens=5, seed=0, block_tokens=48)
    resumed.load(straight.state())
    next(resumed)
    assert sum(seen) == 6


def test_a_batch_may_be_larger_than_a_block_and_than_a_pass():
    batches = ActivationBatches(harvest(), train_windows=3, batch_tokens=50, seed=0, block_tokens=8)
    given = ids_of(next(batches))  # 21 text tokens a pass
    assert {given.count(i) for i in given} == {2, 3}


def test_scale_brings_the_mean_norm_to_the_root_of_the_width():
    batches = ActivationBatches(harvest(), train_windows=40, batch_tokens=10, seed=0, block_tokens=48)
    scale, mean = batches.statistics()
    x = batches.block()
    assert torch.linalg.vector_norm(x * scale, dim=1).mean().item() == pytest.approx(math.sqrt(D_IN), rel=1e-5)
    assert torch.allclose(mean, x.mean(0))


def test_statistics_do_not_move_the_position():
    one, other = (ActivationBatches(harvest(), 40, 10, seed=0, block_tokens=48) for _ in range(2))
    one.statistics()
    assert take(one, 7) == take(other, 7)


def test_held_out_activations_come_in_order_and_stop_at_the_limit():
    batches = list(harvest().first(np.arange(5, 15), tokens=24))
    given = [i for batch in batches for i in ids_of(batch)]
    assert given == [i for i in range(5 * CONTEXT, 15 * CONTEXT) if i % CONTEXT != 0][:24]


def test_windows_of_special_tokens_only_are_said_to_be_so():
    class OnlySpecial(NumberedWindows):
        def special_mask(self, rows):
            return np.ones_like(rows, dtype=bool)

    batches = ActivationBatches(Harvest(OnlySpecial(), as_floats, D_IN), 4, batch_tokens=4, seed=0)
    with pytest.raises(NoActivations, match="special tokens only"):
        next(batches)
    with pytest.raises(NoActivations, match="no training windows"):
        ActivationBatches(harvest(), 0, batch_tokens=4, seed=0)


def test_activations_that_are_not_finite_are_refused():
    batches = ActivationBatches(harvest(lambda ids: as_floats(ids) / 0), 4, batch_tokens=4, seed=0)
    with pytest.raises(NoActivations, match="mean norm"):
        batches.statistics()
