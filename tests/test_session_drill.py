"""Trainings and a session that is asked at random, workers and daemon killed at random: the GPU has one holder at a
time, nothing is lost, nothing is left. A short one in every run, a long one by ``./run-tests.sh drill``.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from conftest import FAKE_WORKER, train
from sessions import alive, leases, put_saes
from test_daemon import Daemon

from mistudiod.jobs import ENDED

# The daemon with the fake worker, and a route that asks the session to write, as those of steering do.
SERVE = f"""
import sys
from mistudiod import runner
runner.WORKER = {FAKE_WORKER!r}
import mistudiod.app
mistudiod.app.make_app.__defaults__ = (runner.WORKER,)
from mistudiod.api.fields import Fields
from mistudiod.api.keys import SESSION
from mistudiod.api.route import route
from mistudiod.specs import Steer
from mistudiod.tokens import Scope

class Body(Fields):
    spec: Steer
    keep_alive: str
    if_busy: str

@route("POST", "/test/steer", scope=Scope.WRITE, body=Body, answer=Body, streams=True)
async def write(asked):
    body = asked.body
    async for event in asked.app[SESSION].ask(body.spec, keep_alive=body.keep_alive, if_busy=body.if_busy):
        pass
    return event.result

mistudiod.app.ROUTES += (write,)
from mistudiod.__main__ import run
run()
"""
REFUSALS = {"gpu_busy", "session_busy", "session_failed", "too_many", "conflict"}


class Drilled(Daemon):
    def __init__(self, data: Path) -> None:
        self.data, self.said, self.url = data, [], ""
        graces = ("--session-grace-s", "0.3", "--stop-grace-s", "1", "--term-grace-s", "1")
        command = [sys.executable, "-c", SERVE, "--data", str(data), "--port", "0", *graces, "serve"]
        env = {k: v for k, v in os.environ.items() if not k.startswith("MISTUDIO_")}
        self.log = open(data.parent / "daemon.log", "a")  # noqa: SIM115
        self.process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
        self.ready()
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.log.writelines(self.process.stderr)

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        code = self.process.wait(30)
        self.reader.join(10)
        assert self.process.stderr is not None
        self.process.stderr.close()
        self.log.close()
        return code


class Drill:
    def __init__(self, data: Path, seed: int) -> None:
        self.data, self.random = data, random.Random(seed)
        self.daemon = Drilled(data)
        self.jobs: list[int] = []
        self.asking: list[threading.Thread] = []
        self.answers: dict[str, int] = {}
        self.done: dict[str, int] = {}

    def run(self, rounds: int) -> None:
        ways = {
            self.submit: 6, self.ask: 8, self.kill_holder: 4, self.kill_daemon: 2, self.restart: 1, self.person: 2,
        }  # fmt: skip
        self.submit()
        for _ in range(rounds):
            way = self.random.choices([*ways], [*ways.values()])[0]
            self.done[way.__name__] = self.done.get(way.__name__, 0) + 1
            way()
            time.sleep(self.random.uniform(0, 0.5))

    def submit(self) -> None:
        # Twice as long as a grace: some end by themselves, some are interrupted, and ``once`` dies of itself.
        name = self.random.choice(["brief", "brief-brief", "once-brief", "brief-fail", "ok"])
        name = f"{name}-n{len(self.jobs)}"
        self.jobs.append(self.daemon.call("/api/jobs", {"spec": train(name)})["id"])

    def ask(self) -> None:
        sae = self.random.choice(["s", "s", "s", "o"])
        prompt = self.random.choice(["hello", "slow", "slow", "die", "oom"])
        spec = {"sae": sae, "prompt": prompt, "steering": [{"feature": 1}], "max_tokens": self.random.choice([3, 50])}
        body = {
            "spec": spec, "keep_alive": self.random.choice(["0", "200ms", "5m", "-1"]),
            "if_busy": self.random.choice(["pause", "pause", "refuse"]),
        }  # fmt: skip
        url = self.daemon.url
        thread = threading.Thread(target=self._ask, args=(url, body))
        thread.start()
        self.asking.append(thread)

    def _ask(self, url: str, body: dict[str, Any]) -> None:
        data, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
        try:
            with urllib.request.urlopen(
                urllib.request.Request(f"{url}/test/steer", data, headers), timeout=60
            ) as answer:
                json.load(answer)
            came = "answered"
        except urllib.error.HTTPError as refused:
            with refused:
                came = json.load(refused)["error"]["code"]
        except (OSError, EOFError):  # the daemon was killed
            came = "cut off"
        self.answers[came] = self.answers.get(came, 0) + 1

    def kill_holder(self) -> None:
        for one in leases(self.data):
            if one["released_at"] is None and one["pid"] and alive(one["pid"]):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(one["pid"], signal.SIGKILL)

    def kill_daemon(self) -> None:
        if self.random.random() < 0.5:
            self.kill_holder()
        self.daemon.end(signal.SIGKILL)
        self.daemon = Drilled(self.data)

    def restart(self) -> None:
        assert self.daemon.end() == 0
        self.daemon = Drilled(self.data)

    def person(self) -> None:
        """What a person does to a job that may just be making room."""
        job, what = self.random.choice(self.jobs), self.random.choice(["pause", "resume", "retry"])
        with contextlib.suppress(urllib.error.HTTPError):
            self.daemon.call(f"/api/jobs/{job}/{what}", {})

    def settle(self, limit_s: float) -> list[dict[str, Any]]:
        """The jobs once they have ended; those that a person has paused are let go on first."""
        for thread in self.asking:
            thread.join(60)
            assert not thread.is_alive()
        urllib.request.urlopen(urllib.request.Request(f"{self.daemon.url}/api/session", method="DELETE")).close()
        end = time.monotonic() + limit_s
        while True:
            jobs = [self.daemon.call(f"/api/jobs/{job}") for job in self.jobs]
            for job in jobs:
                if job["state"] == "paused":
                    self.daemon.call(f"/api/jobs/{job['id']}/resume", {})
            if all(job["state"] in ENDED for job in jobs):
                return jobs
            assert time.monotonic() < end, [(job["id"], job["state"]) for job in jobs]
            time.sleep(0.1)


def overlaps(data: Path) -> list[Any]:
    """Pairs of leases that were held at the same time."""
    query = """select a.id, b.id from leases a join leases b on a.lane = b.lane and a.id < b.id
               where a.released_at is null or a.released_at > b.taken_at"""
    with contextlib.closing(sqlite3.connect(data / "mistudio.db")) as db:
        return db.execute(query).fetchall()


def drill(home: Path, rounds: int, seed: int) -> None:
    data = home / "data"
    put_saes(data)
    one = Drill(data, seed)
    try:
        one.run(rounds)
        jobs = one.settle(60 + 2 * len(one.jobs))
    finally:
        one.daemon.end()
    print(f"seed {seed}: {one.done}, {len(jobs)} jobs, {len(leases(data))} leases, answers {one.answers}")
    assert overlaps(data) == [] and not (data / "overlap").exists()
    held = leases(data)
    assert all(lease["released_at"] and lease["reason"] for lease in held)
    for job in jobs:
        assert job["state"] == "done" or (job["state"] == "failed" and job["error"]["message"]), job
        assert job["yielded"] is False
    assert not [lease["pid"] for lease in held if lease["pid"] and alive(lease["pid"])]
    assert set(one.answers) <= REFUSALS | {"answered", "cut off"}, one.answers
    assert "Traceback" not in (home / "daemon.log").read_text()


def test_kills_and_sessions_at_random_leave_one_holder_at_a_time_and_lose_nothing(tmp_path: Path) -> None:
    drill(tmp_path, rounds=15, seed=7)


@pytest.mark.drill
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(4))
def test_the_same_for_long(tmp_path: Path, seed: int) -> None:
    drill(tmp_path, rounds=120, seed=seed)
