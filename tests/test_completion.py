"""What a shell is offered while a command is typed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from mistudio import Client
from mistudio.cli import main
from mistudio.completion import BUDGET_S
from studio import running

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A studio with one of everything."""
    with running(tmp_path_factory.mktemp("studio") / "data", "telling_worker.py") as url:
        with Client(url) as client:
            client.add_model("builtin:pico", "pico")
            client.add_dataset("builtin:python", "python")
            client.tokenize("python", "pico")
            client.train("python-pico", "blocks.3.hook_resid_post", "made")
            assert client.wait(client.extract("made")["id"], 120)["state"] == "done"
        yield url


@pytest.fixture
def run(studio: str) -> Run:
    def invoke(*args: str, typed: str | None = None, host: str = studio) -> Result:
        return CliRunner(env={"MISTUDIO_HOST": host}).invoke(main, list(args), input=typed)

    return invoke


def completed(studio: str, *words: str, environ: dict[str, str] | None = None) -> tuple[list[str], str, float]:
    """What bash would offer for the last word, what is on stderr, and how long it took once Python had begun (s)."""
    asked = {"_MISTUDIO_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(("mistudio", *words))}
    environ = {**os.environ, "MISTUDIO_HOST": studio, **asked, "COMP_CWORD": str(len(words)), **(environ or {})}
    code = "import time; from mistudio.cli import main; print(time.monotonic(), flush=True); main(prog_name='mistudio')"
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=60)
    took = time.monotonic()
    began, *lines = done.stdout.splitlines()
    return [line.partition(",")[2] for line in lines if line], done.stderr, took - float(began)


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("datas",), ["dataset"]),
        (("dataset", "show", "p"), ["python"]),
        (("model", "rm", ""), ["pico"]),
        (("tokenization", "show", ""), ["python-pico"]),
        (("steer", "ma"), ["made"]),
        (("train", "start", "--tokenization", ""), ["python-pico"]),
        (("dataset", "tokenize", "python", "--model", ""), ["pico"]),
        (("job", "show", "3"), ["3"]),
        (("job", "wait", "3", "--for", "pau"), ["pausing", "paused"]),
        (("-c", "lo"), ["local"]),
        (("model", "show", "zz"), []),
    ],
)
def test_a_shell_is_offered_commands_and_names(studio: str, words: tuple[str, ...], offered: list[str]) -> None:
    for _ in range(20):  # nothing is offered where the studio does not answer in a moment
        found, said, _ = completed(studio, *words)
        assert said == ""
        if found == offered:
            return
    assert found == offered


@pytest.mark.parametrize("host", ["127.0.0.1:9", "10.255.255.1:6478", "a b", "unix:/nowhere"])
def test_completion_is_silent_and_quick_when_there_is_no_studio(host: str) -> None:
    found, said, took = completed(host, "model", "show", "")
    assert (found, said) == ([], "")
    assert took < BUDGET_S + 20  # a host that never answers is waited for two minutes by others; imports take the rest


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_is_one_that_the_shell_takes(run: Run, shell: str, tmp_path: Path) -> None:
    script = run("completion", shell)
    assert script.exit_code == 0
    assert f"_MISTUDIO_COMPLETE={shell}_complete" in script.stdout
    if shutil.which(shell):
        (tmp_path / "script").write_text(script.stdout)
        subprocess.run([shell, "-n", str(tmp_path / "script")], check=True)
    assert run("completion", "csh").exit_code == 2
