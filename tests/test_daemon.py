"""The daemon as a process: how it starts, what it loads, how it ends, what a kill leaves."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import FAKE_WORKER, dataset, put_artifact, train

REPO = Path(__file__).parent.parent
# The daemon as it is installed, with another program in the place of its worker.
SERVE = f"""
import sys
from mistudiod import runner
runner.WORKER = {FAKE_WORKER!r}
import mistudiod.app
mistudiod.app.make_app.__defaults__ = (runner.WORKER,)
from mistudiod.__main__ import run
run()
"""


class Daemon:
    def __init__(self, data: Path, *arguments: str, **environment: str) -> None:
        self.data = data
        env = {k: v for k, v in os.environ.items() if not k.startswith("MISTUDIO_")} | environment
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVE, "--data", str(data), "--port", "0", *arguments, "serve"],
            env=env,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said: list[str] = []
        self.url = ""

    def ready(self) -> Daemon:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)
            if " is at http" in line:
                self.url = line.split(" is at ")[1].split(",")[0]
                return self
        raise AssertionError("".join(self.said))

    def call(self, path: str, body: dict[str, Any] | None = None, method: str | None = None) -> Any:
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as response:
            text = response.read()
        return json.loads(text) if text else None

    def until(self, job: int, state: str, limit_s: float = 60.0) -> Any:
        end = time.monotonic() + limit_s
        while (found := self.call(f"/api/jobs/{job}"))["state"] != state:
            assert time.monotonic() < end, found
            time.sleep(0.02)
        return found

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        code = self.process.wait(30)
        if self.process.stderr is not None:
            self.said += self.process.stderr.readlines()
            self.process.stderr.close()
        return code


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    started: list[Daemon] = []

    def begin(*arguments: str, **environment: str) -> Daemon:
        started.append(Daemon(tmp_path / "data", *arguments, **environment))
        return started[-1]

    yield begin
    for daemon in started:
        if daemon.process.poll() is None:
            daemon.end(signal.SIGKILL)
        elif daemon.process.stderr is not None:
            daemon.process.stderr.close()


def test_the_daemon_starts_answers_and_ends_with_0(start: Any) -> None:
    daemon = start().ready()
    assert daemon.call("/api/status")["name"] == "mistudio"
    resident = int(Path(f"/proc/{daemon.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert resident < 80_000_000, "a board of 8 GB has better uses for its memory"
    assert daemon.end() == 0


def test_an_open_stream_does_not_hold_up_the_end(start: Any) -> None:
    daemon = start().ready()
    with urllib.request.urlopen(daemon.url + "/api/events", timeout=60) as stream:
        stream.readline()
        began = time.monotonic()
        assert daemon.end() == 0
        assert time.monotonic() - began < 10


def test_the_daemon_loads_neither_torch_nor_numpy(tmp_path: Path) -> None:
    code = (
        "import sys, mistudiod.app, mistudiod.__main__, mistudiod.monitor\n"
        "heavy = {'torch', 'numpy', 'pandas', 'transformers', 'datasets', 'pyarrow', 'safetensors', 'jtop'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_daemon_without_stdin_stdout_and_stderr_works_and_its_data_holds_no_log(tmp_path: Path) -> None:
    data = tmp_path / "data"
    serve = [sys.executable, "-c", SERVE, "--data", str(data), "--port", "0", "serve"]
    daemon = Daemon.__new__(Daemon)
    daemon.data, daemon.said = data, []
    daemon.process = subprocess.Popen(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *serve])
    try:
        end = time.monotonic() + 20
        while not (log := data / "mistudiod.log").exists() or " is at " not in log.read_text():
            assert time.monotonic() < end and daemon.process.poll() is None
            time.sleep(0.05)
        daemon.url = log.read_text().split(" is at ")[1].split(",")[0]
        assert daemon.until(daemon.call("/api/jobs", {"spec": dataset("ok")})["id"], "done")
        assert {os.readlink(f"/proc/{daemon.process.pid}/fd/{number}") for number in range(3)} == {"/dev/null"}
    finally:
        assert daemon.end() == 0


def test_a_taken_port_is_one_sentence(start: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        daemon = start("--port", str(taken.getsockname()[1]))
        assert daemon.process.wait(60) == 75, "which systemd does not take for a setting that is wrong: it tries again"
        said = daemon.process.stderr.read()
    assert "cannot listen" in said and "MISTUDIO_PORT" in said and "Traceback" not in said


def test_an_address_that_this_machine_does_not_have_yet_is_one_sentence_and_tried_again(start: Any) -> None:
    daemon = start("--listen", "192.0.2.1")
    assert daemon.process.wait(60) == 75
    said = daemon.process.stderr.read()
    assert "cannot listen on 192.0.2.1" in said and "give an address of this machine" in said
    assert "another program" not in said and "Traceback" not in said


def test_the_database_never_has_the_number_of_a_stream_that_was_closed(tmp_path: Path) -> None:
    script = f"exec '{sys.executable}' -c \"$1\" --data '{tmp_path / 'data'}' --port 0 serve <&- >&- 2>&-"
    with subprocess.Popen(["bash", "-c", script, "bash", SERVE]) as daemon:
        try:
            end = time.monotonic() + 30
            while not (tmp_path / "data" / "mistudiod.sock").exists():
                assert time.monotonic() < end and daemon.poll() is None
                time.sleep(0.02)
            assert [os.readlink(f"/proc/{daemon.pid}/fd/{number}") for number in range(3)] == ["/dev/null"] * 3
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(30) == 0
        finally:
            daemon.kill()


def test_two_daemons_do_not_share_a_data_folder(start: Any) -> None:
    first = start().ready()
    second = start()
    assert second.process.wait(60) == 78
    assert "another daemon uses the data folder" in second.process.stderr.read()
    assert first.end() == 0


def test_a_damaged_database_is_one_sentence(start: Any, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mistudio.db").write_bytes(b"this is no database" * 100)
    daemon = start()
    assert daemon.process.wait(60) == 78
    said = daemon.process.stderr.read()
    assert "cannot be used" in said and "reindex" in said and "Traceback" not in said


def test_a_data_folder_that_cannot_be_made_is_one_sentence(start: Any, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    daemon = start()
    assert daemon.process.wait(60) == 78
    said = daemon.process.stderr.read()
    assert "data folder" in said and "Traceback" not in said


def test_an_unknown_variable_is_warned_of_and_the_clients_are_not(start: Any) -> None:
    daemon = start(MISTUDIO_LISTN="x", MISTUDIO_HOST="h", MISTUDIO_TOKEN="t").ready()
    said = "".join(daemon.said)
    assert "MISTUDIO_LISTN" in said and "MISTUDIO_LISTEN?" in said
    assert "MISTUDIO_HOST" not in said and "MISTUDIO_TOKEN" not in said


@pytest.mark.parametrize("name", ["slow", "deaf", "hang"])
def test_a_killed_daemon_takes_its_worker_along_and_the_job_goes_on(start: Any, name: str) -> None:
    daemon = start().ready()
    job = daemon.call("/api/jobs", {"spec": dataset(name)})["id"]
    pid = _pid(daemon.data / "runs" / str(job) / "attempt-1")
    daemon.end(signal.SIGKILL)
    _wait_gone(pid)
    again = start().ready()
    _pid(again.data / "runs" / str(job) / "attempt-2")
    found = again.until(job, "running")
    assert found["attempts"] == 2


@pytest.mark.parametrize(("what", "state"), [("pause", "paused"), ("stop", "stopped")])
def test_what_was_asked_before_the_daemon_was_killed_is_heeded_after(start: Any, what: str, state: str) -> None:
    daemon = start().ready()
    job = daemon.call("/api/jobs", {"spec": dataset("deaf")})["id"]
    _pid(daemon.data / "runs" / str(job) / "attempt-1")
    daemon.call(f"/api/jobs/{job}/{what}", {})
    daemon.end(signal.SIGKILL)
    assert start().ready().until(job, state)["attempts"] == 1


def test_a_worker_that_outlives_its_daemon_is_ended_before_its_job_runs_again(start: Any) -> None:
    daemon = start().ready()
    job = daemon.call("/api/jobs", {"spec": dataset("hang")})["id"]
    _pid(daemon.data / "runs" / str(job) / "attempt-1")
    daemon.until(job, "running")
    daemon.end(signal.SIGKILL)
    # A process of the same standing as a worker whose lifelines have both failed.
    orphan = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    time.sleep(0.2)
    from mistudiod.runner import starttime

    with contextlib.closing(sqlite3.connect(daemon.data / "mistudio.db")) as db:
        db.execute("update attempts set pid = ?, pid_starttime = ?", (orphan.pid, starttime(orphan.pid)))
        db.commit()
    again = start().ready()
    assert orphan.wait(60) == -signal.SIGKILL
    _pid(again.data / "runs" / str(job) / "attempt-2")


def test_a_process_that_has_the_old_pid_by_chance_is_left_alone(start: Any) -> None:
    daemon = start().ready()
    job = daemon.call("/api/jobs", {"spec": dataset("hang")})["id"]
    _pid(daemon.data / "runs" / str(job) / "attempt-1")
    daemon.until(job, "running")
    daemon.end(signal.SIGKILL)
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    with contextlib.closing(sqlite3.connect(daemon.data / "mistudio.db")) as db:
        db.execute("update attempts set pid = ?", (bystander.pid,))
        db.commit()
    start().ready()
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


def test_half_written_folders_are_swept_at_start_and_never_listed(start: Any, tmp_path: Path) -> None:
    data = tmp_path / "data"
    put_artifact(data, "saes", ".partial-x-1", "recipe.json")
    put_artifact(data, "saes", "whole", "recipe.json")
    put_artifact(data, "saes", "empty", "cfg.json")
    (data / "features" / "whole" / ".partial-1").mkdir(parents=True)
    daemon = start().ready()
    assert [sae["name"] for sae in daemon.call("/api/saes")["saes"]] == ["whole"]
    assert not (data / "saes" / ".partial-x-1").exists()
    assert not (data / "features" / "whole" / ".partial-1").exists()


def test_the_index_is_rebuilt_from_the_folders_without_the_database(start: Any) -> None:
    daemon = start().ready()
    put_artifact(daemon.data, "tokens", "t", "tokenization.json")
    daemon.end()
    daemon = start().ready()
    for spec in (dataset("ok"), train("ok")):
        daemon.until(daemon.call("/api/jobs", {"spec": spec})["id"], "done")
    before = {noun: daemon.call(f"/api/{noun}s")[f"{noun}s"] for noun in ("dataset", "tokenization", "sae")}
    daemon.end()
    for path in daemon.data.glob("mistudio.db*"):
        path.unlink()
    command = [sys.executable, "-m", "mistudiod", "reindex", "--data", str(daemon.data)]
    subprocess.run(command, check=True, capture_output=True)
    daemon = start().ready()
    for noun, artifacts in before.items():
        after = daemon.call(f"/api/{noun}s")[f"{noun}s"]
        assert [(a["name"], a["created_at"]) for a in after] == [(a["name"], a["created_at"]) for a in artifacts]


def _pid(note: Path, limit_s: float = 60.0) -> int:
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if text := note.read_text():
                return int(text)
        time.sleep(0.02)
    raise AssertionError(f"{note} did not appear")


def _wait_gone(pid: int, limit_s: float = 1.0) -> None:
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                return
        except OSError:
            return
        time.sleep(0.01)
    raise AssertionError(f"process {pid} is still there after {limit_s} s")
