"""An SAE of random weights on a tiny model, in a data folder, as a training would have left it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tiny_models import CONTEXT, D_MODEL, VOCABULARY, tiny_model

from mistudiod.engine.rules import TopKRule
from mistudiod.engine.sae import SparseAutoencoder

D_SAE, K, HOOK = 48, 5, "blocks.1.hook_resid_post"


def random_sae(**metadata: Any) -> SparseAutoencoder:
    generator = torch.Generator().manual_seed(3)
    W_dec = torch.nn.functional.normalize(torch.randn(D_SAE, D_MODEL, generator=generator), dim=1)
    bias = torch.zeros(D_MODEL)
    kept = {"exclude_special_tokens": [0], "prepend_bos": True, **metadata}
    return SparseAutoencoder(W_dec.T.clone(), torch.zeros(D_SAE), W_dec, bias, TopKRule(K), metadata=kept)


def put_sae(data: Path, family: str = "llama", **metadata: Any) -> SparseAutoencoder:
    """The SAE ``s`` on the model ``tiny``, of whose d_sae features the nth fires on (n + 1) / (d_sae + 1) of tokens."""
    folder = tiny_model(family, data / "hf")
    (data / "models" / "tiny").mkdir(parents=True)
    model = {"name": "tiny", "source": str(folder), "path": str(folder), "family": family, "dtype": "float32"}
    model |= {"parameters": 1, "context": CONTEXT, "vocab_size": VOCABULARY}
    (data / "models" / "tiny" / "model.json").write_text(json.dumps(model))
    sae = random_sae(**metadata)
    sae.save(data / "saes" / "s", sparsity=(torch.arange(D_SAE) + 1) / (D_SAE + 1))
    recipe = {"sae": "s", "model": {"name": "tiny"}, "spec": {"hook": HOOK, "tokenization": "t"}, "resolved": {}}
    (data / "saes" / "s" / "recipe.json").write_text(json.dumps(recipe))
    return sae
