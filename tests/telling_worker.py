"""The fake worker with the artifacts and results that real jobs leave, for the client to show."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

import fake_worker
import steer_stub
from plain_store import example, feature, write_store

from mistudiod.specs import Train

MEASURES = {
    "hook": "blocks.3.hook_resid_post", "width": 2048, "k": 32, "fvu": 0.123, "l0": 31.5, "alive": 0.875,
    "pca_fvu": 0.3, "random_fvu": 0.8, "held_out_tokens": 50_000, "tokens": 2_000_000, "steps": 489,
    "seconds": 80.0, "tokens_per_s": 25_000.0,
}  # fmt: skip
HELD_OUT = {"eval_fvu": 0.456, "eval_l0": 31.0, "ce_recovered_zero": 0.9}
RESOLVED = {"precision": "fp32", "forward_tokens": 4096, "buffer_tokens": 65_536, "micro_tokens": 4096, "threads": 2}
EXAMPLE = example([0, 1, 2, 3, 4], [0.0, 1.0, 0.0, 8.0, 0.5], 3)
FEATURES = {
    7: feature(10, 3.0, [0, 3], [EXAMPLE, EXAMPLE]),
    12: feature(2, 8.0, [3], [EXAMPLE, EXAMPLE]),
}


def fires(index: int, value: float) -> dict[str, Any]:
    return {"index": index, "value": value}


READ = {
    "tokens": [
        {
            "id": 1,
            "text": "import",
            "special": False,
            "outlier": False,
            "features": [{"index": 7, "value": 5.0}, {"index": 12, "value": 0.5}],
        },
        {"id": 2, "text": " os\n", "special": False, "outlier": False, "features": [{"index": 12, "value": 1.5}]},
    ],
    "pooled": [{"index": 7, "max": 5.0, "tokens": 1, "peak": 0}, {"index": 12, "max": 1.5, "tokens": 2, "peak": 1}],
}
NOTHING_SPENT = {"prompt_tokens": 0, "answer_tokens": 0, "cost_usd": 0.0}
WORTH = {"mean": 0.7, "low": 0.6, "high": 0.8, "features": 3, "share_above_0_7": 0.5, "failed": 0}
FOLDERS = {
    "add_model": ("models", "model.json", "model"),
    "add_dataset": ("datasets", "dataset.json", "dataset"),
    "tokenize": ("tokens", "tokenization.json", "tokenization"),
    "train": ("saes", "recipe.json", "sae"),
}


def finish(order: dict[str, Any], say: Any) -> None:
    spec, job = order["spec"], order["job"]
    kind = spec["kind"]
    data = Path(order["data"])
    if kind == "train":
        made = fake_worker.saes_of(order)
        for n, sae in enumerate(made):  # a single one need not be named
            values = {"fvu": 0.5 / (n + 1), "l0": 32.0, "dead": 0.1, "tokens_per_s": 25_000.0, **HELD_OUT}
            say(event="metric", sae=sae if len(made) > 1 else None, step=1, values=values)
        say(event="progress", stage="train", done=1_000_000, total=2_000_000, unit="tokens", eta_s=40.0)
        wait_until_taken(data, job, "train")
        say(event="progress", stage="measure", done=500, total=1000, unit="tokens", eta_s=2.0)
    result = told(spec, job, data)
    if kind == "train" and len(made) > 1:
        result = finish_grid(spec, job, data, say)
    elif kind in FOLDERS:
        parent, file, noun = FOLDERS[kind]
        write(data / parent / spec["name"], file, json.dumps(result))
        say(event="artifact", noun=noun, name=spec["name"])
    elif kind == "extract":
        folder = data / "features" / spec["sae"] / str(job)
        about = {name: value for name, value in result.items() if name != "features"}
        result = {**write_store(folder, [FEATURES.get(n, {}) for n in range(MEASURES["width"])], **about), **result}
        say(event="artifact", noun="features", name=f"{spec['sae']}/{job}")
    say(event="result", result=result)


def wait_until_taken(data: Path, job: int, stage: str) -> None:
    """Until the daemon has written that stage, and passed it on: of what it gathers together it tells the newest."""
    with contextlib.closing(sqlite3.connect(f"file:{data}/mistudio.db?mode=ro", uri=True)) as db:
        for _ in range(1000):
            (progress,) = db.execute("select progress from jobs where id = ?", (job,)).fetchone()
            if progress and json.loads(progress)["stage"] == stage:
                break
            time.sleep(0.02)
    time.sleep(0.2)


def finish_grid(spec: dict[str, Any], job: int, data: Path, say: Any) -> dict[str, Any]:
    """Each SAE, but those that fail: every other one of a grid whose name has ``half`` in it."""
    whole = Train.model_validate(spec)
    saes, failed = [], []
    for n, one in enumerate(whole.saes()):
        if n % 2 and "half" in whole.name:
            failed.append({"sae": one.name, "message": "it diverged"})
            continue
        found = {**told(whole.only(one).model_dump(), job, data), "fvu": 0.1 * (n + 1), "verdict": ["22 % are dead"]}
        write(data / "saes" / one.name, "recipe.json", json.dumps(found))
        say(event="artifact", noun="sae", name=one.name)
        saes.append(found)
    return {"saes": saes, "seconds": 80.0, "peak_bytes": 2_000_000_000, **({"failed": failed} if failed else {})}


def told(spec: dict[str, Any], job: int, data: Path) -> dict[str, Any]:
    match spec["kind"]:
        case "add_model":
            return {
                "name": spec["name"],
                "source": spec["source"],
                "parameters": 3_145_728,
                "family": "llama",
                "hooks": ["blocks.0.hook_mlp_out"],
            }
        case "add_dataset":
            return {"name": spec["name"], "source": spec["source"], "rows": 1234, "bytes": 5_600_000, "job": job}
        case "tokenize":
            return {name: spec[name] for name in ("name", "dataset", "model", "context")} | {"tokens": 2_400_000}
        case "train":
            folder = str(data / "saes" / spec["name"])
            about = {"folder": folder, "job": job, "spec": spec, "architecture": spec["architecture"]}
            return {"sae": spec["name"], **MEASURES, **about, "resolved": RESOLVED, **read_by(spec, data)}
        case "extract":
            found = {"features": 2, "dead": 1, "l0": 31.5, "skipped": {"special": 7, "outliers": 0}, "seconds": 2.0}
            return {"sae": spec["sae"], "id": str(job), "tokens": spec["tokens"], **found}
        case "inspect":
            return {"sae": spec["sae"], "top": len(spec["text"]), **READ}
        case "label":
            return {"labelled": 3, "unclear": 1, "failed": 0, "reasons": {}, **NOTHING_SPENT}
        case "score":
            return {"scored": 3, "failed": 0, "reasons": {}, "methods": {"tokens": WORTH}, **NOTHING_SPENT}
        case "steer":
            return steer_stub.result(steer_stub.Desk(), spec)
    return {}


def read_by(spec: dict[str, Any], data: Path) -> dict[str, Any]:
    """What a recipe says of what it was made from; nothing where that lacks what real ones have."""
    tokenization = json.loads((data / "tokens" / spec["tokenization"] / "tokenization.json").read_text())
    if "model" not in tokenization:
        return {}
    model = json.loads((data / "models" / tokenization["model"] / "model.json").read_text())
    return {"tokenization": tokenization, "model": model}


def write(folder: Path, file: str, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(text)


if __name__ == "__main__":
    fake_worker.finish = finish
    sys.exit(fake_worker.main())
