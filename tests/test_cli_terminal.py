"""The command as people meet it: its own process, a terminal, Ctrl-C; and the demo."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from feature_stub import Shelf, in_front
from mistudio import Client
from mistudio.demo import SHOWN, chosen, strength
from steer_stub import Desk, found_range
from steer_stub import in_front as with_steering
from studio import proxied, running

MISTUDIO = [sys.executable, "-m", "mistudio.cli"]


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("studio") / "data", "telling_worker.py") as url:
        yield url


@pytest.fixture
def client(studio: str) -> Iterator[Client]:
    with Client(studio) as client:
        yield client


def mistudio(studio: str, *args: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "MISTUDIO_HOST": studio}
    return subprocess.run([*MISTUDIO, *args], env=environ, capture_output=True, text=True, timeout=200)


def at_terminal(studio: str, *args: str, typed: str = "") -> tuple[int, str]:
    """Exit code and what a terminal shows."""
    ours, its = pty.openpty()
    environ = {**os.environ, "MISTUDIO_HOST": studio, "TERM": "xterm", "COLUMNS": "200"}
    process = subprocess.Popen([*MISTUDIO, *args], stdin=its, stdout=its, stderr=its, env=environ, close_fds=True)
    os.close(its)
    os.write(ours, typed.encode())
    shown = b""
    try:
        while chunk := os.read(ours, 65_536):
            shown += chunk
    except OSError:
        pass  # EIO: the other end is closed
    os.close(ours)
    return process.wait(60), shown.decode(errors="replace")


def test_ctrl_c_leaves_the_job_running_and_says_how_to_come_back(studio: str, client: Client) -> None:
    environ = {**os.environ, "MISTUDIO_HOST": studio}
    command = [*MISTUDIO, "dataset", "add", "--remote-path", "/x", "--name", "slow"]
    process = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        while "work 1/2" not in (line := process.stderr.readline()):
            assert line, "it ended by itself"
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    job = int(re.search(r"mistudio job watch (\d+)", rest)[1])  # type: ignore[index]
    assert "Traceback" not in rest
    assert client.job(job)["state"] == "running"
    client.stop(job)
    assert client.wait(job, 60)["state"] == "stopped"


def test_a_terminal_sees_a_live_line_and_the_stages_that_are_over(studio: str, client: Client) -> None:
    first = client.add_dataset("/x", "brief", remote=True)["id"]  # so that it has not ended before one looks on
    added = ("dataset", "add", "--remote-path", "/x", "--name", "live", "--after", str(first))
    exit_code, shown = at_terminal(studio, *added)
    assert exit_code == 0
    assert "work 1/2 things (50%)" in shown
    assert re.search(r"job \d+: done in", shown)


def test_a_terminal_is_asked_before_something_is_deleted(studio: str, client: Client) -> None:
    client.wait(client.add_dataset("/x", "kept", remote=True)["id"], 60)
    exit_code, shown = at_terminal(studio, "dataset", "rm", "kept", typed="n\n")
    assert exit_code == 1
    assert "Delete the dataset kept in" in shown
    assert client.artifact("dataset", "kept")
    assert at_terminal(studio, "dataset", "rm", "kept", typed="y\n")[0] == 0


def test_a_terminal_is_asked_before_an_llm_is(studio: str, client: Client) -> None:
    shelf = Shelf({"made"})
    shelf.calls, shelf.cost_usd = 40, None
    ask = ("label", "start", "made", "--top", "3", "--endpoint", "ollama", "--model", "qwen3:8b")
    before = len(list(client.every_job()))
    with in_front(studio, shelf) as url:
        exit_code, shown = at_terminal(url, *ask, typed="n\n")
    assert exit_code == 1
    assert "at a cost that is not known" in shown and "Start?" in shown
    assert len(list(client.every_job())) == before


def test_the_studios_end_is_noticed_and_waited_for(tmp_path: Path, port: int) -> None:
    with running(tmp_path / "data", port=port) as url:
        with Client(url) as client:
            job = client.add_dataset("/x", "slow", remote=True)["id"]
        watching = subprocess.Popen(
            [*MISTUDIO, "-H", url, "job", "watch", str(job)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert watching.stderr is not None
        assert f"job {job}" in watching.stderr.readline()
    with running(tmp_path / "data", port=port), Client(url) as client:
        client.stop(job)
        _, said = watching.communicate(timeout=100)
    assert "the studio does not answer; trying again" in said
    assert watching.returncode == 11


def test_the_demo_goes_the_whole_way_and_the_second_time_uses_what_is_there(studio: str, client: Client) -> None:
    client.add_model("builtin:pico", "pico")  # the demo joins this job
    with in_front(studio, Shelf({"pico-demo"})) as between, with_steering(between, Desk()) as url:
        first, again = mistudio(url, "demo"), mistudio(url, "demo", "--json")
    assert first.returncode == 0, first.stderr
    jobs = list(reversed(list(client.every_job())))
    assert [job["kind"] for job in jobs][-7:] == [
        "add_model",
        "add_dataset",
        "tokenize",
        "train",
        "extract",
        "label",
        "score",
    ]
    extract, label, score = (job for job in jobs if job["kind"] in ("extract", "label", "score"))
    assert extract["id"] in label["after"] and label["id"] in score["after"]
    for told in ("FVU 0.123 at L0 31.5", "0.300 by PCA", "0.800 by a random", "88% of the latents alive"):
        assert told in first.stdout
    assert re.search(r"^ +7 +fires on ' import' +0.82    .*【import】", first.stdout, re.MULTILINE)
    assert url in first.stdout
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("reused") == 7
    found = json.loads(again.stdout)
    assert [stage["seconds"] is None for stage in found["stages"]] == [True] * 7 + [False]
    strongest = found["features"][0]  # in all of its examples
    assert strongest["typical"] == max(one["typical"] for one in found["features"])
    assert found["range"] == found_range(strongest["index"])
    done = [(one["feature"], one["strength"]) for text in found["steer"]["steered"] for one in text["strengths"]]
    assert done == [(strongest["index"], -1.1), (strongest["index"], 1.1)]  # half a nat either way
    for how in ("suppressed, at -1.1", "amplified, at +1.1"):
        assert f"with feature {strongest['index']} {how} of its largest activation (KL 0.48 nats" in first.stdout


def test_the_demo_steers_no_further_than_texts_hold_together() -> None:
    found = found_range(7)
    assert (strength(found, "low"), strength(found, "high")) == (-1.1, 1.1)
    broken = {**found, "breaks": {"low": -0.5, "high": 0.2, "why": "repetition"}}
    assert (strength(broken, "low"), strength(broken, "high")) == (-0.4, 1.0)


def test_the_demo_steers_with_a_feature_whose_effect_shows_at_once() -> None:
    words = {3: "fires on `and`; next: names", 7: "fires on `__(`; next: “self”", 9: "fires on `os`; next: “.”"}
    features = [{"index": n, "label": {"text": words[n]} if n in words else None} for n in range(20)]
    assert [one["index"] for one in chosen(features)] == [7, 0, 1, 2, 3, 4, 5, 6, 8, 9][:SHOWN]
    assert [one["index"] for one in chosen(features[:3])] == [0, 1, 2]


def test_the_demo_leaves_alone_what_somebody_made_under_its_names(tmp_path: Path) -> None:
    shelf = Shelf({"pico-demo", "pico-demo-2"})
    with (
        running(tmp_path / "data", "telling_worker.py") as studio,
        in_front(studio, shelf) as between,
        with_steering(between, Desk()) as url,
        Client(url) as client,
    ):
        client.add_model("builtin:pico", "pico")
        client.add_dataset("/mine", "python", remote=True)
        client.tokenize("python", "pico", "python-pico")
        mine = client.train("python-pico", "blocks.1.hook_resid_post", "pico-demo", width=64)
        assert client.wait(mine["id"], 60)["state"] == "done"
        first = mistudio(url, "demo")
        assert first.returncode == 0, first.stderr
        for said in (
            "the dataset python was made otherwise; trying python-2",
            "trying python-pico-2",
            "trying pico-demo-2",
        ):
            assert said in first.stderr
        assert "The SAE pico-demo-2:" in first.stdout
        spec = client.artifact("sae", "pico-demo-2")["spec"]
        assert (spec["tokenization"], spec["width"]) == ("python-pico-2", 2048)
        assert client.artifact("tokenization", "python-pico-2")["dataset"] == "python-2"
        again = mistudio(url, "demo", "--json")
        assert again.stderr.count("reused") == 7, again.stderr
        assert json.loads(again.stdout)["sae"]["name"] == "pico-demo-2"


def test_an_upload_shows_how_far_it_is(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("x" * 1000)
    with running(tmp_path / "data", "telling_worker.py") as url, proxied(url) as there:
        added = mistudio(there, "dataset", "add", str(tmp_path / "text.txt"))
        assert added.returncode == 0, added.stderr
        assert "upload: 1.0 kB of 1.0 kB (100%)" in added.stderr
        again = mistudio(there, "dataset", "add", str(tmp_path / "nothing.txt"))
        assert again.returncode == 3
        assert "--remote-path" in again.stderr
        (tmp_path / "empty").mkdir()
        assert mistudio(there, "dataset", "add", str(tmp_path / "empty")).returncode == 2
