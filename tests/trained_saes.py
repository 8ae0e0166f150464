"""Small SAEs of several kinds, trained in a second, for tests of what becomes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from run_job import run_job
from tiny_models import LINES, tiny_model

from mistudiod.engine.rules import TopKRule
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.paths import Paths
from mistudiod.specs import Extract
from mistudiod.worker import extract
from mistudiod.worker.link import Link
from mistudiod.worker.recipe import sha256_of

HOOK, WIDTH, K = "blocks.1.hook_resid_post", 96, 4
TRAIN: dict[str, Any] = {
    "tokenization": "t", "hook": HOOK, "width": WIDTH, "k": K, "steps": 40, "batch_tokens": 128, "buffer_tokens": 2048,
}  # fmt: skip
TRANSCODER = {"hook": "blocks.1.mlp.hook_in", "hook_out": "blocks.1.hook_mlp_out"}


def make_saes(home: Path) -> Path:
    """A data folder with the SAEs topk, batchtopk and transcoder, and the features of batchtopk."""
    tiny_model("llama", home / "model")
    (home / "text.txt").write_text("\n\n".join(LINES) * 40)
    data = home / "data"
    run_job(data, "add_model", source=str(home / "model"), name="m")
    run_job(data, "add_dataset", source=str(home / "text.txt"), name="d")
    run_job(data, "tokenize", name="t", dataset="d", model="m", context=16)
    run_job(data, "train", name="topk", architecture="topk", **TRAIN)
    run_job(data, "train", name="batchtopk", architecture="batchtopk", **TRAIN)
    run_job(data, "train", name="transcoder", architecture="topk_transcoder", **{**TRAIN, **TRANSCODER})
    largest(data / "saes" / "transcoder")
    run = data / "runs" / "7"
    run.mkdir(parents=True)
    spec = Extract.model_validate({"sae": "batchtopk", "tokens": 2000, "examples": 6, "context": "5,4"})
    extract.run(spec, Link(run, Paths(data)))
    return data


def largest(folder: Path) -> None:
    """A transcoder that takes the k largest, as those of sparsify do: those that are trained here have a threshold."""
    sae = SparseAutoencoder.load(folder)
    sae.rule = TopKRule(K)
    put_in_place(sae, folder)


def train_again(folder: Path) -> None:
    """Other weights in the place of an SAE's, as another training of that name leaves them."""
    sae = SparseAutoencoder.load(folder)
    sae.b_dec = sae.b_dec + 1e-3
    put_in_place(sae, folder)


def put_in_place(sae: SparseAutoencoder, folder: Path) -> None:
    """Of the SAE that lies there, whose recipe then says that these are its weights."""
    sae.save(folder)
    change(folder / "recipe.json", sae_sha256=sha256_of(folder / "sae_weights.safetensors"))


def change(path: Path, **fields: Any) -> None:
    """Let a JSON file say otherwise."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
