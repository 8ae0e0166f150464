"""Without a network: what is here works, the whole way; what is not says so at once.

The daemon and its workers run in a network namespace of their own, in which there is not even a loopback that is up.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub import Hub, served_hub  # noqa: F401
from mistudio import Client
from run_job import start_job
from tiny_models import tiny_model

NO_ROUTE = ("unshare", "--map-root-user", "--net")
SMALL = {"width": 64, "k": 4, "steps": 5, "batch_tokens": 64}

pytestmark = pytest.mark.skipif(
    not shutil.which("unshare")
    or subprocess.run([*NO_ROUTE, "true"], capture_output=True, check=False).returncode != 0,
    reason="no network namespace can be made here",
)


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A studio in offline mode, with org/tiny in the machine's cache from the time when there was a Hub."""
    folder = tmp_path_factory.mktemp("offline")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "MISTUDIO_"))}
    with Hub() as hub:
        hub.add_model("org/tiny", tiny_model("llama", folder / "tiny"))
        environ |= hub.environ(folder / "huggingface")
        fetch = [sys.executable, "-c", "from huggingface_hub import snapshot_download as s; s('org/tiny')"]
        subprocess.run(fetch, env=environ, check=True, capture_output=True)
    data = folder / "data"
    command = [*NO_ROUTE, sys.executable, "-m", "mistudiod", "serve", "--data", str(data), "--port", "0"]
    daemon = subprocess.Popen(command, env=environ | {"MISTUDIO_OFFLINE": "true"}, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(daemon)
        with Client(f"unix:{data / 'mistudiod.sock'}") as client:  # such a socket is no matter of networks
            yield client
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.communicate(timeout=30)


def wait_for(daemon: subprocess.Popen[str]) -> None:
    assert daemon.stderr is not None
    for line in daemon.stderr:
        if "is at http://" in line:
            return
    raise AssertionError("the daemon did not start")


def done(studio: Client, job: dict[str, Any]) -> dict[str, Any]:
    found = studio.wait(job["id"], 120)
    assert found["state"] == "done", found["error"]
    result: dict[str, Any] = found["result"]
    return result


def refusal(studio: Client, job: dict[str, Any]) -> tuple[str, float]:
    """The sentence, and the seconds until it came."""
    began = time.monotonic()
    found = studio.wait(job["id"], 120)
    assert (found["state"], found["error"]["code"], found["error"]["field"]) == ("failed", "invalid", "source")
    return found["error"]["message"], time.monotonic() - began


def test_the_whole_way_goes_without_a_network(studio: Client) -> None:
    model = done(studio, studio.add_model("org/tiny", "tiny"))
    assert (model["family"], len(model["revision"])) == ("llama", 40)
    done(studio, studio.add_dataset("builtin:python", "text", bytes=200_000))
    done(studio, studio.tokenize("text", "tiny", "tokens", context=32, tokens=20_000, held_out=0.2))
    assert studio.plan({"kind": "train", "name": "s", "tokenization": "tokens", "hook": "blocks.1.hook_resid_post"})
    done(studio, studio.train("tokens", "blocks.1.hook_resid_post", "sae", **SMALL))
    done(studio, studio.extract("sae", tokens=2_000, examples=2))
    steered = studio.steer("sae", "def f(", {3: 2.0}, max_tokens=4)
    assert steered["baseline"]["text"] is not None


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("model", "miStudio is offline and the model org/other is not in this machine's Hugging Face cache: add it"),
        (
            "dataset",
            "miStudio is offline and the dataset org/other is not in this machine's Hugging Face cache: add it",
        ),
    ],
)
def test_what_is_not_here_says_so_at_once(studio: Client, what: str, sentence: str) -> None:
    add = studio.add_model if what == "model" else studio.add_dataset
    said, took_s = refusal(studio, add("org/other", f"other-{what}"))
    assert said.startswith(sentence)
    assert took_s < 30, "no time-out of a network was waited for"


def test_a_worker_alone_heeds_the_variable_too(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in hub.environ(tmp_path / "home").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    worker = start_job(tmp_path / "data", "add_model", source="org/other", name="m")
    assert worker.wait(60) == 64
    if worker.stdin:
        worker.stdin.close()
    assert "miStudio is offline" in (tmp_path / "data" / "runs" / "1" / "log.txt").read_text()
