"""Tiny random language models of every family, saved as Hugging Face folders: made in a second, no download."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

FAMILIES = ("gpt2", "gpt_neox", "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text")
SEPARATOR = "<|endoftext|>"
VOCABULARY = 320
CONTEXT = 64
D_MODEL = 32
LAYERS = 3
LINES = [
    "def read_lines(path):\n    return [line.rstrip() for line in open(path)]\n",
    "for name in sorted(names):\n    print(name, len(name))\n",
    "class Stack:\n    def __init__(self):\n        self.items = []\n",
    "import os, sys\nif __name__ == '__main__':\n    sys.exit(main())\n",
] * 3


@cache
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE whose one special token, id 0, is both BOS and EOS."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[SEPARATOR],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=SEPARATOR, eos_token=SEPARATOR, model_max_length=CONTEXT
    )


def _config(family: str) -> dict[str, object]:
    if family == "gpt2":
        return {"n_embd": D_MODEL, "n_layer": LAYERS, "n_head": 4, "n_positions": CONTEXT}
    shape: dict[str, object] = {
        "hidden_size": D_MODEL,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": CONTEXT,
    }
    if family != "gpt_neox":
        shape["num_key_value_heads"] = 2
    if family in ("qwen3", "gemma", "gemma2", "gemma3_text"):
        shape["head_dim"] = 8
    if family in ("gemma2", "gemma3_text"):
        # Both kinds of attention, and a window that sequences of a test outgrow.
        shape |= {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "sliding_window": 8}
    if family == "mistral":
        shape["sliding_window"] = 8
    return shape


def tiny_model(family: str, folder: Path, **overrides: object) -> Path:
    """Save a random model of ``family`` and a tokenizer in ``folder``; ``overrides`` go to its config.

    Biases and norms are random as well: at their usual zeros and ones they would hide mistakes.
    """
    torch.manual_seed(0)
    settings: dict[str, object] = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
    settings |= {**_config(family), **overrides}
    if settings.get("num_hidden_layers", LAYERS) != LAYERS and "layer_types" not in overrides:
        settings.pop("layer_types", None)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **settings)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def configure(folder: Path, **changes: Any) -> None:
    """Change the config; ``...`` removes a key."""
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))
