"""A Llama-like Hugging Face folder as SAELens' HookedSAETransformer, for whoever must be offline.

The weights are put there by TransformerLens' own conversion; its loader knows models of the Hub only.
"""

from __future__ import annotations

from pathlib import Path

import torch
from sae_lens import HookedSAETransformer
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
