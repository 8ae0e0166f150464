"""The TopK trainer: its gradients against automatic differentiation, its memory, its determinism."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mistudiod.engine.architectures.topk import AUX_COEFFICIENT, StepResult, TopK


def sparse_data(tokens: int, d_in: int, seed: int, atoms: int = 40, active: int = 3) -> torch.Tensor:
    """Activations that are sums of a few of some fixed directions, away from the origin."""
    dictionary = torch.nn.functional.normalize(torch.randn(atoms, d_in, generator=torch.Generator().manual_seed(99)))
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.rand(tokens, atoms, generator=generator).topk(active, dim=1).indices
    strengths = 1 + torch.rand(tokens, active, generator=generator)
    return (dictionary[chosen] * strengths[:, :, None]).sum(1) + 0.5


def perturbed(d_in: int, d_sae: int, k: int, seed: int, dead_after_tokens: int) -> TopK:
    """A trainer somewhere in the middle of training: nothing zero, encoder and decoder not tied."""
    topk = TopK.init(d_in, d_sae, k, seed, torch.full((d_in,), 0.5), dead_after_tokens)
    generator = torch.Generator().manual_seed(seed + 1)
    for param in topk.params.values():
        param += 0.05 * torch.randn(param.shape, generator=generator)
    topk.after_step()
    return topk


def reference(topk: TopK, x: torch.Tensor, dead: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Loss and gradients in float64 by automatic differentiation of the dense formula.

    Decoder rows are divided by their norm inside the loss: its gradient is then the projected one.
    """
    params = {name: param.double().requires_grad_() for name, param in topk.params.items()}
    x = x.double()
    W_dec = torch.nn.functional.normalize(params["W_dec"])
    pre = (x - params["b_dec"]) @ params["W_enc_T"].t() + params["b_enc"]

    def decode(z: torch.Tensor, k: int) -> torch.Tensor:
        best = z.topk(k, dim=1)
        return torch.zeros_like(z).scatter(1, best.indices, best.values.relu()) @ W_dec

    x_hat = decode(pre, topk.k) + params["b_dec"]
    loss = (x - x_hat).square().sum() / (x - x.mean(0)).square().sum()
    if dead.any():
        missing = (x - x_hat).detach()
        z = pre.masked_fill(~dead, -torch.inf)
        error = decode(z, min(topk.k_aux, int(dead.sum()))) - missing
        loss = loss + error.square().sum() / (missing - missing.mean(0)).square().sum() / 32
    loss.backward()
    return loss.detach(), {name: param.grad for name, param in params.items() if param.grad is not None}


def assert_gradients_match(result: StepResult, loss: torch.Tensor, grads: dict[str, torch.Tensor]) -> None:
    assert result.loss.item() == pytest.approx(loss.item(), rel=1e-5)
    for name, expected in grads.items():
        error = torch.linalg.vector_norm(result.grads[name] - expected) / torch.linalg.vector_norm(expected)
        assert error < 1e-5, f"{name} is off by {error:.1e}"


@pytest.mark.parametrize(("d_in", "d_sae", "k", "tokens"), [(16, 64, 4, 96), (24, 500, 8, 64), (8, 12, 12, 40)])
def test_gradients_are_those_of_automatic_differentiation(d_in: int, d_sae: int, k: int, tokens: int) -> None:
    topk = perturbed(d_in, d_sae, k, 0, dead_after_tokens=10**9)
    x = sparse_data(tokens, d_in, 5)
    loss, grads = reference(topk, x, torch.zeros(d_sae, dtype=torch.bool))
    result = topk.loss_and_grads(x)
    assert result.aux_loss.item() == 0
    assert_gradients_match(result, loss, grads)


