"""sae-dashboard's own runner on a model, an SAE and windows of tokens: ``python with_sae_dashboard.py ABOUT.json``.

Prints JSON. ``SaeVisRunner`` is given a HookedSAETransformer with the weights of a Llama-like Hugging Face folder, put
there by TransformerLens' own conversion (its loader knows models of the Hub only), and the SAE as SAELens loads it.
Activations of the model are kept on disk between batches of features, as its Neuronpedia runner does: the first batch
pays for the model, every other one reads them again.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sae_dashboard.sae_vis_data import SaeVisConfig
from sae_dashboard.sae_vis_runner import SaeVisRunner
from sae_lens import SAE, HookedSAETransformer
from transformer_lens import HookedTransformerConfig
from transformer_lens.pretrained.weight_conversions import convert_llama_weights
from transformers import AutoModelForCausalLM


def load(folder: Path, hook: str, rows: torch.Tensor) -> HookedSAETransformer:
    """The model of a Llama-like folder, whose activations at ``hook`` have been held to Hugging Face's."""
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    config = theirs.config
    cfg = HookedTransformerConfig(
        n_layers=config.num_hidden_layers, d_model=config.hidden_size, n_ctx=config.max_position_embeddings,
        d_head=config.head_dim, n_heads=config.num_attention_heads, d_mlp=config.intermediate_size,
        d_vocab=config.vocab_size, act_fn="silu", normalization_type="RMS", positional_embedding_type="rotary",
        rotary_dim=config.head_dim, rotary_base=10_000, rotary_adjacent_pairs=False, gated_mlp=True, final_rms=True,
        eps=config.rms_norm_eps, device="cpu", dtype=torch.float32, original_architecture="LlamaForCausalLM",
    )  # fmt: skip
    model = HookedSAETransformer(cfg)  # what it finds is token ids; a tokenizer would serve to show them
    model.load_and_process_state_dict(
        convert_llama_weights(theirs, cfg), fold_ln=False, center_writing_weights=False, center_unembed=False,
        fold_value_biases=False,
    )  # fmt: skip
    layer = int(hook.split(".")[1])
    with torch.no_grad():
        _, cache = model.run_with_cache(rows, names_filter=hook, stop_at_layer=layer + 1)
        expected = theirs(rows, output_hidden_states=True).hidden_states[layer + 1]
    torch.testing.assert_close(cache[hook], expected, rtol=1e-3, atol=1e-3)
    return model.eval()


def main() -> None:
    about: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    torch.set_num_threads(about["threads"])
    stored = np.fromfile(about["tokens"], about["dtype"]).reshape(-1, about["context"])
    rows = torch.from_numpy(stored[about["windows"]].astype(np.int64))
    model = load(Path(about["model"]), about["hook"], rows[:2])
    sae = SAE.load_from_disk(about["sae"], device="cpu")
    batch, before = about["features_at_once"], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    took: dict[str, list[float]] = {"seconds": [], "cpu_s": []}
    with tempfile.TemporaryDirectory(dir=about["scratch"]) as cache:
        for number in range(about["batches"]):
            config = SaeVisConfig(
                hook_point=about["hook"],
                features=list(range(number * batch, (number + 1) * batch)),
                minibatch_size_features=batch,
                ignore_tokens=set(about["special_ids"]),
                cache_dir=Path(cache),
            )
            began, cpu = time.perf_counter(), time.process_time()
            SaeVisRunner(config).run(encoder=sae, model=model, tokens=rows)
            took["seconds"].append(time.perf_counter() - began)
            took["cpu_s"].append(time.process_time() - cpu)
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    print(json.dumps({"batches": took, "tokens": rows.numel(), "peak_bytes": peak}), file=answers, flush=True)


if __name__ == "__main__":
    main()
