"""The native step against plain torch and brute force, at odd shapes and with numbers that are none."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from autoencoders import NEVER, batch, new, perturbed, reference, sparse_data
from hatchling.builders.wheel import WheelBuilder
from hypothesis import given, settings
from hypothesis import strategies as st

from mistudiod.engine import native
from mistudiod.engine.adam import Adam
from mistudiod.engine.architectures import ARCHITECTURES
from mistudiod.engine.kernels import Active
from mistudiod.engine.sparse import SparseStep

LIBRARY = native.library()
pytestmark = pytest.mark.skipif(LIBRARY is None, reason="there is no C compiler")
PRECISIONS = [False] + [True] * bool(LIBRARY and LIBRARY.has_bf16)  # whether candidates are of bf16 products
TOPK_FAMILY = ("topk", "batchtopk", "matryoshka", "transcoder", "topk_transcoder")


def step(in_bf16: bool) -> SparseStep:
    assert LIBRARY is not None
    return SparseStep(LIBRARY, in_bf16)


def dense(active: Active, width: int) -> torch.Tensor:
    """(tokens, width); a latent that stands in for one that is missing has value 0."""
    out = torch.zeros(len(active.starts) - 1, width)
    return out.index_put_((active.tokens(), active.latents.long()), active.values, accumulate=True)


def strongest(z: torch.Tensor, k: int) -> torch.Tensor:
    best = z.topk(k, dim=1)
    return torch.zeros_like(z).scatter_(1, best.indices, best.values.relu())


@st.composite
def problems(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
    """x, W and a bias, of any widths; pre-activations have many ties, and may all be negative or not finite."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    tokens, d, width = draw(st.integers(1, 30)), draw(st.integers(1, 90)), draw(st.integers(1, 700))
    k = draw(st.sampled_from([1, min(2, width), min(33, width), width]))
    spread = draw(st.sampled_from([0, 1, 3]))  # products of small whole numbers are exact, in bf16 too
    x, W = (torch.randint(-spread, spread + 1, (n, d), generator=generator).float() for n in (tokens, width))
    bias = torch.full((width,), draw(st.sampled_from([0.0, 1.0, -1e4])))
    if draw(st.booleans()):
        bias[torch.rand(width, generator=generator) < 0.2] = draw(st.sampled_from([math.inf, -math.inf]))
    return x, W, bias, k


@pytest.mark.parametrize("in_bf16", PRECISIONS)
@settings(max_examples=150, deadline=None)
@given(problems())
def test_the_strongest_latents_are_those_of_torch_topk(
    in_bf16: bool, problem: tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]
) -> None:
    x, W, bias, k = problem
    one = step(in_bf16)
    active = one.strongest(one.inputs(x, None), W, bias, k)
    z = x @ W.t() + bias
    values = active.values.view(len(x), k)
    expected = z.topk(k, dim=1).values.relu()
    assert torch.equal(values.sort(dim=1).values, expected.sort(dim=1).values)
    fires = active.values > 0
    assert torch.equal(z[active.tokens()[fires], active.latents.long()[fires]], active.values[fires])
    pairs = active.tokens()[fires] * len(W) + active.latents[fires]
    assert len(pairs.unique()) == len(pairs)


@pytest.mark.parametrize("in_bf16", PRECISIONS)
@settings(max_examples=150, deadline=None)
@given(problems())
def test_the_best_of_a_batch_are_the_largest_and_no_token_has_too_many(
    in_bf16: bool, problem: tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]
) -> None:
    x, W, bias, k = problem
    one, most = step(in_bf16), min(4 * k, len(W))
    active = one.strongest_of_batch(one.inputs(x, None), W, bias, k, most)
    z = x @ W.t() + bias
    expected = z.topk(most, dim=1).values.flatten().topk(k * len(x)).values.relu()
    assert torch.equal(active.values.sort().values, expected.sort().values)
    assert active.starts[0] == 0 and active.starts[-1] == k * len(x) and active.starts.diff().max() <= most
    assert torch.equal(z[active.tokens(), active.latents.long()].relu(), active.values)


