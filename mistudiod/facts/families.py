"""The families of models that are known: what each calls things, in its config, its weights and its modules."""

from __future__ import annotations

from dataclasses import dataclass


class UnknownModel(ValueError):
    """The folder does not hold a model that can be read, said in one sentence."""


@dataclass(frozen=True)
class Family:
    """Names in the config, then names of weights and modules; those of a block are as seen from the block."""

    n_layers: str = "num_hidden_layers"
    d_model: str = "hidden_size"
    n_heads: str = "num_attention_heads"
    context: str = "max_position_embeddings"
    tied: bool = False  # when the config does not say
    embedding: str = "embed_tokens.weight"
    head: str = "lm_head.weight"
    blocks: str = "layers"
    attention: str = "self_attn"
    keys: str | None = "self_attn.k_proj"  # None: one module makes queries, keys and values
    attention_last: str = "self_attn.o_proj"  # reads the heads' outputs side by side
    mlp_norm: str = "post_attention_layernorm"  # gives what the MLP reads
    mlp_last: str = "mlp.down_proj"  # reads the neurons
    post_normed: bool = False  # norms between what a block makes and the residual stream
    rows_first: bool = True  # weights are (out, in), as torch's Linear keeps them
    norm: str = "norm.weight"  # of the last norm
    norm_adds_one: bool = False  # it multiplies by 1 + its weight
    norm_centres: bool = False  # it takes the mean away, as LayerNorm does; RMSNorm does not


_LLAMA = Family()
_GEMMA = Family(tied=True, norm_adds_one=True)
_GEMMA2 = Family(tied=True, post_normed=True, mlp_norm="pre_feedforward_layernorm", norm_adds_one=True)
FAMILIES = {
    "gpt2": Family(
        n_layers="n_layer",
        d_model="n_embd",
        n_heads="n_head",
        context="n_positions",
        tied=True,
        embedding="wte.weight",
        blocks="h",
        attention="attn",
        keys=None,
        attention_last="attn.c_proj",
        mlp_norm="ln_2",
        mlp_last="mlp.c_proj",
        rows_first=False,
        norm="ln_f.weight",
        norm_centres=True,
    ),
    "gpt_neox": Family(
        embedding="embed_in.weight",
        head="embed_out.weight",
        attention="attention",
        keys=None,
        attention_last="attention.dense",
        mlp_last="mlp.dense_4h_to_h",
        norm="final_layer_norm.weight",
        norm_centres=True,
    ),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma": _GEMMA,
    "gemma2": _GEMMA2,
    "gemma3_text": _GEMMA2,
}
