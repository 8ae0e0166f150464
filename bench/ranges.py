"""What calibrated strengths are worth, and what steering takes: ``python bench/ranges.py [--features 20] [--data F]``.

The demo's jobs make model, SAE and features first, in some two minutes (``--data FOLDER`` keeps them, and the next run
finds them there). Of live features chosen at random each is calibrated on held-out text; then at 7 strengths, evenly
from low to high of its 0.5-nat range, its mean activation is measured: in held-out text under the edit, read where the
SAE reads, after the edit; and in texts written under the edit, as the unsteered model reads them. Printed is of how
many features it rises from strength to strength, equal ones allowed.

``--memory``: the plan of a session beside the highest resident memory of a process that writes, measures and
calibrates, on this CPU, with the bundled model and one of GPT-2's size with random weights.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from material import GPT2, PICO, make, model_folder
from torch import Tensor

from mistudiod.budget import Budget
from mistudiod.engine.edits import Change, Changing
from mistudiod.engine.effects import measure
from mistudiod.engine.hooks import capture
from mistudiod.engine.latents_of import LatentsOf
from mistudiod.engine.lm import LM, load_lm
from mistudiod.engine.rules import RULES
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.engine.strength_range import Divergence, Written, calibrate
from mistudiod.engine.tokens import TokenWindows
from mistudiod.engine.write import write
from mistudiod.facts import read_facts
from mistudiod.pages import Pages
from mistudiod.paths import Paths
from mistudiod.plan_steer import SaeSize, plan
from mistudiod.planner import Abilities
from mistudiod.specs import KINDS

STRENGTHS, MARK = 7, "0.5"
HELD_TOKENS = 2_048
PROMPTS, PROMPT_TOKENS, SEEDS, WRITTEN = 8, 16, (0, 1, 2, 3), 48
Sampling = KINDS["steer"]  # its fields are the sampling's


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, help="a data folder to keep")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--one", nargs=4, metavar=("MODEL", "WIDTH", "ROWS", "TOKENS"), help="what a process does")
    asked = parser.parse_args()
    if asked.one:
        at_work(asked.data, asked.one[0], *map(int, asked.one[1:]))
        return
    with tempfile.TemporaryDirectory() as folder:
        data = asked.data or Path(folder)
        if asked.memory:
            memory(data)
        else:
            ranges(data, asked.features, asked.seed)


# -- ranges -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Demo:
    """What the demo makes, and text that neither SAE nor model has seen."""

    lm: LM
    sae: SparseAutoencoder
    name: str
    hook: str
    maxima: list[float]
    windows: Tensor
    special_ids: list[int]

    def change(self, feature: int, strength: float) -> Change:
        most = self.maxima[feature]
        return Change(self.sae, self.name, self.hook, self.hook, feature, "add", strength, most, "all")


def made(data: Path) -> Demo:
    sys.path.insert(0, str(Path(__file__).parent.parent / "client"))
    from material import run_job
    from mistudio import demo

    read: dict[str, dict[str, str]] = {
        "models": {}, "datasets": {}, "tokens": {"dataset": "python", "model": "pico"},
        "saes": {"tokenization": "python-pico"}, "features": {"sae": "pico-demo"},
    }  # fmt: skip
    for (folder, more), spec in zip(read.items(), list(demo.STAGES.values())[:5], strict=True):
        if not (data / folder / spec.get("name", demo.TRAIN["name"])).exists():
            run_job(data, spec["kind"], **{key: value for key, value in spec.items() if key != "kind"}, **more)
    windows, name = TokenWindows(data / "tokens" / demo.TOKENS["name"]), demo.TRAIN["name"]
    held_out = np.arange(windows.train, windows.train + windows.held_out)
    (store,) = (path for path in Paths(data).artifact("features", name).iterdir() if (path / "manifest.json").exists())
    return Demo(
        load_lm(model_folder(data, PICO)),
        SparseAutoencoder.load(data / "saes" / name),
        name,
        demo.TRAIN["hook"],
        list(Pages(store).columns["max"]),
        torch.from_numpy(windows.rows(held_out)),
        windows.special_ids,
    )


def ranges(data: Path, features: int, seed: int) -> None:
    demo = made(data)
    live = [feature for feature, most in enumerate(demo.maxima) if most > 0]
    chosen = np.random.default_rng(seed).choice(live, features, replace=False).tolist()
    print(f"{'feature':>7} {'seconds':>7} {'0.1 nats':>15} {'0.5 nats':>15} {'2 nats':>15} {'breaks':>15} why")
    rises: list[tuple[bool, bool]] = []
    seconds = []
    for feature in chosen:
        began = time.perf_counter()
        found = calibrate(demo.lm, demo.change(feature, 1.0), demo.windows, demo.special_ids, lambda: None)
        seconds.append(time.perf_counter() - began)
        sides = [*found["kl"].values(), found["breaks"]]
        pairs = " ".join(f"{_side(one['low']):>7} {_side(one['high']):>7}" for one in sides)
        print(f"{feature:>7} {seconds[-1]:>7.1f} {pairs} {found['breaks']['why']}")
        low, high = (found["kl"][MARK][side] for side in ("low", "high"))
        if low is None or high is None:
            print(f"        does not reach {MARK} nats both ways")
            rises.append((False, False))
            continue
        strengths = np.linspace(low, high, STRENGTHS).tolist()
        rows = [in_held_out_text(demo, feature, strengths), in_written_texts(demo, feature, strengths)]
        for what, row in zip(("held-out", "written"), rows, strict=True):
            print(f"        {what:>8} " + " ".join(f"{value:>9.4f}" for value in row), flush=True)
        rises.append((rising(rows[0]), rising(rows[1])))
    print(f"\nof {features} features the mean activation rises from strength to strength ({STRENGTHS} of them)")
    for what, column in zip(
        ("in held-out text under the edit", "in texts written under the edit"), zip(*rises, strict=True), strict=True
    ):
        print(f"  {what}: of {sum(column)}")
    print(f"a calibration took {np.median(seconds):.1f} s (median), {max(seconds):.1f} s at most")


def _side(strength: float | None) -> str:
    return "—" if strength is None else f"{strength:+.2f}"


def rising(values: list[float]) -> bool:
    return all(after >= before for before, after in itertools.pairwise(values))


@torch.no_grad()
def in_held_out_text(demo: Demo, feature: int, strengths: list[float]) -> list[float]:
    """Mean activation over the tokens that count, at each strength."""
    ids = demo.windows[:: max(1, demo.windows.numel() // HELD_TOKENS)]
    text, latents = ~torch.isin(ids, torch.tensor(demo.special_ids)), LatentsOf(demo.sae, [feature])
    found = []
    for strength in strengths:
        rows = [[demo.change(feature, strength)]] * len(ids)
        with Changing(demo.lm, rows, demo.special_ids) as changing, capture(demo.lm.model, [demo.hook]) as values:
            changing.at(ids, 0, 0)
            demo.lm.model.base_model(input_ids=ids, use_cache=False)
            changing.check()
        found.append(latents(values[demo.hook][text]).double().mean().item())
    return found


def in_written_texts(demo: Demo, feature: int, strengths: list[float]) -> list[float]:
    """Mean activation over the tokens of texts written at each strength, of the same seeds, as they are read."""
    variants = [[demo.change(feature, strength)] for strength in strengths]
    sampling = _sampling(WRITTEN)
    sums, tokens = np.zeros(len(strengths)), np.zeros(len(strengths))
    for prompt in demo.windows[torch.linspace(0, len(demo.windows) - 1, PROMPTS).long(), :PROMPT_TOKENS]:
        texts = write(demo.lm, prompt, variants, SEEDS, sampling, demo.special_ids, lambda _: None)
        measured = measure(demo.lm, prompt, texts, variants, demo.special_ids)
        for n, (text, one) in enumerate(zip(texts, measured, strict=True)):
            [activation] = one["activations"]
            sums[n % len(strengths)] += (activation["mean"] or 0.0) * len(text.ids)
            tokens[n % len(strengths)] += len(text.ids)
    return (sums / tokens).tolist()


def _sampling(tokens: int) -> Any:
    return Sampling.model_validate({"sae": "s", "prompt": " ", "steering": [{"feature": 0}], "max_tokens": tokens})


# -- memory -----------------------------------------------------------------------------------------------------------

CASES = {"pico": [(2_048, 1, 160), (2_048, 8, 160), (2_048, 32, 400), (16_384, 8, 160)],
         "gpt2": [(8_192, 1, 160), (8_192, 8, 160), (32_768, 16, 300)]}  # fmt: skip
HOOKS = {"pico": PICO.hook, "gpt2": GPT2.hook}


def memory(data: Path) -> None:
    print(f"{'planned':>10} {'measured':>10} {'ratio':>6}  case")
    for case in (PICO, GPT2):
        if not (data / "models" / case.name).exists():
            make(data, case)
        facts = read_facts(model_folder(data, case))
        for width, rows, tokens in CASES[case.name]:
            budget = Budget("cpu", "CPU", None, None, 0)
            saes = [SaeSize(facts.d_model, width, facts.d_model)]
            planned = plan(facts, "fp32", saes, rows, tokens, budget, Abilities()).peak_bytes
            asked = [case.name, *map(str, (width, rows, tokens))]
            command = [sys.executable, __file__, "--data", str(data), "--one", *asked]
            ran = subprocess.run(command, capture_output=True, text=True)
            if ran.returncode:
                raise SystemExit(ran.stderr[-4000:])
            peaks = json.loads(ran.stdout.splitlines()[-1])
            most = max(peaks.values())
            told = ", ".join(f"{stage} {size / 1e6:,.0f}" for stage, size in peaks.items())
            print(f"{planned / 1e6:7,.0f} MB {most / 1e6:7,.0f} MB {planned / most:6.2f}  {' '.join(asked)}  ({told})",
                  flush=True)  # fmt: skip


def at_work(data: Path, name: str, width: int, rows: int, tokens: int) -> None:
    """A session's work: its highest resident memory after each stage."""
    case, peaks = {"pico": PICO, "gpt2": GPT2}[name], {}
    lm = load_lm(model_folder(data, case))
    d = lm.facts.d_model
    W_dec = torch.nn.functional.normalize(torch.randn(width, d, generator=torch.Generator().manual_seed(0)))
    sae = SparseAutoencoder(W_dec.t().contiguous(), torch.zeros(width), W_dec, torch.zeros(d), RULES["standard"]())
    sae.save(folder := data / f"sae-{name}-{width}")
    sae = SparseAutoencoder.load(folder)
    del W_dec
    peaks["load"] = high_water()
    change = Change(sae, "s", case.hook, case.hook, 0, "scale", 3.0, 1.0, "all")
    ids = torch.randint(1, lm.facts.vocab_size, (tokens // 2,), generator=torch.Generator().manual_seed(0))
    variants = [[], *([replace(change, strength=1 + n / 8)] for n in range(1, rows))]
    texts = write(lm, ids, variants, [0], _sampling(tokens - len(ids)), [0], lambda _: None)
    peaks["write"] = high_water()
    measure(lm, ids, texts, variants, [0])
    peaks["read"] = high_water()
    windows = torch.randint(1, lm.facts.vocab_size, (32, 128), generator=torch.Generator().manual_seed(0))
    added = replace(change, op="add", maximum=10.0)
    Divergence(lm, added, windows[:16], [0], lambda: None).of([-1.0, 1.0])
    Written(lm, added, windows[:16], [0], lambda: None).why([-1.0, 1.0])
    peaks["calibrate"] = high_water()
    print(json.dumps(peaks))


def high_water() -> int:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM"))


if __name__ == "__main__":
    main()