@pytest.mark.parametrize("in_bf16", PRECISIONS)
@pytest.mark.parametrize(("d", "width"), [(512, 4096), (129, 5000)])
def test_candidates_in_bf16_leave_no_latent_out(in_bf16: bool, d: int, width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x, W = torch.randn(200, d, generator=generator), torch.randn(width, d, generator=generator)
    bias, one = 0.1 * torch.randn(width, generator=generator), step(in_bf16)
    expected = strongest((x.double() @ W.double().t() + bias), 32).float()
    found = dense(one.strongest(one.inputs(x, None), W, bias, 32), width)
    assert torch.equal(found > 0, expected > 0) and one.unsure == 0
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
    best = one.strongest_of_batch(one.inputs(x, None), W, bias, 32, 128)
    threshold = (x @ W.t() + bias).flatten().topk(32 * 200).values[-1]
    assert best.values.min() == pytest.approx(threshold.item(), rel=1e-5)


@pytest.mark.parametrize("in_bf16", PRECISIONS)
@pytest.mark.parametrize("name", TOPK_FAMILY)
@pytest.mark.parametrize(("d_in", "d_sae", "k", "tokens"), [(200, 700, 8, 65), (33, 130, 1, 1), (8, 12, 12, 7)])
def test_native_gradients_are_those_of_automatic_differentiation(
    in_bf16: bool, name: str, d_in: int, d_sae: int, k: int, tokens: int
) -> None:
    sae = perturbed(name, d_in=d_in, d_sae=d_sae, k=k)
    sae._step = step(in_bf16)
    x, y = batch(sae, tokens, 5)
    for _ in range(2):  # the second in memory that has been used
        result = sae.loss_and_grads(x, y)
    loss, grads = reference(sae, x, y)
    if tokens > 1:  # one token has no variance
        assert result.loss.item() == pytest.approx(loss.item(), rel=1e-5)
        for one, expected in grads.items():
            error = torch.linalg.vector_norm(result.grads[one] - expected) / torch.linalg.vector_norm(expected)
            assert error < 1e-5, f"{one} is off by {error:.1e}"
    norms = torch.stack([torch.linalg.vector_norm(grad) for grad in result.grads.values()])
    assert result.norm.item() == pytest.approx(torch.linalg.vector_norm(norms).item(), rel=1e-4)
    assert result.silent is not None
    for one in ("W_enc_T", "W_dec"):
        assert torch.equal(result.grads[one].any(1) == 0, result.silent.bool()) or tokens == 1


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_native_and_plain_steps_train_alike(name: str) -> None:
    runs = []
    for plain in (False, True):
        sae = new(name, d_in=24, d_sae=200, k=4, dead_after_tokens=500)
        if plain:
            sae._step = None
        adam = Adam(sae, 1e-3)
        if plain:
            adam._library = None
        for number in range(30):
            result = sae.loss_and_grads(*batch(sae, 64, number))
            adam.update(result, 1e-3)
        moments = {
            f"{one} {part}": tensor for one in sae.params for part, tensor in adam.state[sae.params[one]].items()
        }
        runs.append(({**sae.params, **moments}, result))
    (native_state, native_result), (plain_state, plain_result) = runs
    assert native_result.loss.item() == pytest.approx(plain_result.loss.item(), rel=1e-3)
    assert native_state.keys() == plain_state.keys()
    for one, tensor in plain_state.items():
        if "exp" not in one:
            error = torch.linalg.vector_norm(native_state[one] - tensor) / torch.linalg.vector_norm(tensor)
            assert error < 5e-3, f"{one} is off by {error:.1e}"


def test_adam_is_that_of_torch_and_gives_decoder_rows_unit_norm() -> None:
    one, two = new("topk", d_in=20, d_sae=90), new("topk", d_in=20, d_sae=90)
    ours = Adam(one, 1e-3)
    theirs = torch.optim.Adam(list(two.params.values()), lr=1e-3, eps=6.25e-10, fused=True)
    for number in range(20):
        x, lr = sparse_data(8, 20, number), 1e-3 * (number + 1)  # so few tokens that most latents are silent
        ours.update(one.loss_and_grads(x), lr)
        result = two.loss_and_grads(x)
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(grad) for grad in result.grads.values()]))
        for name, parameter in two.params.items():
            parameter.grad = result.grads[name] / (norm / two.clip_norm).clamp(min=1)
        theirs.param_groups[0]["lr"] = lr
        theirs.step()
        two.after_step()
    for name, parameter in one.params.items():
        torch.testing.assert_close(parameter, two.params[name], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(torch.linalg.vector_norm(one.params["W_dec"], dim=1), torch.ones(90))


@pytest.mark.parametrize("name", TOPK_FAMILY)
def test_two_runs_give_the_same_bits_and_other_threads_nearly_the_same(name: str) -> None:
    ends, threads = [], torch.get_num_threads()
    try:
        for count in (1, 1, 3):
            torch.set_num_threads(count)
            sae = new(name, d_in=80, d_sae=300, k=5, dead_after_tokens=300)
            adam = Adam(sae, 1e-3)
            for number in range(12):
                adam.update(sae.loss_and_grads(*batch(sae, 50, number)), 1e-3)
            ends.append({one: tensor.clone() for one, tensor in sae.state_dict().items()})
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(ends[1][one], tensor) for one, tensor in ends[0].items())
    for one in ("W_enc_T", "W_dec"):  # b_dec goes through products of torch's, which have their own order
        torch.testing.assert_close(ends[2][one], ends[0][one], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("in_bf16", PRECISIONS)
@pytest.mark.parametrize("name", TOPK_FAMILY)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 3e38])
def test_a_number_that_is_none_ends_as_a_loss_that_is_none(in_bf16: bool, name: str, bad: float) -> None:
    for everywhere in (False, True):
        sae = perturbed(name, d_in=80, d_sae=300, k=5, dead_after_tokens=40)
        sae._step = step(in_bf16)
        x, y = batch(sae, 50, 1)
        x[slice(None) if everywhere else 7, 3] = bad
        result = sae.loss_and_grads(x, y)
        assert not math.isfinite(result.loss.item()) or not math.isfinite(result.norm.item()) or bad == 3e38
        Adam(sae, 1e-3).update(result, 1e-3)
        sae.loss_and_grads(x, y)


