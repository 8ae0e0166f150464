"""What we save loads in SAELens itself and computes the same there.

sae-lens pins an older transformers than ours, so it lives in an environment of its own: MISTUDIO_SAELENS_PYTHON, or
.venv-saelens in the checkout (python -m venv .venv-saelens, then pip install sae-lens==6.54.12 in it).
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from mistudiod.engine.architectures.topk import TopK
from mistudiod.engine.sae import SparseAutoencoder

ROOT = Path(__file__).parent.parent
PYTHON = Path(os.environ.get("MISTUDIO_SAELENS_PYTHON", ROOT / ".venv-saelens/bin/python"))
METADATA: dict[str, object] = {
    "model_name": "pico",
    "hook_name": "blocks.1.hook_resid_post",
    "prepend_bos": True,
    "context_size": 128,
    "exclude_special_tokens": True,
    "dataset": "stories",
}

pytestmark = pytest.mark.skipif(
    not PYTHON.exists(), reason=f"no sae-lens: {PYTHON} does not exist (set MISTUDIO_SAELENS_PYTHON)"
)


def ask_saelens(folder: Path, x: torch.Tensor, workplace: Path) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    """What SAELens computes on x, and what it read of the config."""
    inputs, outputs = workplace / "inputs.safetensors", workplace / "outputs.safetensors"
    save_file({"x": x}, inputs)
    done = subprocess.run(
        [PYTHON, ROOT / "tests/saelens_check.py", folder, inputs, outputs],
        env={"PATH": os.defpath, "HOME": str(workplace), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with safe_open(outputs, framework="pt") as file:
        read: dict[str, object] = json.loads(file.metadata()["read"])
        return {name: file.get_tensor(name) for name in file.keys()}, read  # noqa: SIM118 (a file is no mapping)


def trained_sae(d_in: int, d_sae: int, k: int) -> tuple[SparseAutoencoder, torch.Tensor]:
    """An SAE after some training on scaled activations, and activations as the model has them."""
    generator = torch.Generator().manual_seed(4)
    mix = torch.randn(d_in, d_in, generator=generator)
    x = torch.randn(600, d_in, generator=generator) @ mix + 2
    scale = 0.3
    topk = TopK.init(d_in, d_sae, k, 0, (x * scale).mean(0), dead_after_tokens=1000)
    adam = torch.optim.Adam(list(topk.params.values()), lr=1e-2, fused=True)
    for _ in range(10):
        result = topk.loss_and_grads(x * scale)
        for name, param in topk.params.items():
            param.grad = result.grads[name]
        adam.step()
        topk.after_step()
    return topk.to_sae(scale, METADATA), x


@pytest.mark.timeout(300)
def test_saelens_loads_the_folder_and_computes_the_same(tmp_path: Path) -> None:
    sae, x = trained_sae(d_in=48, d_sae=512, k=16)
    sae.save(tmp_path / "sae", sparsity=torch.full((512,), 16 / 512))
    theirs, read = ask_saelens(tmp_path / "sae", x, tmp_path)

    expected = {name: METADATA[name] for name in ("model_name", "hook_name", "prepend_bos", "context_size")}
    assert read == {**expected, "architecture": "topk", "d_in": 48, "d_sae": 512, "k": 16, "version": read["version"]}
    assert torch.equal(theirs["W_dec"], sae.W_dec)

    ours = sae.encode(x)
    tolerance = 1e-5 * ours.max().item()
    agree = ((ours - theirs["z"]).abs() <= tolerance).all(1)
    if not agree.all():  # another choice is right only between pre-activations that tie
        pre = ((x - sae.b_dec) @ sae.W_enc + sae.b_enc)[~agree]
        chosen_by_one = (ours[~agree] > 0) != (theirs["z"][~agree] > 0)
        kth = pre.topk(sae.k, dim=1).values[:, -1:]
        assert ((pre - kth).abs()[chosen_by_one] <= tolerance).all()
    assert agree.float().mean() > 0.99
    x_hat = sae.decode(ours)
    assert (x_hat - theirs["x_hat"])[agree].abs().max() <= 1e-5 * x_hat.abs().max()
    assert torch.equal(theirs["forward"], theirs["x_hat"])
