"""Every architecture: gradients against automatic differentiation, memory, determinism, and the SAE that it leaves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from autoencoders import NEVER, adam_of, batch, new, perturbed, reference, sparse_data, train

from mistudiod.engine import native
from mistudiod.engine.architectures import ARCHITECTURES, TrainingSae
from mistudiod.engine.architectures.step import StepResult
from mistudiod.engine.calibrate import calibrated
from mistudiod.engine.rules import JumpReLURule, TopKRule
from mistudiod.engine.sae import SparseAutoencoder


@pytest.fixture(params=["native", "plain"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """In native code where there is a compiler, and in plain torch, as where there is none and on a GPU."""
    if request.param == "plain":
        monkeypatch.setattr(native, "library", lambda: None)


KINDS = [*ARCHITECTURES, "jumprelu tanh", "transcoder skip"]


def given(kind: str) -> tuple[str, dict[str, object]]:
    name, _, option = kind.partition(" ")
    return name, {"tanh": {"tanh": 0.01}, "skip": {"skip": True}}.get(option, {})


def made(kind: str, **more: object) -> TrainingSae:
    name, options = given(kind)
    return perturbed(name, **options, **more)  # type: ignore[arg-type]


def assert_matches(result: StepResult, loss: torch.Tensor, grads: dict[str, torch.Tensor]) -> None:
    assert result.loss.item() == pytest.approx(loss.item(), rel=1e-5)
    for name, expected in grads.items():
        error = torch.linalg.vector_norm(result.grads[name] - expected) / torch.linalg.vector_norm(expected)
        assert error < 1e-5, f"{name} is off by {error:.1e}"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("d_in", "d_sae", "k", "tokens"), [(16, 64, 4, 96), (24, 500, 8, 64), (8, 12, 3, 40)])
def test_gradients_are_those_of_automatic_differentiation(
    kind: str, d_in: int, d_sae: int, k: int, tokens: int
) -> None:
    sae = made(kind, d_in=d_in, d_sae=d_sae, k=k)
    x, y = batch(sae, tokens, 5)
    loss, grads = reference(sae, x, y)
    result = sae.loss_and_grads(x, y)
    assert set(grads) == set(sae.params) and result.aux_loss.item() == 0
    assert_matches(result, loss, grads)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_with_auxk_are_those_of_automatic_differentiation(kind: str) -> None:
    sae = made(kind, d_in=24, d_sae=500, k=8, dead_after_tokens=1000)
    sae.tokens = 1000
    sae.tokens_since_fired[:200] = 1000
    sae.params["b_enc"][:200] -= 5  # they stay silent on this batch...
    if "b_mag" in sae.params:
        sae.params["b_mag"][:200] -= 5
    sae.params["b_enc"][:100] += 4.5  # ...while some of them have pre-activations above zero
    x, y = batch(sae, 64, 5)
    fresh = sae.tokens_since_fired.clone()
    result = sae.loss_and_grads(x, y)
    dead, sae.tokens_since_fired = sae.dead, fresh
    assert 0 < dead.sum() <= 200 and result.aux_loss.item() > 0
    assert_matches(result, *reference(sae, x, y, dead))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("micro_tokens", [1, 24, 64])
def test_a_batch_taken_in_parts_gives_the_same_gradients(kind: str, micro_tokens: int) -> None:
    whole, parts = (made(kind, d_in=24, d_sae=500, k=8, dead_after_tokens=1000) for _ in range(2))
    for sae in (whole, parts):
        sae.tokens = 1000
        sae.tokens_since_fired[:200] = 1000
        sae.params["b_enc"][:200] -= 2
    x, y = batch(whole, 64, 5)
    expected, result = whole.loss_and_grads(x, y), parts.loss_and_grads(x, y, micro_tokens)
    assert result.loss.item() == pytest.approx(expected.loss.item(), rel=1e-5)
    assert result.l0.item() == pytest.approx(expected.l0.item())
    assert torch.equal(parts.tokens_since_fired, whole.tokens_since_fired)
    for name, grad in expected.grads.items():
        torch.testing.assert_close(result.grads[name], grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_training_continued_from_a_state_is_bit_equal_to_training_through(kind: str) -> None:
    name, options = given(kind)
    through = new(name, dead_after_tokens=100, **options)
    adam = adam_of(through)
    losses = train(through, adam, range(10))
    state = {one: tensor.clone() for one, tensor in through.state_dict().items()}
    moments = {one: {part: value.clone() for part, value in adam.state[p].items()} for one, p in through.params.items()}
    losses += train(through, adam, range(10, 20))
    assert all(torch.isfinite(torch.tensor(losses)))

    resumed = new(name, seed=5, dead_after_tokens=100, **options)
    resumed.load_state_dict(state)
    again = adam_of(resumed)
    for one, param in resumed.params.items():
        again.state[param] = moments[one]
    assert train(resumed, again, range(10, 20)) == losses[10:]
    end, expected = resumed.state_dict(), through.state_dict()
    assert all(torch.equal(end[one], expected[one]) for one in expected)


@pytest.mark.parametrize("kind", KINDS)
def test_the_sae_does_what_was_trained_on_activations_as_the_model_has_them(kind: str, tmp_path: Path) -> None:
    sae = made(kind, k=4)
    train(sae, adam_of(sae), range(50), tokens=256)
    x, y = batch(sae, 256, 3)
    result = sae.loss_and_grads(x, y)
    target = x if y is None else y
    assert result.fvu.item() == pytest.approx(
        ((sae._buffers["residual"][:256]).square().sum() / (target - target.mean(0)).square().sum()).item(), rel=1e-4
    )
    saved = sae.to_sae(4.0, {"hook_name": "blocks.0.hook_resid_post"}, 2.0 if sae.transcodes else None)
    if isinstance(saved.rule, JumpReLURule) and sae.name != "jumprelu":
        saved = calibrated(saved, result.l0.item(), lambda: [x / 4])
    saved.save(tmp_path / "sae", sparsity=torch.ones(80))
    loaded = SparseAutoencoder.load(tmp_path / "sae")
    values, latents = loaded.encode_active(x / 4)
    # the batch's own threshold is the calibrated one only where no token has too many
    assert (values > 0).sum().item() / 256 == pytest.approx(result.l0.item(), rel=0.01)
    rebuilt = loaded.decode_active(values, latents, x / 4) * (2 if sae.transcodes else 4)
    fvu = (rebuilt - target).square().sum() / (target - target.mean(0)).square().sum()
    assert fvu.item() == pytest.approx(result.fvu.item(), rel=0.15 if "topk_transcoder" in kind else 1e-2)
    torch.testing.assert_close(loaded.encode(x / 4), saved.encode(x / 4), rtol=1e-5, atol=1e-5)
    dense = torch.zeros(256, 80).scatter_add_(1, latents, values)
    torch.testing.assert_close(dense, loaded.encode(x / 4), rtol=1e-5, atol=1e-5)
    assert loaded.metadata["training_architecture"] == sae.name


@pytest.mark.parametrize("kind", KINDS)
def test_decoder_rows_keep_unit_norm_and_training_goes_down(kind: str) -> None:
    sae = made(kind, d_in=16, d_sae=80, k=4, dead_after_tokens=2000)
    losses = train(sae, adam_of(sae, 1e-2), range(300), tokens=256)
    assert losses[-1] < 0.5 * losses[0]
    torch.testing.assert_close(torch.linalg.vector_norm(sae.params["W_dec"], dim=1), torch.ones(80))


def test_jumprelu_keeps_to_the_latents_that_it_aims_at() -> None:
    sae = new("jumprelu", d_in=16, d_sae=80, k=4, dead_after_tokens=NEVER)
    train(sae, adam_of(sae, 1e-2), range(300), tokens=256)
    assert sae.loss_and_grads(sparse_data(2048, 16, 1)).l0.item() == pytest.approx(4, rel=0.1)


def test_a_batchtopk_token_takes_as_many_latents_as_it_needs() -> None:
    sae = perturbed("batchtopk", d_in=16, d_sae=80, k=4)
    x = torch.cat([sparse_data(32, 16, 1), 0.02 * sparse_data(32, 16, 2) + sae.params["b_dec"]])
    batch_ = sae.loss_and_grads(x)
    assert batch_.l0.item() == pytest.approx(4, rel=0.01)
    values, _ = calibrated(sae.to_sae(1.0, {}), 4, lambda: [x]).encode_active(x)
    fired = (values > 0).sum(1)
    assert fired[:32].float().mean() > 6 > 2 > fired[32:].float().mean()


@pytest.mark.parametrize("guess", [0.0, 1e-9, 0.3, 50.0])
def test_the_calibrated_threshold_is_exact_whatever_was_guessed(guess: float) -> None:
    sae = perturbed("batchtopk", d_in=16, d_sae=80, k=4).to_sae(1.0, {})
    sae.rule = JumpReLURule(torch.full((80,), guess))
    x = sparse_data(500, 16, 3)
    found = calibrated(sae, 3.5, lambda: x.split(64))
    pre = ((x - sae.b_dec) @ sae.W_enc + sae.b_enc).flatten().sort(descending=True).values
    assert isinstance(found.rule, JumpReLURule) and found.rule.threshold.unique().numel() == 1
    assert pre[1750] <= found.rule.threshold[0] + 1e-6 and found.rule.threshold[0] < pre[1749] + 1e-6
    assert (found.encode(x) > 0).sum() == 1750
    none = calibrated(sae, 79.0, lambda: [x])
    assert isinstance(none.rule, JumpReLURule) and none.rule.threshold[0] == 0


def test_topk_is_saved_as_itself() -> None:
    assert new("topk").to_sae(1.0, {}).rule == TopKRule(3)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_k_beyond_the_width_is_refused(name: str) -> None:
    for k in (0, 81):
        with pytest.raises(ValueError, match="between 1 and d_sae"):
            new(name, k=k)