def test_values_of_a_few_latents_are_those_of_the_latest_batch() -> None:
    for name in ARCHITECTURES:
        for plain in (False, True):
            sae = perturbed(name, d_in=16, d_sae=80, k=6)
            if plain:
                sae._step = None
            x, y = batch(sae, 70, 3)
            result = sae.loss_and_grads(x, y)
            every = sae.values_of(torch.arange(80))
            assert every.shape == (70, 80)
            assert ((every > 0).sum() / 70).item() == pytest.approx(result.l0.item(), rel=1e-4)
            some = torch.tensor([41, 3, 79])
            torch.testing.assert_close(sae.values_of(some), every[:, some])


def test_a_wheel_carries_the_sources() -> None:
    builder = WheelBuilder(str(native.SOURCES.parents[2]))
    carried = {Path(file.distribution_path).name for file in builder.recurse_included_files()}
    assert {file.name for file in native.SOURCES.iterdir()} <= carried


WITHOUT_A_COMPILER = """
import logging
logging.basicConfig()
from mistudiod.engine import native
from autoencoders import new, sparse_data
assert native.library() is None and native.library() is None
sae = new("topk")
assert sae._step is None
print(sae.loss_and_grads(sparse_data(64, 16, 0)).loss.item())
"""


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = os.environ | {"PYTHONPATH": path} | environment
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)


def test_without_a_compiler_plain_torch_does_the_work_and_the_log_says_so_once(tmp_path: Path) -> None:
    ran = run(WITHOUT_A_COMPILER, PATH=str(tmp_path), XDG_CACHE_HOME=str(tmp_path))
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.count("plain torch") == 1 and "no C compiler (cc) on the PATH" in ran.stderr
    assert float(ran.stdout) == pytest.approx(new("topk").loss_and_grads(sparse_data(64, 16, 0)).loss.item(), rel=1e-5)


def test_a_compiler_that_fails_is_named_and_leaves_nothing_behind(tmp_path: Path) -> None:
    compiler = tmp_path / "bin" / "cc"
    compiler.parent.mkdir()
    compiler.write_text("#!/bin/sh\necho 'x.c:1: error: no such header' >&2\nexit 1\n")
    compiler.chmod(0o755)
    ran = run(WITHOUT_A_COMPILER, PATH=str(compiler.parent), XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert ran.returncode == 0, ran.stderr
    assert "no such header" in ran.stderr and not list((tmp_path / "cache").rglob("*.so"))


def test_what_is_compiled_is_kept_and_where_it_cannot_be_it_works_all_the_same(tmp_path: Path) -> None:
    code = "from mistudiod.engine import native; assert native.library()"
    assert run(code, XDG_CACHE_HOME=str(tmp_path)).returncode == 0
    (kept,) = (tmp_path / "mistudio").iterdir()
    made = kept.stat().st_mtime_ns
    assert run(code, XDG_CACHE_HOME=str(tmp_path)).returncode == 0
    assert kept.stat().st_mtime_ns == made and list((tmp_path / "mistudio").iterdir()) == [kept]
    (tmp_path / "file").touch()
    ran = run(code, XDG_CACHE_HOME=str(tmp_path / "file"))
    assert ran.returncode == 0, ran.stderr


def test_dead_latents_are_brought_back_by_native_code_with_exact_gradients() -> None:
    sae = perturbed("topk", d_in=80, d_sae=500, k=8, dead_after_tokens=1000)
    sae.tokens = 1000
    sae.tokens_since_fired[:200] = 1000
    sae.params["b_enc"][:200] -= 5
    sae.params["b_enc"][:100] += 4.5
    x = sparse_data(64, 80, 5)
    fresh = sae.tokens_since_fired.clone()
    result = sae.loss_and_grads(x)
    dead, sae.tokens_since_fired = sae.dead, fresh
    assert result.aux_loss.item() > 0
    loss, grads = reference(sae, x, None, dead)
    assert result.loss.item() == pytest.approx(loss.item(), rel=1e-5)
    for one, expected in grads.items():
        error = torch.linalg.vector_norm(result.grads[one] - expected) / torch.linalg.vector_norm(expected)
        assert error < 1e-5, f"{one} is off by {error:.1e}"
    norms = torch.stack([torch.linalg.vector_norm(grad) for grad in result.grads.values()])
    assert result.norm.item() == pytest.approx(torch.linalg.vector_norm(norms).item(), rel=1e-4)
    sae.settings = type(sae.settings)(8, NEVER)  # and without AuxK the rows are zero again
    again = sae.loss_and_grads(x)
    assert not again.grads["W_dec"][dead].any() and not again.grads["W_enc_T"][dead].any()
