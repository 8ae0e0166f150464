"""What every autoencoder in training does, shown on TopK: its beginning, its memory, dead latents, determinism."""

from __future__ import annotations

import pytest
import torch
from autoencoders import NEVER, adam_of, new, perturbed, reference, sparse_data, train

from mistudiod.engine.architectures import ARCHITECTURES
from mistudiod.engine.architectures.step import Settings, Shape
from mistudiod.engine.architectures.topk import TopK


def begun(mean: torch.Tensor | None = None, d_in: int = 16, d_sae: int = 80, k: int = 3, dead: int = NEVER) -> TopK:
    return TopK.init(Shape(d_in, d_sae, d_in), Settings(k, dead), 0, mean)


def test_gradients_hold_where_fewer_than_k_latents_fire() -> None:
    topk = perturbed("topk", d_in=16, d_sae=32, k=16)
    topk.params["b_enc"] -= 0.7
    x = sparse_data(64, 16, 5)
    loss, grads = reference(topk, x, None)
    result = topk.loss_and_grads(x)
    assert 0 < result.l0.item() < 16
    assert result.loss.item() == pytest.approx(loss.item(), rel=1e-5)
    for name, grad in grads.items():
        torch.testing.assert_close(result.grads[name], grad.float(), rtol=1e-4, atol=1e-6)
    assert not result.loss.requires_grad


def test_two_runs_from_one_seed_are_bit_equal() -> None:
    one, two, other = new("topk"), new("topk"), new("topk", seed=1)
    losses = train(one, adam_of(one), range(30))
    assert losses == train(two, adam_of(two), range(30))
    assert all(torch.equal(one.params[name], two.params[name]) for name in one.params)
    assert losses[0] != train(other, adam_of(other), range(1))[0]


def test_loading_a_state_keeps_the_tensors_that_the_optimizer_holds() -> None:
    topk, other = new("topk"), new("topk", seed=1)
    before = {name: param.data_ptr() for name, param in topk.params.items()}
    topk.load_state_dict(other.state_dict())
    assert {name: param.data_ptr() for name, param in topk.params.items()} == before
    assert torch.equal(topk.params["W_dec"], other.params["W_dec"])


def test_a_state_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="topk SAE of d_in 16 and d_sae 80"):
        new("topk").load_state_dict(new("topk", d_sae=81).state_dict())


def test_the_decoder_gradient_has_no_component_along_its_rows() -> None:
    topk = new("topk")
    train(topk, adam_of(topk), range(10))
    result = topk.loss_and_grads(sparse_data(64, 16, 1))
    gradient, W_dec = result.grads["W_dec"], topk.params["W_dec"]
    assert (gradient * W_dec).sum(1).abs().max() < 1e-6 * torch.linalg.vector_norm(gradient)


def test_training_begins_with_tied_unit_rows_and_the_given_mean() -> None:
    mean = torch.arange(16.0)
    topk = begun(mean)
    assert torch.equal(topk.params["W_enc_T"], topk.params["W_dec"])
    torch.testing.assert_close(torch.linalg.vector_norm(topk.params["W_dec"], dim=1), torch.ones(80))
    assert torch.equal(topk.params["b_dec"], mean) and not topk.params["b_enc"].any()
    topk.params["b_dec"] += 1
    assert torch.equal(mean, torch.arange(16.0)), "the caller's tensor is its own"
    assert begun().params["b_dec"].tolist() == [0.0] * 16


@pytest.mark.parametrize(("d_in", "k_aux"), [(64, 32), (192, 128), (768, 512), (2, 2)])
def test_auxk_uses_the_power_of_two_nearest_half_the_input_width(d_in: int, k_aux: int) -> None:
    assert begun(d_in=d_in, d_sae=4, k=2).k_aux == k_aux


def test_a_latent_is_dead_once_it_was_silent_for_long_enough_and_alive_when_it_fires() -> None:
    topk = begun(d_in=4, d_sae=4, k=1, dead=6)
    topk.params["W_enc_T"].copy_(torch.eye(4))
    first, second = torch.eye(4)[[0, 0, 0]] + 0.01, torch.eye(4)[[1, 1, 1]] + 0.01
    topk.loss_and_grads(first)
    assert topk.tokens_since_fired.tolist() == [0, 3, 3, 3] and not topk.dead.any()
    topk.loss_and_grads(first)
    assert topk.dead.tolist() == [False, True, True, True]
    topk.loss_and_grads(second)
    assert topk.tokens_since_fired.tolist() == [3, 0, 9, 9]
    assert topk.dead.tolist() == [False, False, True, True]


def test_a_chosen_latent_without_a_positive_value_has_not_fired() -> None:
    topk = begun(d_in=4, d_sae=4, k=4, dead=6)
    topk.params["b_enc"] -= 100
    topk.loss_and_grads(torch.randn(5, 4, generator=torch.Generator().manual_seed(0)))
    assert topk.tokens_since_fired.tolist() == [5, 5, 5, 5]


def test_training_explains_sparse_data() -> None:
    topk = new("topk", dead_after_tokens=2000)
    losses = train(topk, adam_of(topk, 1e-2), range(400), tokens=256)
    assert losses[-1] < 0.2 < 0.6 < losses[0]


def test_auxk_brings_dead_latents_back() -> None:
    dead = []
    for dead_after_tokens in (640, 10**9):
        topk = new("topk", dead_after_tokens=dead_after_tokens)
        topk.params["b_enc"][:40] -= 1.5
        train(topk, adam_of(topk), range(300), tokens=128)
        dead.append(int((topk.tokens_since_fired >= 640).sum()))
    assert dead[0] < dead[1] / 2


def test_gradients_live_in_the_same_memory_at_every_step() -> None:
    topk = new("topk")
    first = {name: grad.data_ptr() for name, grad in topk.loss_and_grads(sparse_data(64, 16, 0)).grads.items()}
    train(topk, adam_of(topk), range(10))
    last = {name: grad.data_ptr() for name, grad in topk.loss_and_grads(sparse_data(48, 16, 0)).grads.items()}
    assert first == last


def test_a_batch_of_equal_tokens_gives_finite_gradients() -> None:
    for name in ARCHITECTURES:
        sae = new(name)
        x = torch.ones(8, 16)
        result = sae.loss_and_grads(x, torch.ones(8, 19) if sae.transcodes else None)
        assert all(grad.isfinite().all() for grad in result.grads.values())


def test_the_sae_is_a_copy() -> None:
    topk = new("topk")
    sae = topk.to_sae(4.0, {"hook_name": "blocks.0.hook_resid_post"})
    kept = sae.W_dec.clone()
    train(topk, adam_of(topk), range(2))
    assert torch.equal(sae.W_dec, kept)
    assert sae.metadata == {"hook_name": "blocks.0.hook_resid_post", "training_architecture": "topk"}
