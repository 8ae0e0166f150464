"""What we save loads in SAELens itself and computes the same there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from autoencoders import adam_of, perturbed, rebuilt_from, sparse_data, train
from saelens import ask_saelens, needs_saelens
from torch import Tensor

from mistudiod.engine.calibrate import calibrated
from mistudiod.engine.rules import TopKRule
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.worker.train_measure import CALIBRATED

METADATA: dict[str, object] = {
    "model_name": "pico",
    "hook_name": "blocks.1.hook_resid_post",
    "prepend_bos": True,
    "context_size": 128,
    "exclude_special_tokens": True,
    "dataset": "stories",
    "hook_name_out": "blocks.1.hook_mlp_out",
}
# Ours → SAELens' name for what we save.
THEIR_NAME = {
    "topk": "topk",
    "batchtopk": "jumprelu",
    "matryoshka": "jumprelu",
    "jumprelu": "jumprelu",
    "standard": "standard",
    "gated": "gated",
    "transcoder": "jumprelu_transcoder",
    "topk_transcoder": "jumprelu_transcoder",
    "transcoder skip": "jumprelu_skip_transcoder",
}

pytestmark = needs_saelens


def trained_sae(kind: str) -> tuple[SparseAutoencoder, Tensor, int]:
    """An SAE after some training on scaled activations, activations as the model has them, and d_out."""
    name, _, option = kind.partition(" ")
    sae = perturbed(name, d_in=48, d_sae=512, k=16, dead_after_tokens=1000, skip=option == "skip")
    x = sparse_data(600, 48, 4)
    train(sae, adam_of(sae, 1e-2), range(30))
    made = sae.to_sae(0.3, METADATA, 0.5 if sae.transcodes else None)
    x = x / 0.3
    return (calibrated(made, 16, lambda: [x]) if name in CALIBRATED else made), x, sae.d_out


@pytest.mark.timeout(300)
def test_saelens_loads_every_folder_and_computes_the_same(tmp_path: Path) -> None:
    saes = {kind: trained_sae(kind) for kind in THEIR_NAME}
    for kind, (sae, _, _) in saes.items():
        sae.save(tmp_path / kind, sparsity=torch.full((512,), 16 / 512))
    x = next(iter(saes.values()))[1]
    y = [rebuilt_from(x * 0.3, d_out) / 0.5 if sae.transcodes else x for sae, _, d_out in saes.values()]
    found = ask_saelens([tmp_path / kind for kind in saes], [x] * len(saes), y, tmp_path)
    for (kind, (sae, _, d_out)), theirs in zip(saes.items(), found, strict=True):
        named = {name: METADATA[name] for name in ("model_name", "hook_name", "prepend_bos", "context_size")}
        expected = {**named, "architecture": THEIR_NAME[kind], "d_in": 48, "d_sae": 512}
        expected["training_architecture"] = kind.partition(" ")[0]
        assert expected.items() <= theirs.read.items(), kind
        assert theirs.read["k"] == (16 if kind == "topk" else None)
        if sae.transcodes:
            assert theirs.read["d_out"] == d_out and theirs.read["hook_name_out"] == METADATA["hook_name_out"]
        torch.testing.assert_close(theirs.W_dec, sae.W_dec, rtol=1e-6, atol=1e-6)
        ours = sae.encode(x)
        tolerance = 1e-5 * ours.max().item()
        agree = ((ours - theirs.z).abs() <= tolerance).all(1)
        if not agree.all():  # another choice is right only where a pre-activation lies on the edge
            centred = x - sae.b_dec if sae.centred else x
            pre = (centred @ sae.W_enc + sae.b_enc)[~agree]
            if isinstance(sae.rule, TopKRule):
                edge = pre.topk(16, dim=1).values[:, -1:]
            else:
                edge = getattr(sae.rule, "threshold", torch.zeros(512))[None]
            by_one = (ours[~agree] > 0) != (theirs.z[~agree] > 0)
            assert ((pre - edge).abs()[by_one] <= tolerance).all(), kind
        assert agree.float().mean() > 0.99, kind
        rebuilt = sae.decode(ours, x)
        assert (rebuilt - theirs.rebuilt)[agree].abs().max() <= 2e-5 * rebuilt.abs().max(), kind
