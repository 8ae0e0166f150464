"""What steering costs beside plain generation: ``python bench/steer.py [--rounds 7] [--model FOLDER] [--tokens 100]``.

An SAE with random weights lies on the middle block of the model (builtin:pico by default): what it says does not matter
here. Measured in turn, medians of all rounds: the time to the first token of a warm call that writes a baseline
and a steered text; tokens a second of each of both texts, beside transformers' own ``generate`` with its cache, batch 1
and as many tokens; and a sweep of five strengths beside its baseline in one batch, against five such pairs one after
the other. ``--op`` clamp, scale and ablate need the encoder at every token, add does not.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import mistudiod.demo
from mistudiod.engine.edits import Change
from mistudiod.engine.lm import LM, load_lm
from mistudiod.engine.rules import TopKRule
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.engine.write import write

PICO = Path(mistudiod.demo.__file__).parent / "pico"
PROMPT = 'def read_lines(path):\n    """Read the lines of a file."""\n    '
STRENGTHS = (-4.0, -2.0, 1.0, 2.0, 4.0)


@dataclass(frozen=True)
class Chosen:
    max_tokens: int
    temperature: float = 0.7
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0


def random_sae(d_model: int, width: int, device: torch.device) -> SparseAutoencoder:
    generator = torch.Generator().manual_seed(0)
    W_dec = torch.nn.functional.normalize(torch.randn(width, d_model, generator=generator), dim=1).to(device)
    zeros = torch.zeros(width + d_model, device=device)
    return SparseAutoencoder(W_dec.t().clone(), zeros[:width], W_dec, zeros[width:], TopKRule(32))


class Runs:
    """What is timed, each in seconds."""

    def __init__(self, lm: LM, asked: argparse.Namespace) -> None:
        self._lm, self._asked, self._chosen = lm, asked, Chosen(asked.tokens)
        lm.model.generation_config.eos_token_id = lm.tokenizer.eos_token = None  # texts of one length
        self._ids = torch.tensor(lm.text_ids(PROMPT))
        self._sae = random_sae(lm.facts.d_model, asked.width, lm.device)

    def variant(self, strength: float) -> list[Change]:
        hook = f"blocks.{self._lm.facts.n_layers // 2}.hook_resid_post"
        return [Change(self._sae, "sae", hook, hook, 7, self._asked.op, strength, 2.0, "all")]

    def write(self, strengths: Sequence[float]) -> tuple[float, float]:
        """To the first token, and to the end, of a baseline and a text for each strength."""
        came: list[float] = []
        variants, began = [[], *map(self.variant, strengths)], self._now()
        texts = write(self._lm, self._ids, variants, [0], self._chosen, self._lm.tokenizer.all_special_ids,
                      lambda _: came.append(time.perf_counter()))  # fmt: skip
        assert all(len(text.ids) == self._asked.tokens for text in texts)
        return came[0] - began, self._now() - began

    def generate(self) -> float:
        ids, began = self._ids[None].to(self._lm.device), self._now()
        out: Tensor = self._lm.model.generate(  # type: ignore[operator]
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=self._asked.tokens, do_sample=True,
            temperature=self._chosen.temperature, top_k=0, pad_token_id=0,
        )  # fmt: skip
        took = self._now() - began
        assert out.shape[1] == len(self._ids) + self._asked.tokens
        return took

    def _now(self) -> float:
        if self._lm.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def measured(runs: Runs, rounds: int) -> dict[str, list[float]]:
    kinds: dict[str, Callable[[], list[float]]] = {
        "pair": lambda: list(runs.write([2.0])),
        "generate": lambda: [runs.generate()],
        "sweep": lambda: [runs.write(STRENGTHS)[1]],
        "five pairs": lambda: [sum(runs.write([strength])[1] for strength in STRENGTHS)],
    }
    found: dict[str, list[float]] = {"first token": [], **{kind: [] for kind in kinds}}
    for number in range(rounds + 1):
        for kind, run in kinds.items():
            seconds = run()
            if number:  # the first is to warm up
                found[kind].append(seconds[-1])
                if kind == "pair":
                    found["first token"].append(seconds[0])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--model", type=Path, default=PICO, help="a Hugging Face folder")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--width", type=int, default=4_096, help="features of the SAE")
    parser.add_argument("--op", default="add", choices=["add", "clamp", "scale", "ablate"])
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    lm = load_lm(asked.model, asked.device, asked.precision)
    seconds = measured(Runs(lm, asked), asked.rounds)
    middle = {kind: statistics.median(times) for kind, times in seconds.items()}
    rates = {kind: asked.tokens / middle[kind] for kind in ("pair", "generate")}
    share = statistics.median(one / both for one, both in zip(seconds["generate"], seconds["pair"], strict=True))
    times = statistics.median(five / one for five, one in zip(seconds["five pairs"], seconds["sweep"], strict=True))
    if asked.json:
        print(json.dumps({"seconds": seconds, "share": share, "times": times, "threads": torch.get_num_threads()}))
        return
    print(f"{asked.model.name}, {asked.precision}, {lm.device.type}, {torch.get_num_threads()} threads, {asked.op}, "
          f"{asked.tokens} tokens, medians of {asked.rounds} rounds")  # fmt: skip
    print(f"first token      {1000 * middle['first token']:8.1f} ms (goal: under 100)")
    print(f"pair             {rates['pair']:8.1f} tokens/s of each text")
    print(f"generate         {rates['generate']:8.1f} tokens/s; the pair has {share:.0%} of it (goal: 60 %)")
    print(f"sweep of five    {middle['sweep']:8.2f} s in one batch, five pairs {middle['five pairs']:.2f} s: "
          f"{times:.1f} times as fast (goal: 3)")  # fmt: skip


if __name__ == "__main__":
    main()
