"""Steering as it happens and as it is kept: streams, hanging up, a GPU that a job has; runs listed and run again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from feature_stub import Shelf
from feature_stub import in_front as with_features
from mistudio import Client
from mistudio.cli import main
from mistudio.errors import ApiError, Unreachable
from steer_stub import BUSY, Desk, in_front
from studio import running
from test_cli_terminal import at_terminal

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A studio with an SAE."""
    with running(tmp_path_factory.mktemp("studio") / "data", "telling_worker.py") as url:
        with Client(url) as client:
            client.add_model("builtin:pico", "pico")
            client.add_dataset("builtin:python", "python")
            client.tokenize("python", "pico")
            made = client.train("python-pico", "blocks.3.hook_resid_post", "made")
            assert client.wait(made["id"], 120)["state"] == "done"
        yield url


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def shelf() -> Shelf:
    return Shelf({"made"})


@pytest.fixture
def host(studio: str, shelf: Shelf, desk: Desk) -> Iterator[str]:
    with with_features(studio, shelf) as between, in_front(between, desk) as url:
        yield url


@pytest.fixture
def run(host: str) -> Run:
    def invoke(*args: str, typed: str | None = None) -> Result:
        return CliRunner(env={"MISTUDIO_HOST": host}).invoke(main, list(args), input=typed)

    return invoke


