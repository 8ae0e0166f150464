"""What bringing in a wide SAE takes: ``python bench/import.py [--width 65536] [--only sparsify-bf16] [--folder F]``.

SAEs of random weights over 2,048 are written as others publish them, and brought in by a worker process each, as
``mistudio sae add`` starts it. Memory is the highest that the worker had resident, less the highest of one that
brings in an SAE of the same layout, 64 wide; the process that converts a pickle is looked at in the same way. To be
under 1.3 times the file.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPO = Path(__file__).parent.parent
LAYOUTS = ("saelens", "saelens-bf16", "sparsify", "sparsify-bf16", "gemma_scope", "llama_scope-bf16",
           "dictionary_learning", "dictionary_learning-bf16")  # fmt: skip
HOOK, D = "blocks.0.hook_resid_post", 2048
MODEL = """
import sys
from pathlib import Path
from run_job import run_job
from tiny_models import tiny_model
data = Path(sys.argv[1])
data.mkdir(parents=True)
tiny_model("llama", data / "tiny", hidden_size=2048, num_hidden_layers=1, num_attention_heads=16)
run_job(data, "add_model", source=str(data / "tiny"), name="m")
"""


def make(layout: str, folder: Path, width: int) -> None:
    """In a process of its own: what torch takes is nothing that a worker inherits."""
    import numpy as np
    import torch
    from safetensors.torch import save_file

    kind, _, small = layout.partition("-")
    folder.mkdir(parents=True)
    W = (torch.randn(D, width) / D**0.5).to(torch.bfloat16 if small else torch.float32)
    b_enc, b_dec = torch.zeros(width, dtype=W.dtype), torch.zeros(D, dtype=W.dtype)
    plain = {"W_enc": W, "W_dec": W.view(width, D), "b_enc": b_enc, "b_dec": b_dec}
    linear = {"encoder.weight": W.view(width, D), "encoder.bias": b_enc}
    if kind == "gemma_scope":
        threshold = torch.ones(width)
        np.savez(folder / "params.npz", **{name: one.numpy() for name, one in plain.items()}, threshold=threshold)
    elif kind == "saelens":
        config = {"architecture": "jumprelu", "d_in": D, "d_sae": width, "metadata": {"sae_lens_version": "6.0.0"}}
        (folder / "cfg.json").write_text(json.dumps(config))
        plain["W_dec"] = W.view(width, D).clone()
        save_file(plain | {"threshold": torch.ones(width)}, folder / "sae_weights.safetensors")
    elif kind == "sparsify":
        (folder / "cfg.json").write_text(json.dumps({"d_in": D, "k": 32, "num_latents": width}))
        save_file(linear | {"W_dec": W.view(width, D).clone(), "b_dec": b_dec}, folder / "sae.safetensors")
    elif kind == "llama_scope":
        config = {"d_model": D, "d_sae": width, "act_fn": "jumprelu", "jump_relu_threshold": 1.0}
        config |= {"hook_point_in": HOOK, "dataset_average_activation_norm": {"in": 9.0, "out": 9.0}}
        (folder / "hyperparams.json").write_text(json.dumps(config))
        (folder / "checkpoints").mkdir()
        more = {"decoder.weight": W.clone(), "decoder.bias": b_dec}
        save_file(linear | more, folder / "checkpoints/final.safetensors")
    else:
        trainer = {"dict_class": "AutoEncoder", "activation_dim": D, "dict_size": width, "layer": 0}
        (folder / "config.json").write_text(json.dumps({"trainer": trainer}))
        torch.save(linear | {"decoder.weight": W.clone(), "bias": b_dec}, folder / "ae.pt")


def brought_in(data: Path, source: Path, number: int) -> tuple[int, int, float]:
    """The highest resident memory of the worker and of the process that it starts, if any, and seconds."""
    run, name = data / "runs" / str(number), f"s{number}"
    run.mkdir(parents=True)
    spec = {"kind": "add_sae", "source": str(source), "name": name, "model": "m", "hook": HOOK, "allow_pickle": True}
    (run / "spec.json").write_text(json.dumps({"job": number, "data": str(data), "spec": spec}))
    began, peaks = time.monotonic(), [0, 0]
    with open(run / "log.txt", "wb") as log:
        command = [sys.executable, "-m", "mistudiod.worker", str(run)]
        worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=REPO)
    while worker.poll() is None:
        peaks[0] = max(peaks[0], high_water(worker.pid))
        for child in children(worker.pid):
            peaks[1] = max(peaks[1], high_water(child))
        time.sleep(0.01)
    if worker.wait():
        raise SystemExit((run / "log.txt").read_text()[-4000:])
    shutil.rmtree(data / "saes" / name)
    return peaks[0], peaks[1], time.monotonic() - began


def high_water(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM")), 0)


def children(pid: int) -> list[int]:
    """Of all its threads."""
    try:
        return [
            int(one) for task in Path(f"/proc/{pid}/task").iterdir() for one in (task / "children").read_text().split()
        ]
    except (FileNotFoundError, ProcessLookupError):
        return []


def bench(data: Path, layouts: list[str], width: int) -> None:
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPO), str(REPO / "tests")])}
    subprocess.run([sys.executable, "-c", MODEL, str(data)], check=True, capture_output=True, env=paths)
    print(f"{'file':>9} {'worker':>9} {'times':>6} {'converts':>9} {'times':>6} {'time':>6}  layout")
    for number, layout in enumerate(layouts):
        found = []
        for of, n in ((64, 2 * number), (width, 2 * number + 1)):
            source = data / "published" / layout
            subprocess.run([sys.executable, __file__, "--make", layout, str(source), str(of)], check=True, env=paths)
            size = sum(file.stat().st_size for file in source.rglob("*") if file.is_file())
            found.append((*brought_in(data, source, n), size))
            shutil.rmtree(source)
        (small, small_child, _, _), (peak, child, seconds, size) = found
        grown, grown_child = peak - small, child - small_child
        print(
            f"{size / 1e6:>6,.0f} MB {grown / 1e6:>6,.0f} MB {grown / size:>6.2f} "
            f"{grown_child / 1e6:>6,.0f} MB {grown_child / size:>6.2f} {seconds:>4.0f} s  {layout}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=65_536)
    parser.add_argument("--only", action="append", choices=LAYOUTS)
    parser.add_argument("--folder", type=Path, help="where to write, 4 GB")
    parser.add_argument("--make", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.make:
        make(asked.make[0], Path(asked.make[1]), int(asked.make[2]))
        return
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        bench(Path(folder) / "data", asked.only or list(LAYOUTS), asked.width)


if __name__ == "__main__":
    main()
