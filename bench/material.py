"""What the benchmarks work on: models, windows of tokens and activations, made once in a folder.

The text is ``builtin:python``, the models ``builtin:pico`` and one of GPT-2's shape with random weights.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mistudiod.engine.activations import Harvest
from mistudiod.engine.hooks import layers_needed
from mistudiod.engine.lm import PASS_TOKENS, load_lm
from mistudiod.engine.tokens import TokenWindows
from mistudiod.paths import Paths
from mistudiod.specs import KINDS
from mistudiod.worker.link import Link

OUTLIER = 10  # times the median norm


@dataclass(frozen=True)
class Case:
    """A model and where it is read, as ours and TransformerLens, or Hugging Face, call it."""

    name: str
    hook: str
    module: str
    d_in: int
    context: int
    width: int


PICO = Case("pico", "blocks.3.hook_resid_post", "model.layers.3", 192, 128, 16_384)
GPT2 = Case("gpt2", "blocks.5.hook_resid_post", "transformer.h.5", 768, 128, 16_384)
CASES = {case.name: case for case in (PICO, GPT2)}


def run_job(data: Path, kind: str, **fields: Any) -> None:
    """A job of the worker's, in this process; raises what it raises."""
    with contextlib.redirect_stderr(io.StringIO()):
        importlib.import_module(f"mistudiod.worker.{kind}").run(
            KINDS[kind].model_validate(fields), Link(data, Paths(data))
        )


def make(data: Path, case: Case) -> None:
    """Model and tokenization, both named as the case, in the data folder of a studio."""
    if case is GPT2:
        make_gpt2(data)
        return
    run_job(data, "add_model", source="builtin:pico", name=case.name)
    run_job(data, "add_dataset", source="builtin:python", name="python")
    run_job(data, "tokenize", dataset="python", model=case.name, name=case.name, context=case.context)


def make_gpt2(data: Path) -> None:
    """Random weights and random tokens: what they are does not matter to how long they take."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    folder, vocabulary = data / "made-gpt2", 50_257
    torch.manual_seed(0)
    config = AutoConfig.for_model("gpt2", bos_token_id=0, eos_token_id=0, pad_token_id=None)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({"<|endoftext|>": 0, "word": 1}, unk_token="<|endoftext|>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    ).save_pretrained(folder)
    run_job(data, "add_model", source=str(folder), name=GPT2.name)
    windows, held_out = 2_048, 32
    rows = np.random.default_rng(0).integers(1, vocabulary, (windows, GPT2.context)).astype("<u2")
    rows[:, 0] = 0
    tokens = data / "tokens" / GPT2.name
    tokens.mkdir(parents=True)
    rows.tofile(tokens / "tokens.bin")
    about = {
        "name": GPT2.name, "dataset": "random", "model": GPT2.name, "context": GPT2.context, "dtype": "<u2",
        "windows": windows, "train_windows": windows - held_out, "held_out_windows": held_out,
        "tokens": windows * (GPT2.context - 1), "documents": 1, "special_ids": [0],
        "policy": {"bos": 0, "separator": 0, "packed": True},
    }  # fmt: skip
    (tokens / "tokenization.json").write_text(json.dumps(about))


def model_folder(data: Path, case: Case) -> Path:
    return Path(json.loads((data / "models" / case.name / "model.json").read_text())["path"])


def harvest_of(data: Path, case: Case, lm_tokens: int = PASS_TOKENS["cpu"]) -> tuple[Harvest, TokenWindows]:
    """As the train job has it: the first blocks of the model, fp32."""
    windows = TokenWindows(data / "tokens" / case.name)
    lm = load_lm(model_folder(data, case), "cpu", "fp32", layers_needed(case.hook))

    def forward(ids: Tensor) -> Tensor:
        return lm.activations(ids, case.hook)

    return Harvest(windows, forward, lm_tokens=lm_tokens, widths=[case.d_in]), windows


def activations(data: Path, case: Case, tokens: int, held_out: int) -> tuple[Tensor, Tensor]:
    """Of so many training tokens and of held-out ones, shuffled: (n, d_in) float32 with a mean norm of sqrt(d_in).

    Without special tokens and without outliers. One scalar for all, as SAELens' ``expected_average_only_in``.
    """
    harvest, windows = harvest_of(data, case)
    order = np.random.default_rng(0).permutation(windows.train)
    train = torch.cat(list(harvest.first(order, tokens + tokens // 50)))
    held = torch.cat(list(harvest.first(np.arange(windows.train, windows.train + windows.held_out), held_out)))
    norms = torch.linalg.vector_norm(train, dim=1)
    most = OUTLIER * norms.median()
    train = train[norms <= most]
    held = held[torch.linalg.vector_norm(held, dim=1) <= most]
    generator = torch.Generator().manual_seed(0)
    train = train[torch.randperm(len(train), generator=generator)[:tokens]]
    held = held[torch.randperm(len(held), generator=generator)]
    scale = case.d_in**0.5 / torch.linalg.vector_norm(train, dim=1).mean()
    return train * scale, held * scale
