"""The tutorial's commands, in their order, as they stand there: a real daemon, the real clients, a Hub of the tests.

What is not as in the tutorial: the model (``tutorial_hub.py``), who owns the repository's name, and ``SCALED``.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hub import Hub
from huggingface_hub import snapshot_download
from mistudio import Client
from mistudio.cli import main
from openai_server import OpenAIServer, label
from tutorial_hub import BLOCKS, DATASET, FULL, MODEL, SMALL, Form, write_dataset, write_model

ROOT = Path(__file__).parent.parent
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text()
TOKEN = f"hf_{secrets.token_hex(17)}"
SAE, REPO = "pile-l8", "me/tinyllama-pile-l8"
HOOK, WIDTH, PROMPT = "blocks.8.hook_resid_post", 16_384, "Write a tutorial about"
FEATURE = "9042"  # as the tutorial calls the one that is looked at; which it is depends on the training
# What stands in the tutorial → what is done here, where a number costs nothing but time.
SCALED = {
    "--width 16384 --tokens 2000000": "--width {width} --tokens {train}",
    "--tokens 1000000": "--tokens {extract}",
    "sae eval pile-l8": "sae eval pile-l8 --tokens 4096",
}
SIZES = {
    "small": {"width": 2048, "train": 40_960, "extract": 102_400},
    "full": {"width": WIDTH, "train": 16_384, "extract": 8_192},
}


def blocks(mark: str) -> list[str]:
    return re.findall(rf"```{mark}\n(.*?)```", TUTORIAL, re.DOTALL)


def commands(mark: str) -> list[str]:
    lines = [line for block in blocks(mark) for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line.strip() and not line.startswith("#")]


def test_every_command_in_the_tutorial_can_be_said() -> None:
    said = [shlex.split(line, comments=True) for mark in ("bash run", "bash") for line in commands(mark)]
    for words in [one for one in said if one[0] == "mistudio"]:
        found = CliRunner().invoke(main, [*words[1:], "--help"])
        assert found.exit_code == 0, found.output


class Followed:
    """The tutorial as it was gone through: what each command said, and the studio as it is then."""

    def __init__(self, home: Path, hub: Hub, llm: OpenAIServer, form: str) -> None:
        self.home, self.hub, self.llm = home, hub, llm
        self.data, self.said = home / "data", dict[str, str]()
        self.took = dict[str, float]()
        self._numbers = {name: str(value) for name, value in SIZES[form].items()}
        self.environ = self._environment()
        command = [sys.executable, "-m", "mistudiod", "serve", "--data", str(self.data), "--port", "0"]
        with (home / "daemon.txt").open("w") as log:
            self.daemon = subprocess.Popen(command, env=self.environ, stderr=log)
        self.host = f"unix:{self.data / 'mistudiod.sock'}"
        self.environ["MISTUDIO_HOST"] = self.host
        for _ in range(600):
            if (self.data / "mistudiod.sock").exists():
                break
            time.sleep(0.05)
        self.client = Client(self.host)

    def _environment(self) -> dict[str, str]:
        known = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "MISTUDIO_"))}
        bin = self.home / "bin"
        bin.mkdir()
        (bin / "mistudio").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m mistudio.cli "$@"\n')
        (bin / "mistudio").chmod(0o755)
        python = os.pathsep.join([str(ROOT), str(ROOT / "client")])
        more = {"PATH": f"{bin}:{known['PATH']}", "PYTHONPATH": python, "COLUMNS": "200"}
        more["MISTUDIO_ENDPOINTS"] = f"ollama={self.llm.url},openai={self.llm.url}"
        return known | self.hub.environ(self.home / "huggingface") | more

    def follow(self) -> None:
        self.run("mistudio secret set hf", typed=TOKEN)
        for line in commands("bash run"):
            self.run(self.here(line))

    def here(self, line: str) -> str:
        """A command of the tutorial, as it is said here."""
        for there, here in SCALED.items():
            line = line.replace(there, here.format(**self._numbers))
        return re.sub(rf"\b{FEATURE}\b", lambda _: str(self.feature), line)

    @property
    def feature(self) -> int:
        """One that fires, and in the text that is steered."""
        return int(self.client.features(SAE, sort="-max", filter="alive", limit=1)["features"][0]["index"])

    def run(self, line: str, typed: str = "") -> str:
        begun = time.monotonic()
        ended = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", line],
            env=self.environ, cwd=self.home, input=typed, capture_output=True, text=True, timeout=1500,
        )  # fmt: skip
        assert ended.returncode == 0, f"{line}\n{ended.stdout}\n{ended.stderr}"
        self.took[line], self.said[line] = time.monotonic() - begun, ended.stdout
        print(f"$ {line}\n{ended.stdout}({self.took[line]:.1f} s)\n")
        return ended.stdout

    def end(self) -> None:
        self.client.close()
        self.daemon.terminate()
        self.daemon.wait(30)


def followed(home: Path, name: str, form: Form) -> Iterator[Followed]:
    with Hub() as hub, OpenAIServer() as llm:
        llm.always, llm.models = lambda _: label("lines of code"), ["qwen3:8b"]
        hub.add_model(MODEL, write_model(home / "model", form))
        hub.add_dataset(DATASET, write_dataset(home / "pile", 10_500))
        hub.uploads.let_write(TOKEN, "me")
        one = Followed(home, hub, llm, name)
        try:
            one.follow()
            yield one
        finally:
            one.end()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Followed]:
    yield from followed(tmp_path_factory.mktemp("small"), "small", SMALL)


def test_it_goes_all_the_way(small: Followed) -> None:
    pass