@pytest.mark.parametrize("silenced", [3, 200])
def test_gradients_with_auxk_are_those_of_automatic_differentiation(silenced: int) -> None:
    topk = perturbed(24, 500, 8, 0, dead_after_tokens=1000)
    topk.tokens = 1000
    topk.tokens_since_fired[:silenced] = 1000
    topk.params["b_enc"][:silenced] -= 5  # they stay silent on this batch: few or no positive pre-activations...
    topk.params["b_enc"][: silenced // 2] += 4.5  # ...while others of them have some
    x = sparse_data(64, 24, 5)
    expected_dead = torch.zeros(500, dtype=torch.bool)
    expected_dead[:silenced] = True
    fired = torch.zeros_like(expected_dead)
    pre = (x - topk.params["b_dec"]) @ topk.params["W_enc_T"].t() + topk.params["b_enc"]
    fired[pre.topk(8, dim=1).indices.unique()] = True
    expected_dead &= ~fired
    loss, grads = reference(topk, x, expected_dead)
    result = topk.loss_and_grads(x)
    assert torch.equal(topk.dead, expected_dead)
    assert result.aux_loss.item() > 0
    assert result.loss.item() == pytest.approx(result.fvu.item() + AUX_COEFFICIENT * result.aux_loss.item())
    assert_gradients_match(result, loss, grads)


@pytest.mark.parametrize("micro_tokens", [1, 24, 50, 64, 1000])
def test_a_batch_taken_in_parts_gives_the_same_gradients_with_auxk_and_without(micro_tokens: int) -> None:
    x = sparse_data(64, 24, 5)
    for silenced in (0, 200):
        whole, parts = (perturbed(24, 500, 8, 0, dead_after_tokens=1000) for _ in range(2))
        for topk in (whole, parts):
            topk.tokens = 1000
            topk.tokens_since_fired[:silenced] = 1000
            topk.params["b_enc"][:silenced] -= 2
        expected, result = whole.loss_and_grads(x), parts.loss_and_grads(x, micro_tokens)
        assert (expected.aux_loss.item() > 0) == (silenced > 0)
        assert result.loss.item() == pytest.approx(expected.loss.item(), rel=1e-5)
        assert result.aux_loss.item() == pytest.approx(expected.aux_loss.item(), rel=1e-5)
        assert torch.equal(parts.tokens_since_fired, whole.tokens_since_fired)
        torch.testing.assert_close(result.values, expected.values)
        for name, grad in expected.grads.items():
            torch.testing.assert_close(result.grads[name], grad, rtol=1e-4, atol=1e-6)


def test_gradients_hold_where_fewer_than_k_latents_fire() -> None:
    topk = perturbed(16, 32, 16, 0, dead_after_tokens=10**9)
    topk.params["b_enc"] -= 0.7
    x = sparse_data(64, 16, 5)
    loss, grads = reference(topk, x, torch.zeros(32, dtype=torch.bool))
    result = topk.loss_and_grads(x)
    assert (result.values == 0).any() and (result.values > 0).any()
    assert_gradients_match(result, loss, grads)


def test_a_step_tells_what_it_chose_and_rebuilt() -> None:
    topk = perturbed(16, 64, 4, 0, dead_after_tokens=10**9)
    x = sparse_data(96, 16, 5)
    result = topk.loss_and_grads(x)
    rebuilt = (topk.params["W_dec"][result.indices] * result.values[:, :, None]).sum(1) + topk.params["b_dec"]
    fvu = (x - rebuilt).square().sum() / (x - x.mean(0)).square().sum()
    assert result.fvu.item() == pytest.approx(fvu.item(), rel=1e-5)
    assert not result.values.requires_grad and not result.loss.requires_grad


def train(topk: TopK, adam: torch.optim.Adam, steps: range, tokens: int = 64) -> list[float]:
    losses = []
    for step in steps:
        result = topk.loss_and_grads(sparse_data(tokens, topk.d_in, 1000 + step))
        for name, param in topk.params.items():
            param.grad = result.grads[name]
        adam.step()
        topk.after_step()
        losses.append(result.loss.item())
    return losses


def new(seed: int = 0, dead_after_tokens: int = 100, lr: float = 3e-3) -> tuple[TopK, torch.optim.Adam]:
    topk = TopK.init(16, 80, 3, seed, sparse_data(512, 16, 7).mean(0), dead_after_tokens)
    return topk, torch.optim.Adam(list(topk.params.values()), lr=lr, fused=True)


def test_two_runs_from_one_seed_are_bit_equal() -> None:
    (one, adam_one), (two, adam_two) = new(), new()
    losses = train(one, adam_one, range(30))
    assert losses == train(two, adam_two, range(30))
    assert all(torch.equal(one.params[name], two.params[name]) for name in one.params)
    assert losses[0] != train(*new(seed=1), range(1))[0]


def test_training_continued_from_a_checkpoint_is_bit_equal_to_training_through(tmp_path: Path) -> None:
    through, adam_through = new()
    losses = train(through, adam_through, range(40))
    assert through.dead.any(), "the test means little unless AuxK is at work"

    stopped, adam_stopped = new()
    train(stopped, adam_stopped, range(20))
    save_file(stopped.state_dict(), tmp_path / "state.safetensors")
    optimizer = adam_stopped.state_dict()

    resumed, adam_resumed = new(seed=5)
    resumed.load_state_dict(load_file(tmp_path / "state.safetensors"))
    adam_resumed.load_state_dict(optimizer)
    assert train(resumed, adam_resumed, range(20, 40)) == losses[20:]
    end, expected = resumed.state_dict(), through.state_dict()
    assert end.keys() == expected.keys()
    assert all(torch.equal(end[name], expected[name]) for name in expected)


def test_loading_a_state_keeps_the_tensors_that_the_optimizer_holds() -> None:
    topk, other = TopK.init(16, 80, 3, 0), TopK.init(16, 80, 3, 1)
    before = {name: param.data_ptr() for name, param in topk.params.items()}
    topk.load_state_dict(other.state_dict())
    assert {name: param.data_ptr() for name, param in topk.params.items()} == before
    assert torch.equal(topk.params["W_dec"], other.params["W_dec"])


def test_a_state_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="d_in 16 and d_sae 80"):
        TopK.init(16, 80, 3, 0).load_state_dict(TopK.init(16, 81, 3, 0).state_dict())


