"""Small SAEs in folders as others publish them, with known weights; bringing them in, and what is refused.

from repos_of_saes import hf_home  # noqa: F401, the fixture home
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hub import Hub
from run_job import folders, run_job
from safetensors.torch import save_file
from torch import Tensor

from mistudiod.paths import Paths
from mistudiod.specs import AddSae
from mistudiod.worker import add_sae
from mistudiod.worker.link import Link, Refused

D, F, K = 32, 96, 6  # D is tiny_models' D_MODEL


def weights(seed: int = 0, d: int = D, f: int = F) -> dict[str, Tensor]:
    """W_enc (d, f), W_dec (f, d) of rows of unit norm, b_enc, b_dec, threshold (f,)."""
    random = torch.Generator().manual_seed(seed)
    W_dec = torch.nn.functional.normalize(torch.randn(f, d, generator=random))
    return {
        "W_enc": torch.randn(d, f, generator=random) / d**0.5,
        "W_dec": W_dec,
        "b_enc": 0.1 * torch.randn(f, generator=random),
        "b_dec": 0.1 * torch.randn(d, generator=random),
        "threshold": 0.2 + torch.rand(f, generator=random),
    }


def gemma_scope(folder: Path, seed: int = 0) -> Path:
    """``params.npz`` in ``folder``, which is made."""
    folder.mkdir(parents=True)
    np.savez(folder / "params.npz", **{name: one.numpy() for name, one in weights(seed).items()})
    return folder


def sparsify(folder: Path, seed: int = 0, f: int = F) -> Path:
    """``cfg.json`` and ``sae.safetensors`` in ``folder``, whose name is that of a module."""
    folder.mkdir(parents=True)
    w = weights(seed, f=f)
    config = {"activation": "topk", "expansion_factor": 3, "num_latents": f, "k": K, "d_in": D, "multi_topk": False}
    (folder / "cfg.json").write_text(json.dumps(config))
    state = {"encoder.weight": w["W_enc"].t().contiguous(), "encoder.bias": w["b_enc"]}
    save_file(state | {"W_dec": w["W_dec"], "b_dec": w["b_dec"]}, folder / "sae.safetensors")
    return folder


def dictionary_learning(folder: Path, seed: int = 0, layer: int = 1, model: str = "org/tiny") -> Path:
    """``ae.pt``, a pickle, and ``config.json`` in ``folder``."""
    folder.mkdir(parents=True)
    w = weights(seed)
    state = {"encoder.weight": w["W_enc"].t().contiguous(), "encoder.bias": w["b_enc"]}
    torch.save(state | {"decoder.weight": w["W_dec"].t().contiguous(), "bias": w["b_dec"]}, folder / "ae.pt")
    trainer = {"dict_class": "AutoEncoder", "activation_dim": D, "dict_size": F, "layer": layer, "lm_name": model}
    trainer |= {"submodule_name": f"resid_post_layer_{layer}"}
    (folder / "config.json").write_text(json.dumps({"trainer": trainer}))
    return folder


def gemma_latents(x: Tensor, seed: int = 0) -> Tensor:
    """By Gemma Scope's rule: JumpReLU, b_dec not subtracted. x (tokens, D)."""
    w = weights(seed)
    pre = x @ w["W_enc"] + w["b_enc"]
    return torch.where(pre > w["threshold"], pre, 0.0)


def sparsify_latents(x: Tensor, seed: int = 0) -> Tensor:
    """By sparsify's rule: b_dec subtracted, ReLU, then the K largest."""
    w = weights(seed)
    pre = ((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu()
    kept = torch.zeros_like(pre)
    for row, values in enumerate(pre):
        for latent in values.argsort(descending=True)[:K].tolist():
            kept[row, latent] = values[latent]
    return kept


@pytest.fixture(name="home", autouse=True)
def hf_home(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This machine's Hugging Face home; the Hub is the tests' own."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("mistudiod.worker.hub.FIRST_WAIT_S", 0.05)
    for name, value in hub.environ(tmp_path / "huggingface").items():
        monkeypatch.setenv(name, value)
    return tmp_path / "huggingface"


def add(data: Path, source: Path | str, name: str = "s", **fields: Any) -> dict[str, Any]:
    """recipe.json of what was brought in."""
    run_job(data, "add_sae", source=str(source), name=name, **fields)
    recipe: dict[str, Any] = json.loads((data / "saes" / name / "recipe.json").read_text())
    return recipe


def refused(data: Path, source: Path | str, field: str = "source", token: str | None = None, **fields: Any) -> str:
    """The sentence; nothing of the SAE is left in the studio's folders."""
    link = Link(data, Paths(data), secrets={"hf": token} if token else None)
    with pytest.raises(Refused) as caught:
        add_sae.run(AddSae(source=str(source), name="s", **fields), link)
    assert folders(data, "saes") == []
    assert caught.value.field == field, str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)
