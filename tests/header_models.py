"""Folders with a real model's config and safetensors header, and no weights: the file is sparse."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

ITEM_BYTES = {"U8": 1, "I8": 1, "F16": 2, "BF16": 2, "F32": 4}
Tensors = dict[str, tuple[str, tuple[int, ...]]]


def write_header(path: Path, tensors: Tensors) -> None:
    """A file as large as ``tensors`` (name → dtype, shape) make it, of which only the header is written."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in tensors.items():
        start, end = end, end + math.prod(shape) * ITEM_BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)


def write_model(folder: Path, config: dict[str, object], tensors: Tensors) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    write_header(folder / "model.safetensors", tensors)
    return folder


def gpt2(folder: Path) -> Path:
    """openai-community/gpt2, with the masks and the bare names of the first checkpoints."""
    config = {"model_type": "gpt2", "n_layer": 12, "n_embd": 768, "n_head": 12, "n_positions": 1024}
    d = 768
    shapes: dict[str, tuple[int, ...]] = {"wte.weight": (50257, d), "wpe.weight": (1024, d)}
    for layer in range(12):
        block = {"ln_1": (d,), "ln_2": (d,), "attn.c_attn": (d, 3 * d), "attn.c_proj": (d, d)}
        block |= {"mlp.c_fc": (d, 4 * d), "mlp.c_proj": (4 * d, d)}
        shapes |= {f"h.{layer}.{name}.weight": shape for name, shape in block.items()}
        shapes |= {f"h.{layer}.{name}.bias": shape[-1:] for name, shape in block.items()}
        shapes[f"h.{layer}.attn.bias"] = (1, 1, 1024, 1024)
    shapes |= {"ln_f.weight": (d,), "ln_f.bias": (d,)}
    return write_model(folder, config | {"vocab_size": 50257}, {name: ("F32", shape) for name, shape in shapes.items()})


def _llama_like(
    sizes: dict[str, int], norms: tuple[str, ...], head_norms: bool, head: bool
) -> dict[str, tuple[int, ...]]:
    d, mlp, d_head = sizes["hidden_size"], sizes["intermediate_size"], sizes["head_dim"]
    queries, keys = sizes["num_attention_heads"] * d_head, sizes["num_key_value_heads"] * d_head
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (sizes["vocab_size"], d),
        "model.norm.weight": (d,),
    }
    block: dict[str, tuple[int, ...]] = dict.fromkeys(norms, (d,))
    block |= {"self_attn.q_proj": (queries, d), "self_attn.k_proj": (keys, d), "self_attn.v_proj": (keys, d)}
    block |= {"self_attn.o_proj": (d, queries), "mlp.gate_proj": (mlp, d), "mlp.up_proj": (mlp, d)}
    block |= {"mlp.down_proj": (d, mlp)}
    if head_norms:
        block |= {"self_attn.q_norm": (d_head,), "self_attn.k_norm": (d_head,)}
    for layer in range(sizes["num_hidden_layers"]):
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in block.items()}
    return shapes | ({"lm_head.weight": (sizes["vocab_size"], d)} if head else {})


def _sizes(layers: int, d: int, mlp: int, heads: int, kv_heads: int, d_head: int, vocabulary: int) -> dict[str, int]:
    sizes = {"num_hidden_layers": layers, "hidden_size": d, "intermediate_size": mlp, "num_attention_heads": heads}
    return sizes | {"num_key_value_heads": kv_heads, "head_dim": d_head, "vocab_size": vocabulary}


NORMS = ("input_layernorm", "post_attention_layernorm")
GEMMA2_NORMS = (*NORMS, "pre_feedforward_layernorm", "post_feedforward_layernorm")
TINYLLAMA = _sizes(22, 2048, 5632, 32, 4, 64, 32000)
GEMMA2 = _sizes(26, 2304, 9216, 8, 4, 256, 256000)
QWEN3 = _sizes(28, 1024, 3072, 16, 8, 128, 151936)


def tinyllama(folder: Path) -> Path:
    """TinyLlama/TinyLlama-1.1B; like its config, this one does not say ``head_dim``."""
    config = {key: size for key, size in TINYLLAMA.items() if key != "head_dim"}
    tensors = {name: ("BF16", shape) for name, shape in _llama_like(TINYLLAMA, NORMS, False, True).items()}
    return write_model(folder, config | {"model_type": "llama", "max_position_embeddings": 2048}, tensors)


def gemma2(folder: Path) -> Path:
    """google/gemma-2-2b, which leaves it to its family that the head is the embedding."""
    tensors = {name: ("F32", shape) for name, shape in _llama_like(GEMMA2, GEMMA2_NORMS, False, False).items()}
    return write_model(folder, GEMMA2 | {"model_type": "gemma2", "max_position_embeddings": 8192}, tensors)


def qwen3(folder: Path) -> Path:
    """Qwen/Qwen3-0.6B, which stores the head although it is the embedding."""
    config = QWEN3 | {"model_type": "qwen3", "max_position_embeddings": 40960, "tie_word_embeddings": True}
    tensors = {name: ("BF16", shape) for name, shape in _llama_like(QWEN3, NORMS, True, True).items()}
    return write_model(folder, config, tensors)


def tinyllama_4bit(folder: Path) -> Path:
    """TinyLlama as bitsandbytes stores it: nf4, double quantisation, the head and the embedding left as they were."""
    tensors: Tensors = {}
    for name, shape in _llama_like(TINYLLAMA, NORMS, False, True).items():
        if len(shape) == 1 or ".layers." not in name:
            tensors[name] = ("BF16", shape)
            continue
        items = math.prod(shape)
        tensors[name] = ("U8", (items // 2, 1))
        tensors[f"{name}.absmax"] = ("U8", (items // 64,))
        tensors[f"{name}.nested_absmax"] = ("F32", (items // 64 // 256,))
        tensors[f"{name}.nested_quant_map"] = ("F32", (256,))
        tensors[f"{name}.quant_map"] = ("F32", (16,))
        tensors[f"{name}.quant_state.bitsandbytes__nf4"] = ("U8", (170,))
    config: dict[str, object] = {**TINYLLAMA, "model_type": "llama", "max_position_embeddings": 2048}
    stored = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    config["quantization_config"] = stored | {"bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": "bfloat16"}
    return write_model(folder, config, tensors)