def test_decoder_rows_keep_unit_norm_through_training() -> None:
    topk, adam = new()
    train(topk, adam, range(10))
    torch.testing.assert_close(torch.linalg.vector_norm(topk.params["W_dec"], dim=1), torch.ones(80))


def test_the_decoder_gradient_has_no_component_along_its_rows() -> None:
    topk, adam = new()
    train(topk, adam, range(10))
    result = topk.loss_and_grads(sparse_data(64, 16, 1))
    gradient, W_dec = result.grads["W_dec"], topk.params["W_dec"]
    assert (gradient * W_dec).sum(1).abs().max() < 1e-6 * torch.linalg.vector_norm(gradient)


def test_training_begins_with_tied_unit_rows_and_the_given_mean() -> None:
    mean = torch.arange(16.0)
    topk = TopK.init(16, 80, 3, 0, mean)
    assert torch.equal(topk.params["W_enc_T"], topk.params["W_dec"])
    torch.testing.assert_close(torch.linalg.vector_norm(topk.params["W_dec"], dim=1), torch.ones(80))
    assert torch.equal(topk.params["b_dec"], mean) and not topk.params["b_enc"].any()
    topk.params["b_dec"] += 1
    assert torch.equal(mean, torch.arange(16.0)), "the caller's tensor is its own"
    assert TopK.init(16, 80, 3, 0).params["b_dec"].tolist() == [0.0] * 16


@pytest.mark.parametrize("k", [0, 81])
def test_k_beyond_the_width_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match="between 1 and d_sae"):
        TopK.init(16, 80, k, 0)


@pytest.mark.parametrize(("d_in", "k_aux"), [(64, 32), (192, 128), (768, 512), (2, 2)])
def test_auxk_uses_the_power_of_two_nearest_half_the_input_width(d_in: int, k_aux: int) -> None:
    assert TopK.init(d_in, 4, 2, 0).k_aux == k_aux


def test_a_latent_is_dead_once_it_was_silent_for_long_enough_and_alive_when_it_fires() -> None:
    topk = TopK.init(4, 4, 1, 0, dead_after_tokens=6)
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
    topk = TopK.init(4, 4, 4, 0, dead_after_tokens=6)
    topk.params["b_enc"] -= 100
    topk.loss_and_grads(torch.randn(5, 4, generator=torch.Generator().manual_seed(0)))
    assert topk.tokens_since_fired.tolist() == [5, 5, 5, 5]


def test_training_explains_sparse_data() -> None:
    topk, adam = new(dead_after_tokens=2000, lr=1e-2)
    losses = train(topk, adam, range(400), tokens=256)
    assert losses[-1] < 0.2 < 0.6 < losses[0]


def test_auxk_brings_dead_latents_back() -> None:
    dead = []
    for dead_after_tokens in (640, 10**9):
        topk, adam = new(dead_after_tokens=dead_after_tokens)
        topk.params["b_enc"][:40] -= 1.5
        train(topk, adam, range(300), tokens=128)
        dead.append(int((topk.tokens_since_fired >= 640).sum()))
    assert dead[0] < dead[1] / 2


def test_gradients_live_in_the_same_memory_at_every_step() -> None:
    topk, adam = new()
    first = {name: grad.data_ptr() for name, grad in topk.loss_and_grads(sparse_data(64, 16, 0)).grads.items()}
    train(topk, adam, range(10))
    last = {name: grad.data_ptr() for name, grad in topk.loss_and_grads(sparse_data(48, 16, 0)).grads.items()}
    assert first == last


def test_a_batch_of_equal_tokens_gives_finite_gradients() -> None:
    topk, _ = new()
    result = topk.loss_and_grads(torch.ones(8, 16))
    assert all(grad.isfinite().all() for grad in result.grads.values())


def test_the_sae_works_on_activations_as_the_model_has_them() -> None:
    topk, adam = new()
    train(topk, adam, range(20))
    x = sparse_data(64, 16, 3)
    result = topk.loss_and_grads(x)
    sae = topk.to_sae(scale=4.0, metadata={"hook_name": "blocks.0.hook_resid_post"})
    values, indices = sae.encode_topk(x / 4)
    rebuilt = (topk.params["W_dec"][result.indices] * result.values[:, :, None]).sum(1) + topk.params["b_dec"]
    torch.testing.assert_close(sae.decode_topk(values, indices) * 4, rebuilt, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(values.sort(1).values * 4, result.values.sort(1).values, rtol=1e-4, atol=1e-5)
    assert sae.metadata == {"hook_name": "blocks.0.hook_resid_post"}
    kept = sae.W_dec.clone()
    train(topk, adam, range(2))
    assert torch.equal(sae.W_dec, kept), "the SAE is a copy"
