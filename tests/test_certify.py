"""Certifying an SAE: what was meant is found by name, measured as evaluation does, and repaired only when asked."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from run_job import events, run_job
from tiny_models import LINES, tiny_model
from torch import Tensor
from transformers import AutoModelForCausalLM

from mistudiod.engine.calibrate import calibrated
from mistudiod.engine.certify import Bench, Body, Declared, Tried, clearly_better, values_at
from mistudiod.engine.lm import load_lm
from mistudiod.engine.measure import measure
from mistudiod.engine.norms import normalized, restored
from mistudiod.engine.rules import JumpReLURule, TopKRule
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.engine.tokens import TokenWindows
from mistudiod.engine.ways import UNNORMED, Size, Way, factors, fold_factors, meant, near_hooks, single_ways
from mistudiod.paths import Paths
from mistudiod.specs import Certify
from mistudiod.worker.link import Refused

HOOK, WIDTH, K, CONTEXT = "blocks.1.hook_resid_post", 32, 8, 32  # as wide as the model: only then can it be transposed


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a model that leans on BOS, as most large ones do, and text with and without it."""
    home = tmp_path_factory.mktemp("certify")
    lean_on_bos(tiny_model("llama", home / "model"))
    (home / "text.txt").write_text("\n\n".join(LINES) * 100)
    data = home / "data"
    run_job(data, "add_model", source=str(home / "model"), name="m")
    run_job(data, "add_dataset", source=str(home / "text.txt"), name="d")
    for bos in ("always", "never"):
        run_job(data, "tokenize", name=bos, dataset="d", model="m", context=CONTEXT, bos=bos, held_out=0.3)
    return data


@pytest.fixture
def data(made: Path, tmp_path: Path) -> Path:
    """A copy to add SAEs to."""
    shutil.copytree(made, tmp_path / "data")
    return tmp_path / "data"


def lean_on_bos(folder: Path) -> None:
    """Let the first block's values of BOS be large: whatever attends to it carries them on."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    block = model.model.layers[0]
    with torch.no_grad():
        bos = block.input_layernorm(model.model.embed_tokens(torch.tensor(0)))
        values = block.self_attn.v_proj.weight
        values += torch.outer(torch.ones(len(values)), bos / bos.square().sum()) * 6
    model.save_pretrained(folder)


def activations(data: Path, tokenization: str, hook: str) -> Tensor:
    """Of the training windows' text, (n, d), as they are measured."""
    lm = load_lm(model_folder(data))
    windows = TokenWindows(data / "tokens" / tokenization)
    rows = windows.rows(np.arange(min(windows.train, 300)))
    x = lm.activations(torch.from_numpy(rows), hook).bfloat16().float()
    return x[torch.from_numpy(~windows.special_mask(rows))]


def model_folder(data: Path) -> Path:
    return Path(json.loads((data / "models" / "m" / "model.json").read_text())["path"])


def trained(x: Tensor, norm: str = "none", centred: bool = True, width: int = WIDTH) -> SparseAutoencoder:
    """A small top-k autoencoder of activations x (n, d), learned by automatic differentiation."""
    random = torch.Generator().manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(width, x.shape[1], generator=random), dim=1)
    b_dec = normalized(norm, x).mean(0)
    sae = SparseAutoencoder(rows.t().clone(), torch.zeros(width), rows, b_dec, TopKRule(K), centred=centred, norm=norm)
    if not centred:
        sae.b_enc = -b_dec @ sae.W_enc
    weights = [sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec]
    adam = torch.optim.Adam([weight.requires_grad_() for weight in weights], lr=5e-3)
    for _ in range(500):
        some = x[torch.randint(len(x), (512,), generator=random)]
        read = normalized(norm, some)
        z = sae.rule.latents((read - sae.b_dec if centred else read) @ sae.W_enc + sae.b_enc)
        loss = (restored(norm, z @ sae.W_dec + sae.b_dec, some) - some).square().sum() / some.var(0).sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
    for weight in weights:
        weight.requires_grad_(False)
    return sae


def put(data: Path, sae: SparseAutoencoder, hook: str = HOOK, bos: bool = True, name: str = "s", **more: Any) -> Path:
    """The SAE as one that was brought in: nothing is known of it but what it says; ``more`` is of its recipe."""
    folder = data / "saes" / name
    sae.save(folder, {"hook_name": hook, "prepend_bos": bos})
    recipe = {
        "sae": name,
        "hook": hook,
        "hook_out": None,
        "width": sae.d_sae,
        "model": {"name": "m"},
        "spec": {"hook": hook, "hook_out": None, "tokenization": None},
        "resolved": {},
        "imported": {"source": "somewhere", "declared": {"l0": K}, "notes": []},
    }
    (folder / "recipe.json").write_text(json.dumps(recipe | more))
    return folder


def certified(data: Path, **fields: Any) -> dict[str, Any]:
    return run_job(data, "certify", **{"sae": "s", "tokenization": "always", **fields})


def scaled(sae: SparseAutoencoder, factor: float) -> SparseAutoencoder:
    """The same, for activations that come multiplied."""
    return replace(sae, W_enc=sae.W_enc / factor, W_dec=sae.W_dec * factor, b_dec=sae.b_dec * factor)


def jump(sae: SparseAutoencoder, x: Tensor) -> SparseAutoencoder:
    return calibrated(replace(sae, rule=JumpReLURule(torch.zeros(sae.d_sae))), K, lambda: [x])


