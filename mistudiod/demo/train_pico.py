"""How ``builtin:pico`` was made: ``python -m mistudiod.demo.train_pico OUT_FOLDER [--tokens N]``.

A small Llama trained on the standard library (see ``corpus.py``), with its own byte-level BPE. It ends by scoring
the documents of ``HELD_OUT``, on which neither model nor tokenizer was trained, against a unigram and an interpolated
Kneser-Ney trigram model, and writes the figures into the model card.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections import Counter
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from mistudiod.demo.corpus import HELD_OUT, Document, documents

SEPARATOR = "<|endoftext|>"
VOCABULARY = 4096
CONTEXT = 256  # tokens a window, its first the separator
BATCH = 8  # windows a step: larger ones run no faster on two cores
PEAK_LR = 2.5e-3
WARM_UP_STEPS = 200
WEIGHT_DECAY = 0.1
SEED = 0
PROMPTS = ("def read_lines(path):\n", "class Stack:\n    def __init__(self", "import os\nimport sys\n\n\ndef main(")


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=[SEPARATOR],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=SEPARATOR, eos_token=SEPARATOR, model_max_length=2 * CONTEXT
    )


def make_model() -> LlamaForCausalLM:
    torch.manual_seed(SEED)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=6,
            num_attention_heads=6,
            num_key_value_heads=6,
            max_position_embeddings=2 * CONTEXT,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=0,
        )
    )


def encode(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[list[int]]:
    return [tokenizer(text, verbose=False)["input_ids"] for text in texts]


def batches(stream: torch.Tensor, tokens: int):
    """Windows of ``CONTEXT`` whose first token is the separator, at random offsets; ``tokens`` in all."""
    generator = torch.Generator().manual_seed(SEED)
    steps = tokens // (BATCH * CONTEXT)
    for step in range(steps):
        starts = torch.randint(len(stream) - CONTEXT, (BATCH,), generator=generator)
        windows = stream[starts[:, None] + torch.arange(CONTEXT)]
        windows[:, 0] = 0
        yield step, steps, windows


def learning_rate(step: int, steps: int) -> float:
    warm = min(1.0, (step + 1) / WARM_UP_STEPS)
    return PEAK_LR * warm * 0.5 * (1 + math.cos(math.pi * step / steps))


def train(model: LlamaForCausalLM, stream: torch.Tensor, tokens: int, held_out: list[list[int]]) -> None:
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}],
        betas=(0.9, 0.95),
        fused=True,
    )
    model.train()
    started = time.monotonic()
    for step, steps, windows in batches(stream, tokens):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        loss = model(input_ids=windows, labels=windows, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 100 == 0:
            rate = (step + 1) * BATCH * CONTEXT / (time.monotonic() - started)
            print(f"step {step}/{steps} loss {loss.item():.3f} {rate:,.0f} tokens/s", flush=True)  # noqa: T201
        if step and step % 2000 == 0:
            print(f"  held-out loss {model_loss(model, held_out):.3f}", flush=True)  # noqa: T201
    model.eval()


@torch.no_grad()
def model_loss(model: LlamaForCausalLM, texts: list[list[int]]) -> float:
    """Mean nats a token over windows of ``CONTEXT``, each beginning with the separator."""
    total, count = 0.0, 0
    for ids in texts:
        for start in range(0, len(ids), CONTEXT - 1):
            window = torch.tensor([[0, *ids[start : start + CONTEXT - 1]]])
            logits = model(input_ids=window, use_cache=False).logits[0, :-1].float()
            total += torch.nn.functional.cross_entropy(logits, window[0, 1:], reduction="sum").item()
            count += window.shape[1] - 1
    return total / count


def unigram_loss(train_texts: list[list[int]], texts: list[list[int]]) -> float:
    counts = Counter(token for ids in train_texts for token in ids)
    total = sum(counts.values()) + VOCABULARY
    tokens = [token for ids in texts for token in ids]
    return -sum(math.log((counts[token] + 1) / total) for token in tokens) / len(tokens)


class KneserNeyTrigram:
    """Interpolated Kneser-Ney with one discount for each order (Chen & Goodman 1999, section 2.7)."""

    def __init__(self, texts: list[list[int]]) -> None:
        trigrams = Counter(gram for ids in texts for gram in zip([0, 0, *ids], [0, *ids], ids, strict=False))
        bigrams = Counter((b, c) for _, b, c in trigrams)  # continuation counts
        unigrams = Counter(c for _, c in bigrams)
        self.orders = [self._order(trigrams), self._order(bigrams)]
        self.unigrams, self.unigram_total = unigrams, sum(unigrams.values())

    @staticmethod
    def _order(grams: Counter):
        ones = sum(1 for n in grams.values() if n == 1)
        twos = sum(1 for n in grams.values() if n == 2)
        totals, kinds = Counter(), Counter()
        for gram, n in grams.items():
            totals[gram[:-1]] += n
            kinds[gram[:-1]] += 1
        return grams, totals, kinds, ones / (ones + 2 * twos)

    def probability(self, a: int, b: int, c: int) -> float:
        p = (self.unigrams[c] + 1) / (self.unigram_total + VOCABULARY)
        for history, (grams, totals, kinds, discount) in zip([(b,), (a, b)], reversed(self.orders), strict=True):
            if total := totals[history]:
                kept = max(grams[(*history, c)] - discount, 0.0)
                p = (kept + discount * kinds[history] * p) / total
        return p

    def loss(self, texts: list[list[int]]) -> float:
        grams = [gram for ids in texts for gram in zip([0, 0, *ids], [0, *ids], ids, strict=False)]
        return -sum(math.log(self.probability(*gram)) for gram in grams) / len(grams)


def samples(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    torch.manual_seed(SEED)
    written = []
    for prompt in PROMPTS:
        ids = torch.tensor([[0, *tokenizer(prompt)["input_ids"]]])
        out = model.generate(ids, max_new_tokens=100, do_sample=True, temperature=0.7, top_k=50, pad_token_id=0)
        written.append(tokenizer.decode(out[0, 1:]))
    return written


def card(facts: dict[str, object], written: list[str]) -> str:
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    code = "\n\n".join(f"```python\n{text}\n```" for text in written)
    return f"""---
