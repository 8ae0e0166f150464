"""The measures against their formulas, written out whole in numpy."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike, NDArray
from tensors_made import Made

from mistudiod.engine.activations import Harvest
from mistudiod.engine.baselines import RandomDictionary, pca_fvu, random_dictionary_fvu
from mistudiod.engine.calibrate import calibrated
from mistudiod.engine.held_out import HeldOut, harvest_held_out, most_tokens
from mistudiod.engine.measure import decoder_cosine, density_histogram, measure
from mistudiod.engine.rules import JumpReLURule, TopKRule
from mistudiod.engine.sae import SparseAutoencoder


def activations(tokens: int, d_in: int = 10, seed: int = 0, offset: float = 3.0) -> torch.Tensor:
    """Correlated activations away from the origin."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(d_in, d_in, generator=torch.Generator().manual_seed(9)) * torch.linspace(2, 0.1, d_in)
    return torch.randn(tokens, d_in, generator=generator) @ mix.t() + offset


def random_sae(x: torch.Tensor, d_sae: int = 30, k: int = 4) -> SparseAutoencoder:
    d_in = x.shape[1]
    W_dec = torch.nn.functional.normalize(torch.randn(d_sae, d_in, generator=torch.Generator().manual_seed(1)))
    b_enc = torch.zeros(d_sae)
    b_enc[:3] = -1e6  # never fire
    return SparseAutoencoder(W_dec.t().clone(), b_enc, W_dec, x.mean(0), TopKRule(k))


