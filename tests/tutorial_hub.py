"""What the tutorial is about, for a Hub of the tests: TinyLlama's own config on random weights, and rows as The Pile's.

Three things differ from the real ones: the number of blocks (block 8, whose activations are read, is there), the
weights, and the tokenizer, which is made here in Llama's shape. A smaller form has narrower blocks of fewer heads, and
fewer tokens in the vocabulary as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from mistudiod.demo import corpus

MODEL, DATASET = "TinyLlama/TinyLlama-1.1B-Chat-v1.0", "monology/pile-uncopyrighted"
BLOCKS = 10  # of 22
# config.json of TinyLlama-1.1B-Chat-v1.0, without what only says who wrote it.
CONFIG: dict[str, Any] = {
    "attention_bias": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "initializer_range": 0.02,
    "intermediate_size": 5632,
    "max_position_embeddings": 2048,
    "num_attention_heads": 32,
    "num_hidden_layers": 22,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "vocab_size": 32000,
}
# As the model's card has it: what people and the model say, each between tags.
CHAT = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + eos_token + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
SETS = ("Pile-CC", "Github", "StackExchange", "Wikipedia (en)", "PubMed Abstracts")


@dataclass(frozen=True)
class Form:
    """How large the model is."""

    blocks: int = BLOCKS
    changes: tuple[tuple[str, int], ...] = ()

    @property
    def config(self) -> dict[str, Any]:
        return {**CONFIG, "num_hidden_layers": self.blocks, **dict(self.changes)}


FULL = Form()
# Of so narrow a block 32 heads would take most of the time.
SMALL = Form(
    changes=(("hidden_size", 128), ("intermediate_size", 352), ("vocab_size", 1024), ("num_attention_heads", 8))
)


def write_model(folder: Path, form: Form) -> Path:
    """The repository of the model, in bfloat16 as the real one."""
    torch.manual_seed(0)
    tokenizer(form.config["vocab_size"]).save_pretrained(folder)
    torch.set_default_dtype(torch.bfloat16)
    try:
        model = LlamaForCausalLM(LlamaConfig(**form.config))
        with torch.no_grad():
            model.lm_head.weight.mul_(20)  # at random nothing that is done to a block moves the guesses much
        model.save_pretrained(folder)
    finally:
        torch.set_default_dtype(torch.float32)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n\n# TinyLlama, at random\n")
    return folder


def tokenizer(size: int) -> PreTrainedTokenizerFast:
    """BPE with byte fallback, spaces as ▁ and one put before each text, and ``size`` tokens."""
    made = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("▁", "merged_with_next"), pre_tokenizers.Split("\n", "isolated")]
    )
    special, fallback = ["<unk>", "<s>", "</s>"], [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=size - len(fallback), special_tokens=special, show_progress=False)
    made.train_from_iterator(islice(pieces(), 4 * size), trainer)
    learned = json.loads(made.to_str())["model"]
    vocabulary = {token: n for n, token in enumerate([*sorted(learned["vocab"], key=learned["vocab"].get), *fallback])}
    merges = [tuple(merge) for merge in learned["merges"]]
    made.model = models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    made.pre_tokenizer = None  # for learning alone: a text that is one word takes hours
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=made, chat_template=CHAT, model_max_length=2048, **names)


def write_dataset(folder: Path, rows: int) -> Path:
    """The repository of the dataset: JSON lines, packed by zstd, whose splits lie where The Pile's do."""
    for split, count in (("train/00", rows), ("val", 20), ("test", 20)):
        place = folder / f"{split}.jsonl.zst"
        place.parent.mkdir(parents=True, exist_ok=True)
        with pa.CompressedOutputStream(place, "zstd") as packed:
            for number, text in zip(range(count), pieces(), strict=False):
                row = {"text": text, "meta": {"pile_set_name": SETS[number % len(SETS)]}}
                packed.write(json.dumps(row).encode() + b"\n")
    (folder / "README.md").write_text("---\nlicense: other\n---\n\n# Pile Uncopyrighted\n")
    return folder


def pieces() -> Iterator[str]:
    """Short texts: what every Python carries, some lines at a time."""
    for document in corpus.documents():
        lines = document.text.splitlines(keepends=True)
        for at in range(0, len(lines), 3):
            text = "".join(lines[at : at + 3]).strip("\n")
            if len(text) > 40:
                yield text