license: apache-2.0
library_name: transformers
---
# pico

A Llama-architecture language model of Python, small enough to travel with miStudio and to be studied on any machine.
It was trained by `mistudiod/demo/train_pico.py` on the standard library of Python and nothing else, so its text is
under the PSF licence's terms for Python. Never trained on (model, tokenizer): {", ".join(sorted(HELD_OUT))}.

| fact | value |
|---|---|
{rows}

Held-out losses are mean nats a token over those modules, in windows of {CONTEXT} tokens that begin with the separator.

What it writes (temperature 0.7, top-k 50, seed {SEED}, the first line of each is the prompt):

{code}
"""


def split(found: list[Document]) -> tuple[list[str], list[str]]:
    return [d.text for d in found if not d.held_out], [d.text for d in found if d.held_out]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tokens", type=int, default=30_000_000, help="training tokens, all epochs together")
    options = parser.parse_args()
    train_texts, held_texts = split(list(documents()))
    tokenizer = train_tokenizer(train_texts)
    train_ids, held_ids = encode(tokenizer, train_texts), encode(tokenizer, held_texts)
    stream = torch.tensor([token for ids in train_ids for token in [0, *ids]])
    model = make_model()
    started = time.monotonic()
    train(model, stream, options.tokens, held_ids)
    minutes = (time.monotonic() - started) / 60
    model = model.to(torch.bfloat16)
    model.save_pretrained(options.out)
    tokenizer.save_pretrained(options.out)
    model = model.float()
    held_bytes = sum(len(text.encode()) for text in held_texts)
    held_count = sum(map(len, held_ids))
    loss = model_loss(model, held_ids)
    facts = {
        "parameters": f"{model.num_parameters():,}",
        "trained on": f"Python {platform.python_version()}'s standard library, {len(stream):,} tokens, "
        f"{options.tokens / len(stream):.1f} passes",
        "training time": f"{minutes:.0f} minutes on a 2-core CPU",
        "held-out text": f"{held_count:,} tokens, {held_bytes / held_count:.2f} bytes a token",
        "held-out loss": f"{loss:.3f} ({loss / math.log(2) * held_count / held_bytes:.3f} bits a byte)",
        "held-out loss, Kneser-Ney trigram": f"{KneserNeyTrigram(train_ids).loss(held_ids):.3f}",
        "held-out loss, unigram": f"{unigram_loss(train_ids, held_ids):.3f}",
    }
    (options.out / "README.md").write_text(card(facts, samples(model, tokenizer)))
    print(json.dumps(facts, indent=1))  # noqa: T201


if __name__ == "__main__":
    main()
