"""What a trained SAE is worth, on held-out text, beside what costs nothing to beat."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mistudiod.engine.activations import ActivationBatches
from mistudiod.engine.calibrate import calibrated
from mistudiod.engine.measure import measure, pca_fvu, random_dictionary_fvu
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.specs import Train
from mistudiod.worker.link import Link
from mistudiod.worker.train_source import Source, held_out_windows

RANDOM_TOKENS = 8_192  # of those for the random dictionary, whose least squares cost k^2 d_in a token
CALIBRATED = ("batchtopk", "matryoshka", "transcoder", "topk_transcoder")  # architectures of one threshold


def measured(
    sae: SparseAutoencoder, batches: ActivationBatches, spec: Train, source: Source, link: Link
) -> tuple[SparseAutoencoder, dict[str, Any], Tensor]:
    """The SAE with its threshold, the measures for the recipe, and each latent's firing share (d_sae,).

    Beside it: as many principal components as latents fire, and a random dictionary of its width and k; nothing is
    beside a transcoder.
    """
    n = source.held_out_tokens
    calibrating = spec.architecture[0] in CALIBRATED
    total = n * (1 + calibrating) + (0 if spec.hook_out else n + min(n, RANDOM_TOKENS))
    done = 0

    def held_out(tokens: int) -> Iterator[Tensor]:
        nonlocal done
        for x in batches.harvest.first(np.array(held_out_windows(source.windows)), tokens):
            yield x
            done += len(x)
            link.progress("measure", min(done, total), total, "tokens")

    link.progress("measure", 0, total, "tokens")
    if calibrating:
        sae = calibrated(sae, spec.k[0], lambda: (x[:, source.read] for x in held_out(n)))
    found = measure(sae, ((x[:, source.read], x[:, source.rebuilt]) for x in held_out(n)))
    pca = random = None
    if not spec.hook_out:
        block = batches.sample()[:, source.read]  # training activations that are at hand
        pca = pca_fvu(
            torch.split(block, 4096), (x[:, source.read] for x in held_out(n)), min(round(found.l0), sae.d_in)
        )
        mean, k = block.mean(0, dtype=torch.float64), min(spec.k[0], sae.d_in)
        some = (x[:, source.read] for x in held_out(RANDOM_TOKENS))
        random = random_dictionary_fvu(some, mean, sae.d_sae, k, spec.seed[0])
    measures = {
        "sae": spec.name,
        "architecture": spec.architecture[0],
        "hook": spec.hook[0],
        "hook_out": spec.hook_out,
        "width": spec.width[0],
        "k": spec.k[0],
        "fvu": found.fvu,
        "l0": found.l0,
        "alive": found.alive,
        "pca_fvu": pca,
        "random_fvu": random,
        "held_out_tokens": found.tokens,
    }
    return sae, measures, found.fired.double() / found.tokens
