"""Predicted and measured peak memory of real trainings on this CPU: ``python bench/plan.py [--only 3] [--folder F]``.

Random models of three families are made, and windows of random tokens; each case is then planned and trained for a few
steps, by the plan's choices, by a worker process of its own, whose highest resident memory is the measured peak.
``again`` is what the plan says of a case once another run of the same model at the same hooks, context and precision
was measured (the first such case). To be within 25 % at first, and within 10 % then.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPO = Path(__file__).parent.parent
sys.path[:0] = [str(REPO), str(REPO / "tests")]

MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gpt2": (
        "gpt2", "float32",
        {"n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024, "vocab_size": 50257},
    ),
    "llama": (
        "llama", "bfloat16",
        {"hidden_size": 1024, "num_hidden_layers": 8, "num_attention_heads": 16, "num_key_value_heads": 4,
         "intermediate_size": 2816, "vocab_size": 32000, "max_position_embeddings": 2048},
    ),
    "gemma2": (
        "gemma2", "float16",
        {"hidden_size": 1152, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 1,
         "head_dim": 256, "intermediate_size": 6912, "vocab_size": 60000, "max_position_embeddings": 2048},
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """``spec``: fields of the training beside its name and tokenization."""

    model: str
    hook: tuple[str, ...]
    spec: dict[str, Any]
    context: int = 128
    windows: int = 110

    @property
    def known_by(self) -> tuple[object, ...]:
        return self.model, self.hook, self.context, self.spec.get("precision")

    def __str__(self) -> str:
        hooks = "+".join(hook.removeprefix("blocks.").replace("hook_", "") for hook in self.hook)
        return " ".join([self.model, hooks, *(f"{name}={value}" for name, value in self.spec.items())])


FIRST, SECOND = "blocks.1.hook_resid_post", "blocks.0.hook_resid_post"
CASES = (
    Case("gpt2", (FIRST,), {"architecture": "topk", "width": 4096}),
    Case("gpt2", (FIRST,), {"width": 24576, "batch_tokens": 2048}),
    Case("gpt2", (FIRST,), {"width": 2048, "batch_tokens": 8192, "precision": "int8"}),
    Case("gpt2", (FIRST,), {"architecture": "jumprelu", "width": 8192}, context=512, windows=30),
    Case("gpt2", (FIRST,), {"architecture": "topk", "width": [4096, 8192]}),
    Case("llama", (FIRST,), {"width": 8192, "whole_model": True}),
    Case("llama", (FIRST,), {"architecture": "topk", "width": 32768, "batch_tokens": 1024}),
    Case("llama", (FIRST,), {"width": 2048, "k": 128, "batch_tokens": 8192, "precision": "bf16"}),
    Case("llama", (FIRST,), {"architecture": "gated", "width": 8192}),
    Case("llama", (FIRST, SECOND), {"width": 4096}),
    Case("gemma2", (SECOND,), {"width": 4096, "precision": "nf4"}),
    Case("gemma2", (SECOND,), {"width": 16384, "batch_tokens": 2048, "steps": 30, "precision": "nf4"}),
    Case("gemma2", ("blocks.0.mlp.hook_in",), {"architecture": "transcoder", "hook_out": "blocks.0.hook_mlp_out"}),
)

MAKE = """
import sys, torch
from pathlib import Path
from tiny_models import tiny_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM
from mistudiod.specs import AddModel
from mistudiod.worker import add_model
from mistudiod.worker.link import Link
from mistudiod.paths import Paths
import json
data, name, family, dtype, shape = Path(sys.argv[1]), *sys.argv[2:5], json.loads(sys.argv[5])
config = AutoConfig.for_model(family, bos_token_id=0, eos_token_id=0, pad_token_id=None, **shape)
torch.manual_seed(0)
model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
folder = data / "made" / name
model.save_pretrained(folder)
tiny_tokenizer().save_pretrained(folder)
add_model.run(AddModel(source=str(folder), name=name), Link(data, Paths(data)))
"""


def make_model(data: Path, name: str) -> None:
    family, dtype, shape = MODELS[name]
    command = [sys.executable, "-c", MAKE, str(data), name, family, dtype, json.dumps(shape)]
    paths = os.pathsep.join([str(REPO), str(REPO / "tests")])
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": paths})


def make_tokenization(data: Path, name: str, case: Case) -> None:
    import numpy as np

    held_out = max(1, case.windows // 50)
    vocabulary = MODELS[case.model][2]["vocab_size"]
    rows = np.random.default_rng(0).integers(1, vocabulary, (case.windows, case.context)).astype("<u2")
    rows[:, 0] = 0
    folder = data / "tokens" / name
    folder.mkdir(parents=True)
    (folder / "tokens.bin").write_bytes(rows.tobytes())
    about = {
        "name": name, "dataset": "random", "model": case.model, "context": case.context, "dtype": "<u2",
        "windows": case.windows, "train_windows": case.windows - held_out, "held_out_windows": held_out,
        "tokens": case.windows * (case.context - 1), "documents": 1, "special_ids": [0],
        "policy": {"bos": 0, "separator": 0, "packed": True},
    }  # fmt: skip
    (folder / "tokenization.json").write_text(json.dumps(about))


def fields(case: Case, name: str) -> dict[str, Any]:
    usual = {"kind": "train", "name": name, "tokenization": name, "hook": case.hook, "steps": 3, "whole_model": False}
    return usual | case.spec


def measured_peak(data: Path, number: int, spec: dict[str, Any], choices: dict[str, Any]) -> tuple[int, float]:
    """The highest resident memory of a worker that trains by this spec and these choices, and its seconds."""
    run = data / "runs" / str(number)
    run.mkdir(parents=True)
    (run / "spec.json").write_text(json.dumps({"job": number, "data": str(data), "spec": spec, "choices": choices}))
    began = time.monotonic()
    with open(run / "log.txt", "wb") as log:
        command = [sys.executable, "-m", "mistudiod.worker", str(run)]
        worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=REPO)
    peak = 0
    while worker.poll() is None:
        try:
            status = Path(f"/proc/{worker.pid}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            break
        peak = max([peak, *(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM"))])
        time.sleep(0.01)
    if worker.wait():
        raise SystemExit((run / "log.txt").read_text()[-4000:])
    return peak, time.monotonic() - began


class Planned:
    """The plan of a case on this machine now."""

    def __init__(self, data: Path, case: Case, name: str) -> None:
        from mistudiod.budget import of_cpu
        from mistudiod.facts import known_facts
        from mistudiod.host import meminfo, memory
        from mistudiod.specs import Train

        self.facts = known_facts(json.loads((data / "models" / case.model / "model.json").read_text()))
        self.tokenization = json.loads((data / "tokens" / name / "tokenization.json").read_text())
        self.spec = Train.model_validate(fields(case, name))
        self.budget = of_cpu(memory(Path("/"), meminfo(Path("/"))))
        self.formula = self.after({})

    def after(self, remembered: dict[str, Any]) -> Any:
        from mistudiod.planner import plan

        return plan(self.spec, self.facts, self.tokenization, self.budget, remembered)

    def choices(self) -> dict[str, Any]:
        return {name: choice.value for name, choice in self.formula.choices.items()}

    def measured(self, peak: int) -> Any:
        from mistudiod.plan_measured import Measured
        from mistudiod.plan_train import Choices, like, run_of

        run = run_of(self.spec, self.facts, self.tokenization, "cpu")
        sizes = like(run, Choices(**self.choices()))
        return Measured(**sizes, peak_bytes=peak, formula_bytes=self.formula.formula_bytes)


def bench(data: Path, only: set[int]) -> None:
    known: dict[tuple[object, ...], Any] = {}
    made: set[str] = set()
    print(f"{'predicted':>10} {'measured':>10} {'off by':>8} {'again':>8} {'time':>6}  peak in   case")
    for number, case in enumerate(CASES, 1):
        if only and number not in only:
            continue
        if case.model not in made:
            make_model(data, case.model)
            made.add(case.model)
        name = f"case-{number}"
        make_tokenization(data, name, case)
        planned = Planned(data, case, name)
        formula = planned.formula
        peak, seconds = measured_peak(data, number, fields(case, name), planned.choices())
        again = "—"
        if case.known_by in known:
            remembered = {formula.choices["precision"].value: (known[case.known_by],)}
            again = off(planned.after(remembered).peak_bytes, peak)
        known.setdefault(case.known_by, planned.measured(peak))
        print(
            f"{formula.peak_bytes / 1e6:7,.0f} MB {peak / 1e6:7,.0f} MB {off(formula.peak_bytes, peak):>8} {again:>8} "
            f"{seconds:4.0f} s  {formula.peak_phase:8}  {number} {case}",
            flush=True,
        )


def off(predicted: int, measured: int) -> str:
    return f"{100 * (predicted / measured - 1):+.1f}%"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", type=int, nargs="*", default=[], help="numbers of cases")
    parser.add_argument("--folder", type=Path, help="where the models and runs go; a temporary folder when not given")
    given = parser.parse_args()
    if given.folder:
        given.folder.mkdir(parents=True, exist_ok=False)
        bench(given.folder, set(given.only))
    else:
        with tempfile.TemporaryDirectory() as folder:
            bench(Path(folder), set(given.only))


if __name__ == "__main__":
    main()