def same(batches: Iterable[torch.Tensor]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """What an SAE is to rebuild is what it reads."""
    return ((x, x) for x in batches)


def fvu(x: torch.Tensor, x_hat: np.ndarray) -> float:
    target = x.double().numpy()
    return float(((target - x_hat) ** 2).sum() / ((target - target.mean(0)) ** 2).sum())


def test_measures_are_their_formulas() -> None:
    x = activations(200)
    sae = random_sae(x, k=15)
    z = sae.encode(x).double()
    x_hat = (z @ sae.W_dec.double() + sae.b_dec.double()).numpy()
    found = measure(sae, [(x, x)])
    assert found.fvu == pytest.approx(fvu(x, x_hat), rel=1e-5)
    assert found.l0 == pytest.approx((z > 0).sum(1).double().mean().item())
    assert found.alive == pytest.approx((z > 0).any(0).double().mean().item()) and found.alive <= 27 / 30
    assert found.tokens == 200
    target = x.double().numpy()
    cosines = (target * x_hat).sum(1) / np.linalg.norm(target, axis=1) / np.linalg.norm(x_hat, axis=1)
    assert found.cosine == pytest.approx(cosines.mean(), rel=1e-6)
    assert torch.equal(found.fired, (z > 0).sum(0))


def test_measures_do_not_depend_on_how_the_tokens_are_split() -> None:
    x = activations(200)
    sae = random_sae(x)
    whole, split = measure(sae, [(x, x)]), measure(sae, same(x.split(17)))
    assert split.fvu == pytest.approx(whole.fvu, rel=1e-5)
    assert (split.l0, split.alive, split.tokens) == (whole.l0, whole.alive, whole.tokens)
    assert split.cosine == pytest.approx(whole.cosine)


def test_predicting_the_mean_scores_one_however_far_it_lies_from_the_origin() -> None:
    x = activations(500, offset=1000.0)
    sae = random_sae(x)
    sae.b_enc.fill_(-1e6)
    found = measure(sae, same(x.split(50)))
    assert found.fvu == pytest.approx(1, abs=1e-4)
    assert (found.l0, found.alive) == (0, 0)


def test_a_batch_of_one_token_counts_like_any_other() -> None:
    x = activations(40)
    sae = random_sae(x)
    assert measure(sae, same(x.split(1))).fvu == pytest.approx(measure(sae, [(x, x)]).fvu, rel=1e-5)


@pytest.mark.parametrize("batches", [[], [torch.ones(5, 10)]])
def test_without_variance_there_is_no_measure(batches: list[torch.Tensor]) -> None:
    with pytest.raises(ValueError, match=r"no activations|no variance"):
        measure(random_sae(activations(20)), same(batches))


def test_activations_that_are_not_finite_are_refused() -> None:
    x = activations(20)
    sae = random_sae(x)
    x[3, 4] = float("nan")
    with pytest.raises(ValueError, match="not all finite"):
        measure(sae, [(x, x)])


@pytest.mark.parametrize("n_components", [0, 1, 4, 10])
def test_pca_is_fitted_on_train_and_judged_on_test(n_components: int) -> None:
    train, test = activations(300, seed=1), activations(150, seed=2)
    mean = train.double().numpy().mean(0)
    axes = np.linalg.svd(train.double().numpy() - mean, full_matrices=False)[2][:n_components]
    x_hat = (test.double().numpy() - mean) @ axes.T @ axes + mean
    found = pca_fvu(train.split(64), test.split(31), n_components)
    assert found == pytest.approx(fvu(test, x_hat), rel=1e-9, abs=1e-12)


def test_pca_with_all_components_leaves_nothing_and_with_none_nearly_all() -> None:
    train, test = activations(5000, seed=1, offset=1e4), activations(5000, seed=2, offset=1e4)
    assert pca_fvu([train], [test], 10) < 1e-12
    assert pca_fvu([train], [test], 0) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("n_components", [-1, 11])
def test_more_components_than_dimensions_are_refused(n_components: int) -> None:
    x = activations(20)
    with pytest.raises(ValueError, match="between 0 and d_in"):
        pca_fvu([x], [x], n_components)


def test_pca_without_training_activations_is_refused() -> None:
    with pytest.raises(ValueError, match="no activations to fit"):
        pca_fvu([], [activations(20)], 2)


@pytest.mark.parametrize("k", [1, 4, 10])
def test_random_dictionary_is_least_squares_on_the_best_aligned_atoms(k: int) -> None:
    x, mean = activations(300, seed=3), activations(300, seed=4).mean(0)
    generator = torch.Generator().manual_seed(6)
    atoms = torch.nn.functional.normalize(torch.randn(50, 10, generator=generator, dtype=torch.float64)).numpy()
    about = (x.double() - mean.double()).numpy()
    rows = []
    for row in about:
        chosen = atoms[np.argsort(-np.abs(atoms @ row))[:k]]
        rows.append(chosen.T @ np.linalg.lstsq(chosen.T, row, rcond=None)[0])
    found = random_dictionary_fvu(x.split(70), mean, d_sae=50, k=k, seed=6)
    assert found == pytest.approx(fvu(x, np.array(rows) + mean.double().numpy()), rel=1e-4, abs=1e-6)


def test_random_dictionary_depends_on_nothing_but_its_seed() -> None:
    x = activations(100)
    mean = x.mean(0)
    first = random_dictionary_fvu([x], mean, 50, 4, seed=0)
    assert random_dictionary_fvu(x.split(9), mean, 50, 4, seed=0) == pytest.approx(first, rel=1e-12)
    assert random_dictionary_fvu([x], mean, 50, 4, seed=1) != first


def test_a_random_dictionary_is_in_memory_once() -> None:
    with Made() as made:
        atoms = RandomDictionary.of(torch.zeros(10), d_sae=50, k=4, seed=6).atoms
    assert {one.data_ptr() for one in made.tensors if one.numel() >= 50 * 10} == {atoms.data_ptr()}
    drawn = torch.randn(50, 10, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    assert torch.equal(atoms, drawn / torch.linalg.vector_norm(drawn, dim=1, keepdim=True))


@pytest.mark.parametrize(("d_sae", "k"), [(50, 0), (50, 11), (3, 4)])
def test_a_k_that_least_squares_cannot_use_is_refused(d_sae: int, k: int) -> None:
    x = activations(20)
    with pytest.raises(ValueError, match="between 1 and the smaller"):
        random_dictionary_fvu([x], x.mean(0), d_sae, k, seed=0)


def test_shrinkage_dense_latents_and_copies_are_seen() -> None:
    x = activations(300)
    sae = random_sae(x, k=15)
    found = measure(sae, same(x.split(70)))
    z = sae.encode(x)
    x_hat, target = sae.decode(z).double(), x.double()
    ratio = torch.linalg.vector_norm(x_hat, dim=1) / torch.linalg.vector_norm(target, dim=1)
    assert found.l2_ratio == pytest.approx(ratio.mean().item(), rel=1e-6)
    assert found.bias == pytest.approx((x_hat.square().sum() / (x_hat * target).sum()).item(), rel=1e-5)
    assert found.dense == pytest.approx(((z > 0).double().mean(0) > 0.1).double().mean().item())
    rows = sae.W_dec @ sae.W_dec.t() - 2 * torch.eye(30)
    assert decoder_cosine(sae) == pytest.approx(rows.amax(1).mean().item(), rel=1e-5)
    sae.W_dec[1::2] = sae.W_dec[::2]
    assert decoder_cosine(sae) == pytest.approx(1)


def test_the_density_histogram_counts_every_latent_once() -> None:
    fired = torch.tensor([0, 0, 1, 10, 99, 100, 1_000_000, 316_228, 0])
    found = density_histogram(fired, 1_000_000)
    assert found["never"] == 3
    assert found["log10_edges"] == [edge / 2 for edge in range(-12, 1)]
    assert found["latents"] == [1, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 2]
    json.dumps(found, allow_nan=False)
    assert density_histogram(torch.tensor([1]), 10**9)["latents"][0] == 1  # type: ignore[index]


@pytest.mark.parametrize("k", [0.5, 3, 17.3, 29])
@pytest.mark.parametrize("guess", [0.0, 1.0, 123.0])
def test_the_threshold_is_found_among_any_number_of_values_in_fixed_memory(k: float, guess: float) -> None:
    x = activations(2000)
    sae = replace(random_sae(x), rule=JumpReLURule(torch.full((30,), guess)))
    passes: list[int] = []

    def batches() -> Iterator[torch.Tensor]:
        passes.append(1)
        return iter(x.split(333))

    found = calibrated(sae, k, batches)
    values = replace(sae, rule=JumpReLURule(torch.zeros(30))).encode(x).flatten()
    values = values[values > 0].sort(descending=True).values
    wanted = round(k * 2000)
    expected = values[wanted].item() if wanted < len(values) else 0.0
    assert (
        isinstance(found.rule, JumpReLURule)
        and found.rule.threshold.tolist() == [pytest.approx(expected, rel=1e-6)] * 30
    )
    assert (found.encode(x) > 0).sum() == min(wanted, len(values))
    assert len(passes) <= 3


def test_a_threshold_needs_tokens() -> None:
    sae = replace(random_sae(activations(20)), rule=JumpReLURule(torch.zeros(30)))
    with pytest.raises(ValueError, match="no activations to calibrate on"):
        calibrated(sae, 3, list)


# -- held-out activations --------------------------------------------------------------------------------------------


class Numbered:
    """Windows of 8 tokens that say where they are; the first of each, and all but two of every fifth, are special."""

    context = 8

    def rows(self, indices: ArrayLike) -> NDArray[np.int64]:
        return np.asarray(indices)[:, None] * 8 + np.arange(8)

    def special_mask(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        return (rows % 8 == 0) | ((rows // 8 % 5 == 0) & (rows % 8 > 2))


def held_out(windows: int, tokens: int, drop: int = 0) -> HeldOut:
    """From activations that are the window's number in two digits of base 64, and the position in it.

    Tokens whose position ``drop`` divides are outliers.
    """

    class Dropping(Harvest):
        def batches(self, numbers: NDArray[np.integer]) -> Iterator[torch.Tensor]:
            for x in super().batches(numbers):
                yield x[x[:, 3] % drop != 0] if drop else x

    def forward(ids: torch.Tensor) -> torch.Tensor:
        return torch.stack([0 * ids, ids // 8 // 64, ids // 8 % 64, ids % 8], dim=-1).float()

    harvest = Dropping(Numbered(), forward, [4])  # type: ignore[arg-type]
    return harvest_held_out(harvest, np.arange(100, 100 + windows), tokens, slice(1, 4), lambda came: None)


def test_a_threshold_is_chosen_on_other_windows_than_it_is_measured_on() -> None:
    found = held_out(4000, 10_000)
    assert found.apart and found.calibration.shape[1] == found.test.shape[1] == 3
    one, other = (set((part[:, 0] * 64 + part[:, 1]).long().tolist()) for part in (found.calibration, found.test))
    assert not one & other and abs(len(one) - len(other)) <= 1
    assert 9_900 < len(found.calibration) + len(found.test) <= 10_000
    assert max(one) > 3800 + 100 - 1 > 500 > min(one)  # from everywhere
    assert found.outliers == 0
    assert all(torch.equal(held_out(4000, 10_000).test, found.test) for _ in range(2))


def test_of_little_text_all_is_used_for_both() -> None:
    found = held_out(50, 10_000)
    assert not found.apart and torch.equal(found.calibration, found.test)
    assert len(found.test) == 40 * 7 + 10 * 2


def test_outliers_are_counted() -> None:
    found = held_out(50, 10_000, drop=3)
    numbers = torch.arange(800, 1200)
    text = numbers[~torch.from_numpy(Numbered().special_mask(numbers.numpy()))]
    assert found.outliers == pytest.approx((text % 8 % 3 == 0).double().mean().item())


def test_what_is_kept_is_bounded() -> None:
    assert most_tokens(512) == 65_536 and most_tokens(1 << 20) == 16_384
