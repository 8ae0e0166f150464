"""Labels asked of a real server with a real model, by its own command (``./run-tests.sh drill``).

The model that comes with miStudio has learned Python, not English: that its answers are none must be seen and said.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from feature_pages import PlainPages, definitions
from test_label_job import TEMPLATE, Ear

from mistudiod.specs import Label
from mistudiod.worker import label as worker
from mistudiod.worker.add_model import BUILTIN

pytestmark = [pytest.mark.drill, pytest.mark.timeout(900)]
FEATURES = 4
START_S = 120.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model, with a template for conversations, which it has not: its messages one after the other."""
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    folder = tmp_path_factory.mktemp("model") / "pico"
    shutil.copytree(BUILTIN["pico"], folder)
    (folder / "chat_template.jinja").write_text("{% for message in messages %}{{ message['content'] }}\n{% endfor %}")
    return folder


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [Path(sys.executable).parent / "transformers", "serve", model, "--host", "127.0.0.1", "--port", str(port)]
    log = tmp_path_factory.mktemp("log") / "log.txt"
    environ = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with (
        log.open("wb") as out,
        subprocess.Popen([*command, "--device", "cpu"], stdout=out, stderr=out, env=environ) as run,
    ):
        try:
            _wait_for(f"http://127.0.0.1:{port}/health", log)
            yield f"http://127.0.0.1:{port}"
        finally:
            run.terminate()


def _wait_for(url: str, log: Path) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        try:
            if httpx.get(url, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise AssertionError(log.read_text())


def test_poor_answers_of_a_real_model_are_failures_with_a_reason(
    server: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = PlainPages({index: definitions(index) for index in range(FEATURES)})
    monkeypatch.setattr("mistudiod.pages.Pages", pages, raising=False)
    given: dict[str, Any] = {
        "extraction": "12",
        "endpoint": {"name": "ours", "url": server, "on_this_machine": True},
        "template": TEMPLATE,
        "features": [{"index": index, "label": None} for index in range(FEATURES)],
    }
    ear = Ear(tmp_path, given)
    spec = {"sae": "s", "endpoint": "ours", "model": str(model), "top": FEATURES, "concurrency": 2}
    worker.run(Label.model_validate(spec), ear)
    found = ear.found
    assert found["labelled"] + found["unclear"] + found["failed"] == FEATURES == len(ear.told)
    assert found["failed"] > 0 and "features failed: " in found["partial"]
    assert found["prompt_tokens"] > FEATURES * 500
    assert 0 < found["answer_tokens"] <= FEATURES * 400
    assert all(one["error"] for one in ear.told if "text" not in one)
