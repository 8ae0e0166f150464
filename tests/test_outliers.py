"""Tokens of far too large a norm: found on the first chunk, left out everywhere, counted."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from token_windows import CONTEXT, D_IN, as_floats, harvest, ids_of

from mistudiod.engine.activations import ActivationBatches
from mistudiod.engine.harvest import OUTLIER, outlier_norms

EVERY = 20  # tokens whose number is a multiple of it are outliers


def with_sinks(ids):
    """What tells tokens apart stays; the last value is large at some."""
    x = as_floats(ids)
    x[..., 3] = torch.where(ids % EVERY == 0, 1000.0, 0.0)
    return x


def batches_of(source, windows=60, batch=10, buffer=96):
    return ActivationBatches(source, windows, batch, 0, buffer)


def leaving_out(source=None):
    batches = batches_of(source or harvest(with_sinks))
    batches.leave_out(outlier_norms(batches.sample(), batches.harvest.widths))
    return batches


def test_the_limit_is_ten_times_the_median_norm_of_each_hook():
    x = torch.randn(501, 12)
    expected = [OUTLIER * np.median(part.norm(dim=1).numpy()) for part in (x[:, :4], x[:, 4:])]
    assert outlier_norms(x, (4, 8)) == pytest.approx(expected, rel=1e-6)


def test_outliers_train_when_no_limit_is_set_and_not_otherwise():
    with_them, without = batches_of(harvest(with_sinks)), leaving_out()
    for batches, expected in ((with_them, True), (without, False)):
        given = set(itertools.chain(*(ids_of(next(batches)) for _ in range(100))))
        assert any(i % EVERY == 0 for i in given) == expected
        assert len(given) > 300
    assert with_them.outliers == 0


def test_a_sample_and_held_out_activations_are_without_outliers():
    batches = leaving_out()
    assert not [i for i in ids_of(batches.sample()) if i % EVERY == 0]
    held_out = torch.cat(list(batches.harvest.first(np.arange(60, 80), tokens=10_000)))
    text = [i for i in range(480, 640) if i % CONTEXT != 0]
    assert ids_of(held_out) == [i for i in text if i % EVERY != 0]


def test_a_token_beyond_the_limit_of_one_hook_is_left_out_at_all_hooks():
    def two_hooks(ids):
        return torch.cat([as_floats(ids), with_sinks(ids + 1)], dim=-1)

    batches = leaving_out(harvest(two_hooks, widths=(D_IN, D_IN)))
    given = set(itertools.chain(*(ids_of(next(batches)) for _ in range(100))))
    assert not [i for i in given if (i + 1) % EVERY == 0]
    assert [i for i in given if i % EVERY == 0]


def test_the_share_of_outliers_is_known_and_survives_a_resumption():
    straight = leaving_out()
    for _ in range(200):
        next(straight)
    text = [i for i in range(480) if i % CONTEXT != 0]
    assert straight.outliers == pytest.approx(sum(i % EVERY == 0 for i in text) / len(text), abs=0.01)
    resumed = batches_of(harvest(with_sinks))
    resumed.leave_out(straight.harvest.outlier_norms)
    resumed.load(json.loads(json.dumps(straight.state())))
    assert resumed.outliers == straight.outliers
    for _ in range(50):
        assert torch.equal(next(resumed), next(straight))
    assert (resumed.outliers, resumed.state()) == (straight.outliers, straight.state())
