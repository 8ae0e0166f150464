"""One pass of extraction against a plain loop over every token."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mistudiod.engine.extract import Extraction

D_SAE, K, T = 12, 3, 5


def plain(batches: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]], examples: int):
    """For each latent: how often it fired, the sum, and its windows by strongest activation."""
    fired, total = [0] * D_SAE, [0.0] * D_SAE
    best: list[dict[int, float]] = [{} for _ in range(D_SAE)]
    for values, latents, windows, _ in batches:
        for row in range(len(values)):
            for value, latent in zip(values[row].tolist(), latents[row].tolist(), strict=True):
                if value > 0:
                    fired[latent] += 1
                    total[latent] += value
                    window = int(windows[row])
                    best[latent][window] = max(best[latent].get(window, 0.0), value)
    top = [sorted(found.values(), reverse=True)[:examples] for found in best]
    return fired, total, top


def random_batches(seed: int, count: int) -> list[tuple[torch.Tensor, ...]]:
    generator = torch.Generator().manual_seed(seed)
    batches, window = [], 0
    for _ in range(count):
        n = 4 * T
        latents = torch.stack([torch.randperm(D_SAE, generator=generator)[:K] for _ in range(n)])
        values = torch.rand(n, K, generator=generator).sub(0.3).clamp_min(0)
        windows = window + torch.arange(4).repeat_interleave(T)
        batches.append((values, latents, windows, torch.arange(T).repeat(4)))
        window += 4
    return batches


@given(st.integers(0, 1000), st.integers(1, 4), st.integers(1, 7))
@settings(deadline=None, max_examples=40)
def test_counts_sums_and_strongest_windows_are_those_of_a_plain_loop(seed: int, count: int, examples: int) -> None:
    batches = random_batches(seed, count)
    extraction = Extraction(D_SAE, examples)
    for batch in batches:
        extraction.add(*batch)
    fired, total, top = plain(batches, examples)
    assert extraction.fired.tolist() == fired
    torch.testing.assert_close(extraction.total, torch.tensor(total, dtype=torch.float64))
    for latent in range(D_SAE):
        kept = extraction.window[latent] >= 0
        assert extraction.best[latent][kept].tolist() == top[latent]
        assert len(set(extraction.window[latent][kept].tolist())) == int(kept.sum()), "a window counts once"


def test_the_position_is_where_the_latent_is_strongest() -> None:
    extraction = Extraction(2, 1)
    values, latents = torch.tensor([[0.5], [2.0], [1.0]]), torch.tensor([[1], [1], [1]])
    extraction.add(values, latents, torch.tensor([7, 7, 7]), torch.tensor([3, 4, 5]))
    assert (extraction.best[1, 0].item(), int(extraction.window[1, 0]), int(extraction.position[1, 0])) == (2.0, 7, 4)


def test_strongest_leaves_out_latents_that_never_fire_or_fire_everywhere() -> None:
    extraction = Extraction(3, 2)
    extraction.tokens = 1000
    extraction.fired = torch.tensor([900, 5, 0])
    extraction.best[:, 0] = torch.tensor([9.0, 1.0, 0.0])
    assert extraction.strongest(10).tolist() == [1]


def test_strongest_prefers_latents_that_are_strong_in_every_window_kept() -> None:
    extraction = Extraction(3, 2)
    extraction.tokens, extraction.fired = 1000, torch.tensor([4, 4, 4])
    extraction.best = torch.tensor([[9.0, 1.0], [3.0, 2.0], [9.5, 1.0]])
    assert extraction.strongest(2).tolist() == [1, 2]
