"""Make the data folder that later versions are tested on: ``python tests/make_old_data.py [NAME]``.

The real daemon and the real worker write it, with a model, a text and an SAE that are as small as can be. It is made
once for a release and then never again: tests/data/v<version>.zip holds the data folder, the Hugging Face folder of its
model, and told.json, what the API of that version said of it all.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from test_daemon import Daemon

from mistudiod import __version__

HOME = Path("/tmp/mistudio-old-data")  # the same for everybody: the paths are written into the data
DEFAULT = Path(__file__).parent / "data" / f"v{__version__}"
NOUNS = ("model", "dataset", "tokenization", "sae")
LEFT_OUT = ("mistudiod.lock", "mistudiod.sock")
MAX_BYTES = 300_000
TRAIN = {"kind": "train", "tokenization": "t", "hook": "blocks.0.hook_resid_post", "width": 32, "k": 4,
         "batch_tokens": 64}  # fmt: skip
SPECS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"kind": "add_model", "source": str(HOME / "model"), "name": "m"}, "done"),
    ({"kind": "add_dataset", "source": str(HOME / "text.txt"), "name": "d"}, "done"),
    ({"kind": "tokenize", "dataset": "d", "model": "m", "name": "t", "context": 16}, "done"),
    ({**TRAIN, "name": "s", "steps": 60}, "done"),
    ({"kind": "extract", "sae": "s", "tokens": 2000, "examples": 2, "context": "4,4"}, "done"),
    ({"kind": "label", "sae": "s", "features": [0, 1, 2, 3]}, "done"),
    ({"kind": "score", "sae": "s", "features": [0, 1], "examples": 5}, "done"),
    ({"kind": "evaluate", "sae": "s", "tokens": 4096, "probes": False}, "done"),
    (
        {"kind": "steer", "sae": "s", "prompt": "def", "steering": [{"feature": 1, "strength": 5}], "max_tokens": 8},
        "done",
    ),
    ({"kind": "add_dataset", "source": str(HOME / "missing.txt"), "name": "missing"}, "failed"),
)
# Stopped on its way, with a checkpoint that a later version goes on from.
HALF = {**TRAIN, "name": "half", "width": 16, "steps": 200_000, "checkpoint_every_s": 0.5}
# What a person says, which the database alone knows: (method, path, body).
SAID: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("PUT", "/api/saes/s/features/1/label", {"text": "keywords", "explanation": "def, class"}),
    ("PATCH", "/api/saes/s/features/2", {"starred": True, "note": "look again", "lists": ["odd"]}),
    ("PATCH", "/api/saes/s", {"add_tags": ["small"], "note": "the first one"}),
    ("POST", "/api/saes/s/ranges", {"features": [1], "stream": False}),
    (
        "POST",
        "/api/steer",
        {"sae": "s", "prompt": "def", "max_tokens": 8, "stream": False, "steering": [{"feature": 1, "strength": 2}]},
    ),
    ("PATCH", "/api/steerings/2", {"starred": True, "note": "good"}),
    ("POST", "/api/profiles", {"name": "more", "steering": [{"sae": "s", "feature": 1, "strength": 1}]}),
    ("PATCH", "/api/settings", {"session_keep_alive": "1h"}),
    ("POST", "/api/clean", {"what": ["checkpoints"], "dry_run": False}),  # for what is committed is to be small
)
FEATURES = (0, 1, 2)  # of which everything is told


class RealDaemon(Daemon):
    """With the real worker."""

    def __init__(self, data: Path) -> None:
        self.data, self.said, self.url = data, [], ""
        command = [sys.executable, "-m", "mistudiod", "serve", "--data", str(data), "--port", "0"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def main() -> int:
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT
    packed = target.with_name(f"{target.name}.zip")
    if packed.exists() or target.exists() or HOME.exists():
        sys.stderr.write(f"{target} and {HOME} must not exist: an old version's data is never made anew\n")
        return 1
    try:
        told = make()
        (HOME / "told.json").write_text(json.dumps(told, indent=1, ensure_ascii=False))
        for path in HOME.rglob("*"):
            if path.name in (*LEFT_OUT, "text.txt"):
                path.unlink()
        shutil.make_archive(str(target), "zip", HOME)
    finally:
        shutil.rmtree(HOME, ignore_errors=True)
    size = packed.stat().st_size
    sys.stdout.write(f"{packed}: {size:,} bytes\n")
    return 0 if size <= MAX_BYTES else 1


def make() -> dict[str, Any]:
    from tiny_models import LINES, tiny_model  # here: those who only read old data may have no torch

    HOME.mkdir()
    tiny_model("llama", HOME / "model", num_hidden_layers=1, intermediate_size=32, tie_word_embeddings=True)
    (HOME / "text.txt").write_text("".join(LINES) * 8)
    daemon = RealDaemon(HOME / "data").ready()
    try:
        for spec, state in SPECS:
            daemon.until(daemon.call("/api/jobs", {"spec": spec})["id"], state, 120)
        half = daemon.call("/api/jobs", {"spec": HALF})["id"]
        waiting = daemon.call("/api/jobs", {"spec": {**SPECS[4][0], "sae": "half"}})["id"]
        wait_for(lambda: any((HOME / "data" / "runs" / str(half) / "checkpoints").glob("[0-9]*")))
        daemon.call(f"/api/jobs/{half}/stop", {})
        daemon.until(half, "stopped", 60)
        assert daemon.call(f"/api/jobs/{waiting}")["state"] == "stopped"
        for method, path, body in SAID:
            daemon.call(path, body, method)
        return everything(daemon)
    finally:
        daemon.end()


def everything(daemon: RealDaemon) -> dict[str, Any]:
    """What the API says of all that is kept: {path: answer}."""
    paths = ["/api/jobs?limit=1000", *(f"/api/{noun}s" for noun in NOUNS)]
    told = {path: daemon.call(path) for path in paths}
    for job in told[paths[0]]["jobs"]:
        paths += [f"/api/jobs/{job['id']}", f"/api/jobs/{job['id']}/metrics", f"/api/jobs/{job['id']}/log"]
    for noun in NOUNS:
        paths += [f"/api/{noun}s/{one['name']}" for one in told[f"/api/{noun}s"][f"{noun}s"]]
    paths += ["/api/steerings", "/api/profiles", "/api/saes/s/ranges", "/api/saes/s/lists", "/api/saes/s/features"]
    paths += [f"/api/saes/s/features/{feature}" for feature in FEATURES]
    paths += [f"/api/saes/s/features/{feature}/labels" for feature in FEATURES]
    paths += [f"/api/steerings/{one['id']}" for one in daemon.call("/api/steerings")["steerings"]]
    return told | {path: daemon.call(path) for path in paths if path not in told}


def wait_for(what: Any, limit_s: float = 60.0) -> None:
    end = time.monotonic() + limit_s
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(main())