Wrong = tuple[SparseAutoencoder, dict[str, Any]]  # and what ``put`` is told
WRONG: dict[str, tuple[Callable[[Path], Wrong], dict[str, str]]] = {}  # how it is made, and what is to be found


def wrong(name: str, **changes: str) -> Callable[[Callable[[Path], Any]], None]:
    def add(made: Callable[[Path], Any]) -> None:
        def whole(data: Path) -> Wrong:
            found = made(data)
            return found if isinstance(found, tuple) else (found, {})

        WRONG[name] = whole, changes

    return add


@wrong("the encoder lies the other way round", orientation="W_enc")
def _(data: Path) -> SparseAutoencoder:
    sae = trained(activations(data, "always", HOOK))
    return replace(sae, W_enc=sae.W_enc.t().contiguous())


@wrong("the decoder lies the other way round", orientation="W_dec")
def _(data: Path) -> SparseAutoencoder:
    sae = trained(activations(data, "always", HOOK))
    return replace(sae, W_dec=sae.W_dec.t().contiguous())


@wrong("both matrices lie the other way round", orientation="both")
def _(data: Path) -> SparseAutoencoder:
    sae = trained(activations(data, "always", HOOK))
    return replace(sae, W_enc=sae.W_enc.t().contiguous(), W_dec=sae.W_dec.t().contiguous())


@wrong("b_dec is to be subtracted", b_dec="subtracted")
def _(data: Path) -> SparseAutoencoder:
    return replace(trained(activations(data, "always", HOOK)), centred=False)


@wrong("b_dec is not to be subtracted", b_dec="kept")
def _(data: Path) -> SparseAutoencoder:
    return replace(trained(activations(data, "always", HOOK), centred=False), centred=True)


@wrong("each token is to be normalized to the mean 0 and the deviation 1", normalisation="layer_norm")
def _(data: Path) -> SparseAutoencoder:
    return replace(trained(activations(data, "always", HOOK), norm="layer_norm"), norm="none")


@wrong("each token is to have the same norm", normalisation="constant_norm_rescale")
def _(data: Path) -> SparseAutoencoder:
    return replace(trained(activations(data, "always", HOOK), norm="constant_norm_rescale"), norm="none")


@wrong("no token is to be normalized", normalisation="none")
def _(data: Path) -> SparseAutoencoder:
    return replace(trained(activations(data, "always", HOOK)), norm="constant_norm_rescale")


@wrong("activations are to be scaled to a mean norm of sqrt(d)", normalisation="sqrt_d")
def _(data: Path) -> SparseAutoencoder:
    x = activations(data, "always", HOOK)
    return scaled(trained(x), Size.of(x).factor("sqrt_d"))


@wrong("activations are to be scaled to a mean square norm of 1", normalisation="one")
def _(data: Path) -> SparseAutoencoder:
    x = activations(data, "always", HOOK)
    return scaled(trained(x), Size.of(x).factor("one"))


@wrong("a scale was folded in that was in the weights before", normalisation="undone")
def _(data: Path) -> SparseAutoencoder:
    x = activations(data, "always", HOOK)
    return scaled(trained(x), 1 / Size.of(x).factor("sqrt_d"))


@wrong("the threshold was left on another scale", threshold="over_scale")
def _(data: Path) -> SparseAutoencoder:
    x = activations(data, "always", HOOK) * 1.0
    sae = jump(trained(x), x)
    assert isinstance(sae.rule, JumpReLURule)
    return replace(sae, rule=JumpReLURule(sae.rule.threshold * Size.of(x).factor("sqrt_d") ** 1))


@wrong("the text is to begin with BOS", bos="with")
def _(data: Path) -> Wrong:
    return trained(activations(data, "always", HOOK)), {"bos": False}


@wrong("the text is not to begin with BOS", bos="without")
def _(data: Path) -> Wrong:
    return trained(activations(data, "never", HOOK)), {"bos": True}


@wrong("it reads what goes into the block", hook="blocks.1.hook_resid_pre")
def _(data: Path) -> SparseAutoencoder:
    return trained(activations(data, "always", "blocks.1.hook_resid_pre"))


@wrong("it reads what comes out of the next block", hook="blocks.2.hook_resid_post")
def _(data: Path) -> SparseAutoencoder:
    return trained(activations(data, "always", "blocks.2.hook_resid_post"))


@wrong("two things are mistaken at once", b_dec="subtracted", bos="with")
def _(data: Path) -> Wrong:
    return replace(trained(activations(data, "always", HOOK)), centred=False), {"bos": False}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("tokenization", ["always", "never"])
def test_what_was_meant_is_found_by_name_whichever_text_it_is_run_on(name: str, tokenization: str, data: Path) -> None:
    make, changes = WRONG[name]
    sae, how = make(data)
    put(data, sae, **how)
    found = certified(data, tokenization=tokenization)
    print(found["verdict"], [(o["words"], o["fvu"], o["l0"]) for o in found["tried"][:16]])
    assert (found["holds"], found["best"]["changes"]) == ("other", changes)
    declared, best = found["declared"], found["best"]
    assert best["fvu"] < 0.3
    assert best["fvu"] < 0.8 * declared["fvu"]
    assert best["kl"] < declared["kl"]
    assert found["verdict"][0].startswith("as declared FVU ")
    assert best["words"] in found["verdict"][0]