def data_of(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def said_by(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_terminal_sees_texts_grow_and_then_beside_each_other_with_marks(host: str, desk: Desk) -> None:
    desk.slow = True
    exit_code, shown = at_terminal(host, "steer", "made", "x", "-f", "7:+2")
    assert exit_code == 0
    assert re.search(r"BASELINE.*│.*STEERED  7:\+2", shown)
    assert "\x1b[1;4mos\x1b[0m" in shown
    assert re.search(r"w1 w2 w3.*│.*w1 w2 w3", shown)  # as they are written
    desk.slow = False
    assert at_terminal(host, "steer", "made", "x", "-f", "7:+1", "--sweep=-1,1")[0] == 0


# -- the wire --------------------------------------------------------------------------------------------------------


def test_the_client_gives_texts_as_they_come_and_the_result(host: str) -> None:
    heard: dict[int, str] = {}
    stages: list[str] = []

    def on_text(row: int, more: str) -> None:
        heard[row] = heard.get(row, "") + more

    with Client(host) as client:
        found = client.steer("made", "x", {7: 2.0, 12: -1.5}, on_text, lambda one: stages.append(one["stage"]))
        again = client.steer("made", [{"role": "user", "content": "hi"}], [{"feature": 7, "op": "ablate"}])
    assert heard == {0: " w1 w2 w3", 1: " w1 w2 w3"}
    assert stages == ["load pico", "write", "write", "write"]
    assert [one["strength"] for one in found["edits"]] == [2.0, -1.5]
    assert (found["id"], again["id"]) == (1, 2)


def test_what_goes_wrong_on_the_way_is_the_apis_error(run: Run, desk: Desk, host: str) -> None:
    desk.denied = {"code": "out_of_memory", "message": "2 rows of 100 tokens do not fit", "fits": 1}
    refused = run("steer", "made", "x", "-f", "7", "--json")
    assert refused.exit_code == 1
    assert json.loads(refused.stderr.splitlines()[-1])["error"] == desk.denied
    with Client(host) as client, pytest.raises(ApiError) as error:
        client.steer("made", "x", {7: 1.0})
    assert (error.value.status, error.value.about) == (507, {"fits": 1})
    desk.denied = {"code": "invalid", "message": "there is no feature 5000", "fields": {"steering.0.feature": "…"}}
    assert run("steer", "made", "x", "-f", "5000").exit_code == 6
    desk.denied = None
    desk.breaks_off = True
    with Client(host) as client, pytest.raises(Unreachable, match="broke off"):
        client.steer("made", "x", {7: 1.0})


def test_ctrl_c_hangs_up(host: str, desk: Desk) -> None:
    desk.slow = True
    command = [sys.executable, "-m", "mistudio.cli", "steer", "made", "x", "-f", "7:+2"]
    environ = {**os.environ, "MISTUDIO_HOST": host}
    process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        while "write" not in (line := process.stderr.readline()):
            assert line, "it ended by itself"
        process.send_signal(signal.SIGINT)
        out, rest = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert desk.hung_up.wait(30)
    assert not desk.kept
    assert (out, "Traceback" in rest) == ("", False)


# -- a GPU that a job has --------------------------------------------------------------------------------------------


def test_a_busy_gpu_is_refused_with_what_helps(run: Run, desk: Desk) -> None:
    desk.busy = True
    refused = run("steer", "made", "x", "-f", "7")
    assert refused.exit_code == 5
    for word in (BUSY["message"], "(--if-busy queue or --if-busy pause)"):
        assert word in refused.stderr
    told = json.loads(run("steer", "made", "x", "-f", "7", "--json").stderr.splitlines()[-1])["error"]
    assert told["job"]["id"] == 5 and told["choices"] == ["queue", "pause"]
    calibrated = run("steer", "calibrate", "made", "-f", "7")
    assert "--if-busy pause" in calibrated.stderr and "queue" not in calibrated.stderr


def test_it_can_pause_the_job(run: Run, desk: Desk) -> None:
    desk.busy = True
    assert run("steer", "made", "x", "-f", "7", "--if-busy", "pause").exit_code == 0
    assert desk.bodies("/api/steer")[0]["if_busy"] == "pause"


def test_it_can_queue_behind_the_job(run: Run, desk: Desk) -> None:
    desk.busy = True
    queued = run("steer", "made", "x", "-f", "7:+2", "--if-busy", "queue")
    assert "import os" in said_by(queued)
    assert "queued behind it" in queued.stderr and BUSY["message"] in queued.stderr
    [body] = desk.bodies("/api/jobs")
    assert body["spec"] == {
        "kind": "steer", "sae": "made", "prompt": "x", "steering": [{"feature": 7, "strength": 2.0}]
    }  # fmt: skip


def test_detached_it_is_a_job(run: Run, desk: Desk) -> None:
    job = said_by(run("steer", "made", "x", "-f", "7:+2", "--detach", "--priority", "3")).strip()
    assert data_of(run("job", "show", job, "--json"))["priority"] == 3
    assert not desk.bodies("/api/steer")
    for refused in (("--keep-alive", "5m"), ("--if-busy", "pause")):
        assert run("steer", "made", "x", "-f", "7", "--detach", *refused).exit_code == 2


# -- what is kept ----------------------------------------------------------------------------------------------------


def test_steerings_are_listed_shown_starred_noted_and_removed(run: Run, desk: Desk) -> None:
    for strength in ("+2", "-1"):
        run("steer", "made", "def f(", "-f", f"7:{strength}", "-f", "other/12:ablate")
    header, *rows = said_by(run("steer", "list")).splitlines()
    assert header.split()[:3] == ["ID", "SAE", "STEERING"]
    assert [row.split()[0] for row in rows] == ["2", "1"]
    assert "--cursor 1" in run("steer", "list", "--limit", "1").stderr
    assert "7:+2 other/12:ablate" in rows[1] and "def f(" in rows[1]
    run("steer", "star", "1")
    run("steer", "note", "1", "the one")
    assert [one["id"] for one in data_of(run("steer", "list", "--starred", "--json"))["steerings"]] == [1]
    shown = said_by(run("steer", "show", "1"))
    assert "1, starred ★" in shown and "the one" in shown and "STEERED  7:+2" in shown
    assert data_of(run("steer", "show", "1", "--json"))["result"]["seed"] == 0
    run("steer", "star", "1", "--off")
    assert not desk.kept[1]["starred"]
    assert run("steer", "rm", "1").exit_code == 2
    assert run("steer", "rm", "1", "--yes").exit_code == 0
    assert list(desk.kept) == [2]


def test_a_steering_that_is_run_again_says_whether_it_is_the_same(run: Run, desk: Desk) -> None:
    run("steer", "made", "def f(", "-f", "7:+2", "--seed", "9", "--sweep=-1,1")
    same = run("steer", "again", "1")
    assert "the texts are those of steering 1, to the letter" in same.stderr
    first, again = desk.bodies("/api/steer")
    assert first == again
    assert data_of(run("steer", "again", "1", "--json"))["same"] is True
    desk.steered = "something else"
    other = run("steer", "again", "1")
    assert "2 of 3 texts differ from those of steering 1" in other.stderr
    assert data_of(run("steer", "again", "1", "--json"))["same"] is False


def test_two_steerings_are_compared(run: Run) -> None:
    run("steer", "made", "x", "-f", "7:+2")
    run("steer", "made", "x", "-f", "7:-2", "--seed", "4")
    text = said_by(run("steer", "compare", "1", "2"))
    assert re.search(r"^steering +7:\+2 +7:-2$", text, re.M)
    assert re.search(r"^seed +— +4$", text, re.M)
    assert text.index("1  7:+2") < text.index("2  7:-2")
    assert set(data_of(run("steer", "compare", "1", "2", "--json"))["differences"]) == {"steering", "seed"}
    assert "asked for and made alike" in said_by(run("steer", "compare", "1", "1"))


def test_a_steering_is_exported_as_its_file_says(run: Run, tmp_path: Path) -> None:
    run("steer", "made", "x", "-f", "7:+2")
    for name, begin in (("a.html", "<!doctype"), ("a.json", "{")):
        assert run("steer", "export", "1", str(tmp_path / name)).exit_code == 0
        assert (tmp_path / name).read_text().startswith(begin)
    assert "neither FILE.json nor FILE.html" in run("steer", "export", "1", str(tmp_path / "a.txt")).stderr
    assert run("steer", "export", "1", str(tmp_path / "none" / "a.json")).exit_code == 2
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.html", "a.json"]
