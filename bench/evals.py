"""An SAE's figures, ours beside those of SAELens' own evaluation: ``python bench/evals.py``; some minutes.

Both take the SAE's export for SAELens, the same model (builtin:pico, fp32) and the same held-out windows of
``builtin:python``: those in which no special token stands but the first, because SAELens also counts the loss of tokens
that a special one follows. SAELens' zeros are in the place of special tokens too, and its KL counts the last token.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from material import PICO, make, model_folder, run_job

from mistudiod.engine.lm import load_lm
from mistudiod.engine.measure import Meter
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.engine.splice import Splice
from mistudiod.engine.tokens import TokenWindows

ROOT = Path(__file__).parent.parent
ROWS = (  # what, of ours, of theirs
    ("L0", "l0", lambda t: t["sparsity"]["l0"]),
    ("FVU", "fvu", lambda t: 1 - t["reconstruction_quality"]["explained_variance"]),
    ("cosine", "cosine", lambda t: t["reconstruction_quality"]["cossim"]),
    ("norm of what is rebuilt, of what was read", "l2_ratio", lambda t: t["shrinkage"]["l2_ratio"]),
    ("relative reconstruction bias", "bias", lambda t: t["shrinkage"]["relative_reconstruction_bias"]),
    ("alive", "alive", lambda t: t["alive"]),
    ("CE, nothing replaced", "ce_clean", lambda t: t["model_performance_preservation"]["ce_loss_without_sae"]),
    (
        "ΔCE",
        "ce_delta",
        lambda t: (
            t["model_performance_preservation"]["ce_loss_with_sae"]
            - t["model_performance_preservation"]["ce_loss_without_sae"]
        ),
    ),
    ("CE recovered, of zeros", "ce_recovered_zero", lambda t: t["model_performance_preservation"]["ce_loss_score"]),
    ("KL", "kl", lambda t: t["model_behavior_preservation"]["kl_div_with_sae"]),
)


def windows_of(data: Path, most: int) -> tuple[TokenWindows, np.ndarray]:
    """Held-out windows whose only special token is the first; a multiple of 8, as SAELens takes them."""
    windows = TokenWindows(data / "tokens" / PICO.name)
    numbers = np.arange(windows.train, windows.train + windows.held_out)
    special = windows.special_mask(windows.rows(numbers))
    plain = numbers[special[:, 0] & (special[:, 1:].sum(1) == 0)][:most]
    return windows, plain[: len(plain) // 8 * 8]


def ours(data: Path, folder: Path, windows: TokenWindows, numbers: np.ndarray) -> dict[str, Any]:
    meter = Meter(SparseAutoencoder.load(folder))
    lm = load_lm(model_folder(data, PICO), "cpu", "fp32", None)
    loss = Splice(lm, windows, numbers, [PICO.hook]).loss(PICO.hook, meter.add)
    return {**vars(meter.measures()), **loss.figures()}


def theirs(data: Path, folder: Path, numbers: np.ndarray) -> dict[str, Any]:
    about_tokens = json.loads((data / "tokens" / PICO.name / "tokenization.json").read_text())
    about = {
        "model": str(model_folder(data, PICO)), "sae": str(folder), "hook": PICO.hook, "windows": numbers.tolist(),
        "tokens": str(data / "tokens" / PICO.name / "tokens.bin"), "dtype": about_tokens["dtype"],
        "context": PICO.context, "special_ids": about_tokens["special_ids"],
    }  # fmt: skip
    order = data / "about.json"
    order.write_text(json.dumps(about))
    python = str(ROOT / ".venv-saelens" / "bin" / "python")
    environ = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    command = [python, str(ROOT / "bench/peers/with_saelens_evals.py"), str(order)]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, env=environ, stdout=subprocess.PIPE).stdout)
    return found


def measured(data: Path, asked: argparse.Namespace) -> dict[str, Any]:
    if not (data / "tokens" / PICO.name).exists():
        make(data, PICO)
    if not (data / "saes" / "s").exists():
        some = {"width": [asked.width], "tokens": asked.train_tokens, "architecture": [asked.architecture]}
        run_job(data, "train", name="s", tokenization=PICO.name, hook=[PICO.hook], **some)
    (data / "given.json").write_text('{"labels": []}')
    run_job(data, "export", sae="s", format="saelens")
    folder = data / "exports" / "s-saelens"
    windows, numbers = windows_of(data, asked.windows)
    one = ours(data, folder, windows, numbers)
    other = theirs(data, folder, numbers)
    rows = [{"figure": name, "ours": one[key], "saelens": take(other)} for name, key, take in ROWS]
    return {"windows": len(numbers), "tokens": one["tokens"], "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=256, help="held-out ones, at most")
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--architecture", default="batchtopk")
    parser.add_argument("--train-tokens", type=int, default=200_000, help="that the SAE is trained on before")
    parser.add_argument("--data", type=Path, help="a folder to keep the model, the text and the SAE in")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    subprocess.run(["bash", str(ROOT / "bench" / "peers" / "install.sh")], check=True, stdout=sys.stderr)
    with contextlib.ExitStack() as stack:
        found = measured(asked.data or Path(stack.enter_context(tempfile.TemporaryDirectory())), asked)
    if asked.json:
        print(json.dumps(found, indent=1))
        return
    print(f"{found['windows']} windows, {found['tokens']:,} tokens\n")
    print("| | miStudio | SAELens |\n|---|---:|---:|")
    for row in found["rows"]:
        print(f"| {row['figure']} | {row['ours']:.6f} | {row['saelens']:.6f} |")


if __name__ == "__main__":
    main()
