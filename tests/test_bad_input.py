"""Bad input, through the real daemon and the real worker: one clear sentence, the field, and nothing half made."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_daemon import Daemon
from tiny_models import LINES, configure, tiny_model

NOUN_FOLDERS = ("models", "datasets", "tokens", "saes", "features")


class RealDaemon(Daemon):
    """The daemon as it is installed, with its own worker."""

    def __init__(self, data: Path) -> None:
        self.data, self.said, self.url = data, [], ""
        command = [sys.executable, "-m", "mistudiod", "serve", "--data", str(data), "--port", "0"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def refused(self, spec: dict[str, Any]) -> dict[str, Any]:
        """The error, whether at the door (``fields``) or of the worker (``field``)."""
        try:
            job = self.call("/api/jobs", {"spec": spec})
        except urllib.error.HTTPError as refusal:
            with refusal:
                error = json.load(refusal)["error"]
                assert refusal.code in (400, 409), error
            return {**error, "field": next(iter(error["fields"]))}
        return dict(self.until(job["id"], "failed", 120)["error"])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("bad")
    tiny_model("llama", home / "model")
    (home / "text.txt").write_text("".join(LINES) * 20)
    return home


@pytest.fixture(scope="module")
def daemon(home: Path) -> Iterator[RealDaemon]:
    daemon = RealDaemon(home / "data").ready()
    for spec in (
        {"kind": "add_model", "source": str(home / "model"), "name": "m"},
        {"kind": "add_dataset", "source": str(home / "text.txt"), "name": "d"},
        {"kind": "tokenize", "dataset": "d", "model": "m", "name": "t", "context": 32},
    ):
        daemon.until(daemon.call("/api/jobs", {"spec": spec})["id"], "done", 120)
    yield daemon
    daemon.end()


def everything(data: Path) -> list[str]:
    return sorted(str(path) for noun in NOUN_FOLDERS for path in (data / noun).rglob("*"))


TRAIN = {"kind": "train", "name": "x", "tokenization": "t", "hook": "blocks.0.hook_resid_post", "width": 64, "k": 4}
BAD = {
    "a missing file": ({"kind": "add_dataset", "source": "HOME/none.txt", "name": "x"}, "source"),
    "an empty dataset": ({"kind": "add_dataset", "source": "HOME/empty.txt", "name": "x"}, "source"),
    "a binary file": ({"kind": "add_dataset", "source": "HOME/binary.txt", "name": "x"}, "source"),
    "a missing model": ({"kind": "add_model", "source": "HOME/none", "name": "x"}, "source"),
    "an unknown model type": ({"kind": "add_model", "source": "HOME/strange", "name": "x"}, "source"),
    "a Hub id": ({"kind": "add_model", "source": "openai-community/gpt2", "name": "x"}, "source"),
    "a wrong hook": ({**TRAIN, "hook": "blocks.9.hook_resid_post"}, "hook"),
    "a hook that is no hook": ({**TRAIN, "hook": "transformer.h.0"}, "hook"),
    "width 0": ({**TRAIN, "width": 0}, "width"),
    "negative width": ({**TRAIN, "width": -64}, "width"),
    "one width of many that is 0": ({**TRAIN, "width": [64, 0]}, "width"),
    "a transcoder's hooks of different widths": (
        {
            **TRAIN,
            "architecture": "transcoder",
            "hook": "blocks.0.mlp.hook_post",
            "hook_out": "blocks.0.hook_mlp_out",
        },
        "hook_out",
    ),
    "a learning rate of a billion": ({**TRAIN, "steps": 50, "batch_tokens": 64, "lr": 1e9}, "lr"),
    "more of an SAE that is not there": ({**TRAIN, "extends": "none"}, "extends"),
    "negative steps": ({**TRAIN, "steps": -5}, "steps"),
    "k above width": ({**TRAIN, "k": 65}, "k"),
    "a batch larger than the text": ({**TRAIN, "batch_tokens": 1_000_000}, "batch_tokens"),
    "a name that leaves the folder": ({**TRAIN, "name": "../x"}, "name"),
    "a name that is taken": ({"kind": "add_dataset", "source": "HOME/text.txt", "name": "d"}, "name"),
    "a context the model cannot read": (
        {"kind": "tokenize", "dataset": "d", "model": "m", "name": "x", "context": 4096},
        "context",
    ),
    "an unknown tokenization": ({**TRAIN, "tokenization": "none"}, "tokenization"),
    "an unknown SAE": ({"kind": "extract", "sae": "none"}, "sae"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_one_sentence_and_leaves_nothing(what: str, daemon: RealDaemon, home: Path) -> None:
    (home / "empty.txt").write_text(" \n")
    (home / "binary.txt").write_bytes(bytes(range(256)) * 10)
    if not (home / "strange").exists():
        shutil.copytree(home / "model", home / "strange")
        configure(home / "strange", model_type="mamba9")
    spec, field = BAD[what]
    spec = {name: str(value).replace("HOME", str(home)) if name == "source" else value for name, value in spec.items()}
    before = everything(daemon.data)
    error = daemon.refused(spec)
    assert error["field"] == field, error
    sentence = error["message"]
    assert "\n" not in sentence and "Traceback" not in sentence and 15 < len(sentence) < 400, sentence
    assert everything(daemon.data) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_is_one_sentence_and_leaves_nothing(home: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        _fill_and_try(home, disk)
    finally:
        time.sleep(0.2)
        subprocess.run(["umount", "-l", str(disk)], check=True)


def _fill_and_try(home: Path, disk: Path) -> None:
    daemon = RealDaemon(disk / "data").ready()
    try:
        for spec in (
            {"kind": "add_model", "source": str(home / "model"), "name": "m"},
            {"kind": "add_dataset", "source": str(home / "text.txt"), "name": "d"},
            {"kind": "tokenize", "dataset": "d", "model": "m", "name": "t", "context": 32},
        ):
            daemon.until(daemon.call("/api/jobs", {"spec": spec})["id"], "done", 120)
        before = everything(daemon.data)
        big = {**TRAIN, "width": 200_000, "steps": 5, "batch_tokens": 64}
        assert "disk is full" in daemon.refused(big)["message"], "what will not fit is refused before the work"
        (disk / "ballast").write_bytes(b"x" * (shutil.disk_usage(disk).free - (1 << 20)))
        for spec in (
            {"kind": "add_dataset", "source": str(home / "text.txt"), "name": "e"},
            {"kind": "tokenize", "dataset": "d", "model": "m", "name": "u", "context": 32},
            {**TRAIN, "steps": 5, "batch_tokens": 64},
        ):
            error = daemon.refused(spec)
            assert error["code"] == "disk_full" and "free some space" in error["message"], error
        assert everything(daemon.data) == before
        (disk / "ballast").unlink()
        job = daemon.call("/api/jobs", {"spec": {**TRAIN, "name": "y", "steps": 5, "batch_tokens": 64}})
        daemon.until(job["id"], "done", 120)
    finally:
        daemon.end()
