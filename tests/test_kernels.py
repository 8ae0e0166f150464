"""The sparse kernels against their dense meaning."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mistudiod.engine import kernels


@st.composite
def matrices_and_k(draw: st.DrawFn) -> tuple[torch.Tensor, int]:
    """A matrix with many equal values, some infinite, and a k that may need none to several stages."""
    width = draw(st.integers(1, 700))
    k = draw(st.integers(1, min(width, 40)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    spread = draw(st.sampled_from([0, 1, 3, 1000]))
    z = torch.randint(-spread, spread + 1, (draw(st.integers(1, 5)), width), generator=generator).float()
    if draw(st.booleans()):
        z[torch.rand(z.shape, generator=generator) < 0.3] = draw(st.sampled_from([math.inf, -math.inf]))
    return z, k


@settings(max_examples=300, deadline=None)
@given(matrices_and_k())
def test_topk_rows_finds_the_values_of_torch_topk_in_distinct_columns(case: tuple[torch.Tensor, int]) -> None:
    z, k = case
    values, columns = kernels.topk_rows(z, k)
    assert torch.equal(values.sort(dim=1).values, z.topk(k, dim=1).values.sort(dim=1).values)
    assert torch.equal(z.gather(1, columns), values)
    assert all(len(set(row)) == k for row in columns.tolist())


def test_topk_rows_is_exact_at_training_width() -> None:
    z = torch.randn(16, 16384 + 3, generator=torch.Generator().manual_seed(0))
    values, columns = kernels.topk_rows(z, 32)
    expected = z.topk(32, dim=1)
    assert torch.equal(values.sort(dim=1).values, expected.values.sort(dim=1).values)
    assert torch.equal(columns.sort(dim=1).values, expected.indices.sort(dim=1).values)


def test_topk_rows_lets_a_nan_through() -> None:
    z = torch.zeros(1, 1000)
    z[0, 613] = math.nan
    values, columns = kernels.topk_rows(z, 3)
    assert values.isnan().sum() == 1
    assert columns[values.isnan()].tolist() == [613]


@pytest.fixture
def layer() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = {"x": (50, 24), "W_enc": (24, 301), "b_enc": (301,), "b_dec": (24,), "W_dec": (301, 24)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def dense(values: torch.Tensor, indices: torch.Tensor, d_sae: int) -> torch.Tensor:
    return torch.zeros(len(values), d_sae, dtype=values.dtype).scatter_(1, indices, values)


@pytest.mark.parametrize("block_rows", [None, 1, 7, 50, 1000])
def test_encoding_in_blocks_is_encoding_whole(layer: dict[str, torch.Tensor], block_rows: int | None) -> None:
    x, W_enc, b_enc, b_dec = (layer[name] for name in ("x", "W_enc", "b_enc", "b_dec"))
    values, indices = kernels.encode_topk(x, W_enc, b_enc, b_dec, 9, block_rows)
    pre = (x - b_dec) @ W_enc + b_enc
    expected = pre.topk(9, dim=1)
    torch.testing.assert_close(
        dense(values, indices, 301), dense(expected.values.relu(), expected.indices, 301), rtol=1e-5, atol=1e-5
    )


def test_encoding_without_b_dec_takes_x_as_it_is(layer: dict[str, torch.Tensor]) -> None:
    x, W_enc, b_enc, b_dec = (layer[name] for name in ("x", "W_enc", "b_enc", "b_dec"))
    centred = kernels.encode_topk(x - b_dec, W_enc, b_enc, None, 9)
    whole = kernels.encode_topk(x, W_enc, b_enc, b_dec, 9)
    assert torch.equal(centred[0], whole[0]) and torch.equal(centred[1], whole[1])


def test_encoding_accepts_a_transposed_weight_and_a_larger_buffer(layer: dict[str, torch.Tensor]) -> None:
    x, W_enc, b_enc, b_dec = (layer[name] for name in ("x", "W_enc", "b_enc", "b_dec"))
    plain = kernels.encode_topk(x, W_enc, b_enc, b_dec, 9)
    rows_first = W_enc.t().contiguous().t()
    other = kernels.encode_topk(x, rows_first, b_enc, b_dec, 9, 16, torch.full((16 * 301 + 5,), math.nan))
    torch.testing.assert_close(dense(*other, 301), dense(*plain, 301), rtol=1e-5, atol=1e-5)


def test_fewer_than_k_positive_pre_activations_leave_zeros_and_no_negatives() -> None:
    x, W_enc = torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, -1.0, -3.0], [0.0, 0.0, 0.0]])
    values, indices = kernels.encode_topk(x, W_enc, torch.zeros(3), None, 2)
    assert dense(values, indices, 3).tolist() == [[2.0, 0.0, 0.0]]
    assert values.min() == 0


def test_sparse_decoding_is_dense_decoding(layer: dict[str, torch.Tensor]) -> None:
    x, W_enc, b_enc, b_dec, W_dec = (layer[name] for name in ("x", "W_enc", "b_enc", "b_dec", "W_dec"))
    values, indices = kernels.encode_topk(x, W_enc, b_enc, b_dec, 9)
    expected = dense(values, indices, 301) @ W_dec
    torch.testing.assert_close(kernels.decode_topk(values, indices, W_dec), expected, rtol=1e-5, atol=1e-4)
    with_bias = kernels.decode_topk(values, indices, W_dec, b_dec)
    torch.testing.assert_close(with_bias, expected + b_dec, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("d_in", "d_sae"), [(12, 90), (8192, 96), (8192, 101), (300_000, 3)])
def test_sums_by_latent_are_the_dense_product_whatever_the_pieces(d_in: int, d_sae: int) -> None:
    generator = torch.Generator().manual_seed(2)
    tokens, k = 40, 3
    indices = torch.rand(tokens, d_sae, generator=generator)[:, : d_sae // 2 + 2].topk(k, dim=1).indices  # many silent
    weights = torch.randn(tokens, k, generator=generator)
    table = torch.randn(tokens, d_in, generator=generator)
    out = torch.full((d_sae, d_in), math.nan)
    bias = torch.full((d_sae,), math.nan)
    active = kernels.rows_active(weights, indices)
    entries = kernels.by_latent(active, d_sae)
    kernels.sum_by_latent(entries, active.values, table, out)
    kernels.bias_by_latent(entries, active.values, bias)
    share = dense(weights, indices, d_sae).t()  # (d_sae, tokens)
    torch.testing.assert_close(out, share @ table, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(bias, share.sum(1), rtol=1e-5, atol=1e-5)


def test_entries_are_the_active_pairs_in_order_of_latent() -> None:
    entries = kernels.by_latent(kernels.rows_active(torch.ones(2, 2), torch.tensor([[4, 0], [0, 2]])), 5)
    assert entries.order.tolist() == [1, 2, 3, 0]
    assert entries.tokens.tolist() == [0, 1, 1, 0]
    assert entries.starts.tolist() == [0, 2, 2, 3, 3, 4]


@pytest.mark.parametrize("d_in", [5, 100_000])
def test_what_remains_of_a_gradient_is_orthogonal_to_its_row(d_in: int) -> None:
    generator = torch.Generator().manual_seed(3)
    W = torch.nn.functional.normalize(torch.randn(7, d_in, generator=generator, dtype=torch.float64))
    gradient = torch.randn(7, d_in, generator=generator, dtype=torch.float64)
    before = gradient.clone()
    kernels.remove_along_rows(gradient, W)
    assert (gradient * W).sum(1).abs().max() < 1e-12
    torch.testing.assert_close(gradient + (before * W).sum(1, keepdim=True) * W, before)


def test_tokens_may_have_any_number_of_active_latents() -> None:
    starts, latents = torch.tensor([0, 2, 2, 5, 6]), torch.tensor([4, 0, 0, 2, 4, 1])
    active = kernels.Active(torch.arange(1.0, 7.0), latents, starts)
    assert active.tokens().tolist() == [0, 0, 2, 2, 2, 3]
    part = active.part(slice(1, 3))
    assert part.starts.tolist() == [0, 0, 3] and part.latents.tolist() == [0, 2, 4]
    whole = torch.zeros(4, 5).index_put_((active.tokens(), latents), active.values)
    W_dec = torch.randn(5, 7, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(kernels.decode_entries(active, W_dec), whole @ W_dec)
    torch.testing.assert_close(kernels.decode_entries(part, W_dec), whole[1:3] @ W_dec)
    out, table = torch.empty(5, 7), torch.randn(4, 7, generator=torch.Generator().manual_seed(4))
    kernels.sum_by_latent(kernels.by_latent(active, 5), active.values, table, out)
    torch.testing.assert_close(out, whole.t() @ table)
