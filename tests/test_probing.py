"""Sparse probing against planted truth: what latents know, what a random dictionary knows, and what is not asked."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from probed import CAPITAL, CONTEXT, D_IN, VOCABULARY, by_window, harvest, random_sae, sample, spell, true_sae

from mistudiod.engine.harvest import Harvest, NoActivations
from mistudiod.engine.logistic import PENALTIES, PENALTY, fit, fit_chosen
from mistudiod.engine.probe_sample import LEAST_DOCUMENTS, NoSample, parted, take
from mistudiod.engine.probe_tasks import TASKS
from mistudiod.engine.probes import probes
from mistudiod.engine.probing import LEAST_TEST, LEAST_TRAIN, Drawn, differences, draw, probed, sparse_probing
from mistudiod.engine.sae import SparseAutoencoder

NAMES = [task.name for task in TASKS]


def of(found, name):
    return next(one for one in found["tasks"] if one["name"] == name)


def test_a_logistic_probe_is_the_least_of_its_loss_as_gradient_descent_finds_it() -> None:
    random = torch.Generator().manual_seed(0)
    x = 3 + torch.randn(300, 4, generator=random, dtype=torch.float64) * torch.tensor([1, 20, 0.1, 0])
    y = (x[:, :2] - x[:, :2].mean(0) + torch.randn(300, 2, generator=random) > 0).double()
    deviation = x.std(0, correction=0)
    inputs = ((x - x.mean(0)) / torch.where(deviation > 0, deviation, 1)).numpy()
    found = fit(x, y, 0.05)
    for column in range(2):
        weights, bias = np.zeros(4), 0.0
        for _ in range(5000):
            off = 1 / (1 + np.exp(-(inputs @ weights + bias))) - y[:, column].numpy()
            weights -= 0.5 * (inputs.T @ off / len(x) + 0.05 * weights)
            bias -= 0.5 * off.mean()
        assert found.scores(x)[:, column].numpy() == pytest.approx(inputs @ weights + bias, abs=1e-5)
    assert found.weights[3].tolist() == [0, 0]  # what never changes says nothing


def test_a_probe_of_classes_that_a_line_parts_is_finite_and_right() -> None:
    x = torch.linspace(-1, 1, 100)[:, None]
    found = fit(x, (x > 0).long(), PENALTY)
    assert found.weights.isfinite().all() and ((found.scores(x) > 0) == (x > 0)).all()


@pytest.mark.parametrize(("inputs", "strength"), [(400, 1.0), (4, 1.0), (400, 0.0)])
def test_a_probe_of_many_inputs_does_not_learn_few_tokens_by_heart(inputs: int, strength: float) -> None:
    random = torch.Generator().manual_seed(1)
    y = torch.arange(2400)[:, None] % 2
    x = torch.randn(2400, inputs, generator=random) + strength * (y - 0.5)
    x[:, 1:] -= strength * (y - 0.5)  # one of them tells, the others are noise
    train, test = slice(0, 400), slice(400, None)
    right = {
        penalty: ((fit(x[train], y[train], penalty).scores(x[test]) > 0) == (y[test] > 0)).double().mean().item()
        for penalty in PENALTIES
    }
    found = ((fit_chosen(x[train], y[train]).scores(x[test]) > 0) == (y[test] > 0)).double().mean().item()
    assert found in right.values() and found >= max(right.values()) - 0.03


def dense(taken, sae: SparseAutoencoder) -> NDArray[np.float64]:
    return sae.encode(taken.x.float()).double().numpy()


@pytest.mark.parametrize("sae", [true_sae(), random_sae(), replace(random_sae(), norm="layer_norm")])
def test_differences_and_columns_are_those_of_all_latents_written_out(sae: SparseAutoencoder) -> None:
    taken = sample(sae, windows=60)
    z = dense(taken, sae)
    tokens = np.flatnonzero(taken.letters >= 0)[::2]
    yes = (taken.letters[tokens] < 10).astype(np.int8)
    deviation = z[tokens].std(0)
    expected = (z[tokens][yes > 0].mean(0) - z[tokens][yes == 0].mean(0)) / np.where(
        deviation > 1e-6, deviation, np.inf
    )
    assert differences(taken, tokens, yes, sae.d_sae) == pytest.approx(expected, abs=1e-4)
    some = np.array([30, 0, 26])
    assert taken.columns(some, tokens).numpy() == pytest.approx(z[tokens][:, some], abs=1e-5)
    assert taken.means(tokens, sae.d_sae) == pytest.approx(z[tokens].mean(0), abs=1e-5)
    if sae.norm == "layer_norm":  # a probe of the activation reads what the SAE reads
        assert taken.activations(tokens).mean(1).numpy() == pytest.approx(0, abs=1e-5)
    else:
        assert torch.equal(taken.activations(tokens).float(), taken.x[tokens].float())


def test_train_and_test_part_have_no_document_or_window_in_common() -> None:
    windows = np.repeat(np.arange(200), 7)
    for documents, unit, of_unit in (
        (windows // 2, "document", windows // 2),
        (windows // (200 // (LEAST_DOCUMENTS - 1) + 1), "window", windows),  # a document too few
    ):
        units, name = parted(documents, windows)
        assert name == unit
        assert not set(of_unit[units < 0]) & set(of_unit[units >= 0])
        assert (units < 0).mean() == pytest.approx(0.6, abs=0.02)
        assert set(units[units >= 0]) == set(range(units.max() + 1))


def test_of_each_question_yes_and_no_are_as_many_and_of_both_parts() -> None:
    taken = sample(true_sae())
    for task, name in enumerate(NAMES):
        drawn = draw(taken, task)
        if isinstance(drawn, str):
            continue
        for tokens, yes, train in ((drawn.train, drawn.train_yes, True), (drawn.test, drawn.test_yes, False)):
            assert yes.sum() * 2 == len(yes) >= 2 * (LEAST_TRAIN if train else LEAST_TEST), name
            assert (taken.answers[tokens, task] == yes).all() and (taken.train[tokens] == train).all()
            assert len(set(tokens)) == len(tokens)


def test_a_latent_that_is_the_direction_of_a_question_answers_it_as_well_as_the_whole_activation() -> None:
    found = sparse_probing(sample(true_sae()), D_IN, print)
    capital = of(found, "capital")
    assert capital["latents"][0] == CAPITAL
    accuracy = {name: one["value"] for name, one in capital["accuracy"].items()}
    assert accuracy["all"] > 0.99 and accuracy["latents 1"] > 0.99
    assert accuracy["numbers 1"] < 0.9  # no number of the activation has the meaning by itself
    low, high = capital["accuracy"]["numbers 1"]["interval"]
    assert low < accuracy["numbers 1"] < high and 0.01 < high - low < 0.2


def test_of_a_random_dictionary_the_best_latent_tells_no_more_than_a_number_of_the_activation() -> None:
    found = sparse_probing(sample(random_sae()), random_sae().d_sae, print)
    capital = {name: one["value"] for name, one in of(found, "capital")["accuracy"].items()}
    assert capital["all"] > 0.99 and capital["latents 1"] < 0.75
    assert found["mean"]["gain 1"]["interval"][0] <= 0


def test_accuracy_and_f1_are_those_of_the_tokens_one_by_one() -> None:
    sae = true_sae()
    taken, task = sample(sae), NAMES.index("vowel")
    drawn = draw(taken, task)
    assert isinstance(drawn, Drawn)
    latents = probed(taken, drawn, sae.d_sae)[1]
    z = torch.from_numpy(dense(taken, sae)[:, latents[:2]])
    probe = fit(z[drawn.train], torch.from_numpy(drawn.train_yes)[:, None])
    says, yes = probe.scores(z[drawn.test])[:, 0].numpy() > 0, drawn.test_yes > 0
    precision, recall = (says & yes).sum() / says.sum(), (says & yes).sum() / yes.sum()
    vowel = of(sparse_probing(taken, sae.d_sae, print), "vowel")
    assert vowel["accuracy"]["latents 2"]["value"] == pytest.approx((says == yes).mean())
    assert vowel["f1"]["latents 2"]["value"] == pytest.approx(2 * precision * recall / (precision + recall))


def all_probes(sae: SparseAutoencoder, windows: int = 300, model: Harvest | None = None, columns=slice(0, D_IN)):
    return probes(model or harvest(), np.arange(windows), columns, sae, spell, by_window, lambda *done: None)


def test_what_is_found_is_the_same_each_time_and_json_ready_and_says_what_it_means_and_where_it_ends() -> None:
    found = all_probes(true_sae())
    assert json.dumps(found, allow_nan=False) == json.dumps(all_probes(true_sae()), allow_nan=False)
    assert "than the numbers they are made of" in found["said"][0] and "chance is 50 %" in found["said"][0]
    assert found["said"][1].startswith("absorption: on 0.0 % of words")
    for part in ("probing", "absorption"):
        assert "light form" in found[part]["limit"] and "SAEBench" in found[part]["limit"] and found[part]["meaning"]
    probing = found["probing"]
    assert {one["name"] for one in probing["tasks"]} | set(probing["left_out"]) == set(NAMES)
    assert "0 tokens with yes" in probing["left_out"]["in brackets"]  # there is none in this text


def test_with_too_little_text_it_is_said_and_nothing_is_made_up() -> None:
    found = all_probes(true_sae(), windows=8)
    assert found["probing"]["mean"] is None and found["probing"]["tasks"] == []
    assert set(found["probing"]["left_out"]) == set(NAMES)
    absorption = found["absorption"]
    assert absorption["measured"] == 0 and absorption["letters"] == []
    assert absorption["rate"] is absorption["silent"] is absorption["split"] is absorption["main_f1"] is None
    assert "measure on more text" in found["said"][0] and found["said"][1].startswith(
        "no absorption: no letter has words"
    )


def test_without_a_token_that_counts_or_with_far_too_many_latents_on_each_there_is_no_sample() -> None:
    model = harvest()
    model.outlier_norms = (0.0,)
    found = all_probes(true_sae(), model=model)
    assert found == {
        "said": ["no probes: the held-out text has no token that counts"], "probing": None, "absorption": None,
    }  # fmt: skip
    rows = torch.eye(D_IN).repeat(32, 1)
    sae = replace(true_sae(), W_enc=rows.t().contiguous(), W_dec=rows, b_enc=torch.full((32 * D_IN,), 100.0))
    sae.rule = replace(sae.rule, threshold=torch.zeros(32 * D_IN))  # type: ignore[type-var]
    assert all_probes(sae)["said"] == ["no probes: 3072 latents fire on a token; probes are for 1000 at most"]


def test_activations_that_are_not_finite_are_an_error() -> None:
    model = harvest()
    model.forward = lambda ids: torch.full((*ids.shape, D_IN), torch.nan)
    with pytest.raises(NoActivations, match="not all finite"):
        all_probes(true_sae(), model=model)


def test_a_sample_is_drawn_of_all_windows_and_is_no_larger_than_asked_for_and_may_read_columns() -> None:
    came: list[int] = []
    plain = sample(true_sae(), tokens=1000)
    wide = Harvest(harvest().windows, lambda ids: torch.cat([harvest().forward(ids) * 9, harvest().forward(ids)], -1),
                   (D_IN, D_IN), lm_tokens=8 * CONTEXT)  # fmt: skip
    beside = take(wide, np.arange(300), slice(D_IN, None), true_sae(), spell, by_window, came.append, 1000)
    assert torch.equal(plain.x, beside.x) and came[-1] == len(plain.x) and 900 < len(plain.x) <= 1000
    assert (plain.starts[-1], len(plain.starts)) == (len(plain.values), 1 + len(plain.x))
    assert [plain.spelling[one] for one in plain.ids] == [VOCABULARY[one] for one in plain.ids]


def test_what_no_sample_can_be_taken_of_is_an_error_of_its_own() -> None:
    model = harvest()
    model.outlier_norms = (0.0,)
    with pytest.raises(NoSample, match="no token that counts"):
        take(model, np.arange(3), slice(0, D_IN), true_sae(), spell, by_window, lambda came: None)
