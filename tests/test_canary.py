"""A secret and a token that can be recognised go through every door, and are looked for in every byte that is left."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import FAKE_WORKER, dataset, put_artifact

from mistudiod.secret import Secrets

# The daemon as it is installed, but for its worker and a log in which nothing is left out.
SERVE = f"""
import logging
real = logging.basicConfig
logging.basicConfig = lambda **options: real(**(options | {{"level": logging.DEBUG}}))
from mistudiod import runner
runner.WORKER = {FAKE_WORKER!r}
import mistudiod.app
mistudiod.app.make_app.__defaults__ = (runner.WORKER,)
from mistudiod.__main__ import run
run()
"""
# Of the features of an SAE it is told by hand; no more of them is asked here.
FEATURES = """
import mistudiod.pages
class Pages:
    d_sae, manifest = 4, {"dead": 0}
    def __init__(self, folder): pass
    def order(self, key): return [3, 2, 1, 0]
    def page(self, index): return {"index": index, "examples": []}
mistudiod.pages.Pages = Pages
"""
ROOT = Path(__file__).parent.parent
ENDED = {"done", "failed", "stopped"}


class Daemon:
    """A daemon whose log and answers are kept to the last byte."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self.data, self.log = folder / "data", folder / "daemon.log"
        self.answers: list[bytes] = []
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", FEATURES + SERVE, "--data", str(self.data), "--port", "0", "serve"],
                env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONASYNCIODEBUG": "1", **environ},
                stderr=log,
                stdout=log,
            )
        self.port = 0
        end = time.monotonic() + 30
        while not self.port:
            assert self.process.poll() is None and time.monotonic() < end, self.log.read_text()
            _, _, address = self.log.read_text().partition(" is at http://127.0.0.1:")
            self.port = int(address.partition(",")[0] or 0)
            time.sleep(0.05)

    def call(self, method: str, path: str, body: Any = None, kept: bool = True, **headers: str) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, data or None, {"Content-Type": "application/json"} | named)
            answer = connection.getresponse()
            text = answer.read()
        if kept:
            self.answers.append(f"{answer.status} {answer.reason} {answer.headers}".encode() + text)
        with contextlib.suppress(ValueError):
            return answer.status, json.loads(text)
        return answer.status, text

    def raw(self, request: bytes) -> None:
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            with contextlib.suppress(OSError):
                while data := connection.recv(65536):
                    answer += data
        # What is no HTTP aiohttp answers by itself, and shows whoever sent it what it could not read.
        if not answer.startswith((b"HTTP/1.0 400 ", b"HTTP/1.1 400 ")) or b"text/plain" not in answer:
            self.answers.append(answer)

    @contextlib.contextmanager
    def stream(self) -> Iterator[None]:
        """The event stream is followed during the block, and kept."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", "/api/events")
        answer = connection.getresponse()

        def follow() -> None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                while line := answer.readline():
                    self.answers.append(line)

        follower = threading.Thread(target=follow)
        follower.start()
        try:
            yield
        finally:
            time.sleep(0.5)
            if connection.sock is not None:
                connection.sock.shutdown(socket.SHUT_RDWR)
            follower.join()
            connection.close()
            answer.close()

    def run(self, name: str) -> int:
        """The id of an add_dataset job that the fake worker has ended."""
        status, job = self.call("POST", "/api/jobs", {"spec": dataset(name)})
        assert status == 201, job
        self.until(job["id"], ENDED)
        return int(job["id"])

    def until(self, job: int, states: set[str]) -> Any:
        end = time.monotonic() + 30
        while (found := self.call("GET", f"/api/jobs/{job}")[1])["state"] not in states:
            assert time.monotonic() < end, found
            time.sleep(0.05)
        return found

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(30) == 0

    def traces(self, mark: str) -> list[str]:
        """Where the mark is found: answers, log, every file of the data folder but the one for secrets, every row."""
        needle = mark.encode()
        found = [f"answer: {one[:2000]!r}" for one in self.answers if needle in one]
        if needle in self.log.read_bytes():
            found += [line for line in self.log.read_text().splitlines() if mark in line]
        for path in self.data.rglob("*"):
            if mark in path.name or (path.is_file() and path.name != "secrets.json" and needle in path.read_bytes()):
                found.append(str(path))
        with contextlib.closing(sqlite3.connect(self.data / "mistudio.db")) as db:
            found += [line for line in db.iterdump() if mark in line]
        return found


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    started: list[Daemon] = []

    def begin(**environ: str) -> Daemon:
        started.append(Daemon(tmp_path, environ))
        return started[-1]

    yield begin
    for daemon in started:
        if daemon.process.poll() is None:
            daemon.process.kill()
            daemon.process.wait()


def opened(door: str, start: Any, tmp_path: Path, canary: str) -> Daemon:
    """A daemon to which the secret has come in by that door."""
    if door == "environment":
        return start(HF_TOKEN=canary)
    if door == "credentials":
        (tmp_path / "credentials").mkdir()
        (tmp_path / "credentials" / "hf").write_text(f"{canary}\n")
        return start(CREDENTIALS_DIRECTORY=str(tmp_path / "credentials"))
    if door == "file":
        (tmp_path / "data").mkdir()
        file = tmp_path / "data" / "secrets.json"
        file.touch(0o600)
        file.write_text(json.dumps({"hf": {"value": canary, "set_at": "2026-01-01T00:00:00.000Z"}}))
        return start()
    daemon = start()
    assert daemon.call("PUT", "/api/secrets/hf", {"value": canary})[0] == 204
    return daemon


@pytest.mark.parametrize(
    ("door", "shape"),
    [
        ("api", "hf_CANARY{}"),
        ("file", 'canary "{}" \\ %'),
        ("credentials", 'canary "{}" \\ %'),
        ("environment", "hf_CANARY{}"),
    ],
)
def test_a_secret_is_found_nowhere_but_where_it_was_put(door: str, shape: str, start: Any, tmp_path: Path) -> None:
    mark = secrets.token_hex(12)
    canary = shape.format(mark)
    daemon = opened(door, start, tmp_path, canary)
    with daemon.stream():
        told = daemon.run("tell-leak-ok")
        failed = daemon.run("leak-silent")
        _, job = daemon.call("POST", "/api/jobs", {"spec": dataset("leak-slow")})
        end = time.monotonic() + 20
        while not (pids := list(daemon.data.glob(f"runs/{job['id']}/attempt-*"))) or not pids[0].read_text():
            assert time.monotonic() < end
            time.sleep(0.05)
        for pid in (pids[0].read_text(), str(daemon.process.pid)):
            seen = Path("/proc", pid, "cmdline").read_bytes()
            seen += Path("/proc", pid, "environ").read_bytes() if pid != str(daemon.process.pid) else b""
            assert mark.encode() not in seen
        misuse(daemon, canary)
        live = copied(daemon.data, tmp_path / "live")
        assert not [path for path in live.rglob("*") if path.is_file() and mark.encode() in path.read_bytes()]
        daemon.call("POST", f"/api/jobs/{job['id']}/stop")
        daemon.until(job["id"], ENDED)
        for path in ("", f"/{failed}", f"/{failed}/log", f"/{failed}/metrics", f"/{told}", f"/{told}/log"):
            assert daemon.call("GET", f"/api/jobs{path}")[0] == 200
        for path in ("status", "system", "secrets", "tokens", "datasets", "openapi.json"):
            assert daemon.call("GET", f"/api/{path}")[0] == 200, path
    metrics = daemon.call("GET", f"/api/jobs/{told}/metrics")[1]["metrics"]
    assert hashlib.sha256(canary.encode()).hexdigest() in metrics[0]["values"]  # it had the secret, and said it
    error = daemon.call("GET", f"/api/jobs/{failed}")[1]["error"]
    assert error["message"] == "it failed with ***"
    assert "a traceback with ***" in daemon.call("GET", f"/api/jobs/{failed}/log")[1]["log"]
    daemon.end()
    assert daemon.traces(mark) == []


def copied(data: Path, place: Path) -> Path:
    """All but the secrets, while the daemon works: what is renamed before it is copied is copied under its new name."""
    for _ in range(50):
        try:
            return Path(shutil.copytree(data, place, ignore=shutil.ignore_patterns("secrets.json", "*.sock")))
        except (shutil.Error, FileNotFoundError):
            shutil.rmtree(place)
    raise AssertionError("files vanish all the while")


ENDPOINTS = "box=https://192.0.2.1:8000/v1,openai=https://192.0.2.2/v1"  # of nobody: RFC 5737


@pytest.mark.parametrize(("door", "name"), [("api", "192.0.2.1:8000"), ("environment", "openai")])
def test_the_key_of_an_endpoint_is_found_nowhere_but_where_it_was_put(
    door: str, name: str, start: Any, tmp_path: Path
) -> None:
    mark = secrets.token_hex(12)
    canary = f"sk-CANARY{mark}"
    put_artifact(tmp_path / "data", "saes", "s", "recipe.json", '{"width": 4}')
    put_artifact(tmp_path / "data", "features", "s/3", "manifest.json", '{"d_sae": 4}')
    daemon = start(MISTUDIO_ENDPOINTS=ENDPOINTS, **({"OPENAI_API_KEY": canary} if door == "environment" else {}))
    if door == "api":
        assert daemon.call("PUT", f"/api/secrets/{name}", {"value": canary})[0] == 204
    spec = {"kind": "label", "sae": "s", "endpoint": "openai" if name == "openai" else "box", "model": "m", "top": 4}
    jobs = []
    with daemon.stream():
        for script in ("tellkey-leakkey", "leakkey-silent"):
            assert daemon.call("PUT", f"/api/templates/{script}", {"text": "--- user\na prompt: {strong}\n"})[0] == 200
            _, job = daemon.call("POST", "/api/jobs", {"spec": {**spec, "template": script, "again": True}})
            daemon.until(job["id"], ENDED)
            jobs.append(job["id"])
            for path in ("", "/log", "/metrics"):
                assert daemon.call("GET", f"/api/jobs/{job['id']}{path}")[0] == 200
        for path in ("labels/export", "labels/summary", "features/1/label", "features/1/labels", "lists"):
            assert daemon.call("GET", f"/api/saes/s/{path}")[0] == 200
        endpoints = daemon.call("GET", "/api/endpoints")[1]["endpoints"]
        assert [one["secret_name"] for one in endpoints if one["has_secret"]] == [name]
    metrics = daemon.call("GET", f"/api/jobs/{jobs[0]}/metrics")[1]["metrics"]
    assert hashlib.sha256(canary.encode()).hexdigest() in metrics[0]["values"]  # it had the key, and said it
    assert daemon.call("GET", "/api/saes/s/features/1/label")[1]["text"] == "named ***"
    assert daemon.call("GET", f"/api/jobs/{jobs[1]}")[1]["error"]["message"] == "it failed with ***"
    daemon.end()
    assert daemon.traces(mark) == []


def misuse(daemon: Daemon, canary: str) -> None:
    """A person gives the secret in every place where it does not belong."""
    for value in (canary * 200, f"{canary}\nx", [canary], {canary: canary}, None):
        assert daemon.call("PUT", "/api/secrets/judge", {"value": value})[0] == 400
    for body in ({canary: 1}, {"value": "x", canary: 1}, canary, [canary]):
        assert daemon.call("PUT", "/api/secrets/judge", body)[0] == 400
    assert daemon.call("PUT", "/api/secrets/judge", json.dumps({"value": canary})[:-3].encode())[0] == 400
    assert daemon.call("PUT", "/api/secrets/judge", {"value": canary}, Content_Type="text/plain")[0] == 415
    assert daemon.call("POST", "/api/secrets", {"value": canary})[0] in (404, 405)
    if " " not in canary:
        assert daemon.call("PUT", f"/api/secrets/{canary}", {"value": "x"})[0] == 404
        assert daemon.call("DELETE", f"/api/secrets/{canary}")[0] == 404
        assert daemon.call("GET", f"/api/{canary}")[0] == 404
        assert daemon.call("GET", f"/api/jobs?{canary}=1")[0] == 400


def test_what_c_code_prints_is_hidden_where_the_log_is_shown(start: Any) -> None:
    mark = secrets.token_hex(12)
    daemon = start(HF_TOKEN=f'canary "{mark}" \\ %')
    job = daemon.run("leakraw-silent")
    assert "by C code: ***" in daemon.call("GET", f"/api/jobs/{job}/log")[1]["log"]
    assert "by C code: ***" in daemon.call("GET", f"/api/jobs/{job}")[1]["error"]["log"]
    daemon.end()
    assert daemon.traces(mark) == [str(daemon.data / "runs" / str(job) / "log.txt")]


def test_a_token_is_found_nowhere_but_in_the_answer_that_gave_it(start: Any) -> None:
    daemon = start()
    made = [daemon.call("POST", "/api/tokens", {"name": f"t{i}", "scope": "admin"}, kept=False)[1] for i in range(2)]
    tokens = [one["token"] for one in made]
    for token in tokens:
        use(daemon, token)
    assert daemon.call("DELETE", f"/api/tokens/{made[0]['id']}", Authorization=f"Bearer {tokens[1]}")[0] == 204
    assert daemon.call("GET", "/api/tokens", Authorization=f"Bearer {tokens[0]}")[0] == 401
    (left,) = daemon.call("GET", "/api/tokens", Authorization=f"Bearer {tokens[1]}")[1]["tokens"]
    assert left["name"] == "t1" and left["last_used_at"] is not None
    daemon.run("ok")
    daemon.end()
    for token in tokens:
        secret = token.split("_", 2)[2]
        assert daemon.traces(secret) == []
        assert daemon.traces(secret[:20]) == []
        assert daemon.traces(base64.b64encode(token.encode()).decode()) == []


def use(daemon: Daemon, token: str) -> None:
    """A request with the token as it should be, then with the token in every wrong way and place."""
    assert daemon.call("GET", "/api/tokens", Authorization=f"Bearer {token}")[0] == 200
    basic = base64.b64encode(token.encode()).decode()
    for header in (token, f"Basic {basic}", f"Bearer {token}x", f"Bearer {token[:-1]}", f"Bearer  {token} {token}",
                   f"Token {token}", f"Bearer {token.upper()}", f"Bearer,{token}"):  # fmt: skip
        daemon.call("GET", "/api/tokens", Authorization=header)
    for path in (f"/api/tokens/{token}", f"/api/{token}", f"/api/jobs?token={token}", f"/api/jobs?{token}=1"):
        assert daemon.call("GET", path)[0] in (400, 404, 405)
    assert daemon.call("GET", "/api/status", Host=token)[0] == 421
    assert daemon.call("POST", "/api/jobs", {"spec": {token: token}, token: token})[0] == 400
    assert daemon.call("POST", "/api/tokens", {"name": token, "scope": token})[0] == 400
    host = b"Host: 127.0.0.1\r\n"
    bearer = f"Authorization: Bearer {token}".encode()
    for request in (
        b"GET /api/status HTTP/1.1\r\n" + host + bearer + b"\x00\r\n\r\n",
        b"GET /api/status HTTP/1.1\r\n" + host + bearer.replace(b": ", b" : ") + b"\r\n\r\n",
        b"GET /api/status HTTP/1.1\r\n" + host + token.encode() + b"\r\n\r\n",
        b"GET /api/status HTTP/1.1\r\n" + host + bearer + b"\r\n" + bearer + b"\r\n\r\n",
        b"GET /api/status HTTP/1.1\r\n" + host + bearer + b"y" * 20_000 + b"\r\n\r\n",
        bearer + b"\r\n\r\n",
        b"GET " + token.encode() + b"\r\n\r\n",
        b"GET /" + token.encode() + b"\xff HTTP/9.9\r\n\r\n",
        b"PUT /api/secrets/hf HTTP/1.1\r\n" + host + b"Content-Type: application/json\r\nContent-Length: 9999\r\n\r\n"
        + json.dumps({"value": token}).encode(),
        b"POST /api/jobs HTTP/1.1\r\n" + host + b"Transfer-Encoding: chunked\r\n\r\n" + token.encode() + b"\r\n",
        b"\x16\x03\x01" + token.encode(),
    ):  # fmt: skip
        daemon.raw(request)


def test_an_error_in_the_daemon_itself_tells_no_value(start: Any) -> None:
    mark = secrets.token_hex(12)
    daemon = start(HF_TOKEN=f"hf_CANARY{mark}")
    token = daemon.call("POST", "/api/tokens", {"name": "t", "scope": "admin"}, kept=False)[1]["token"]
    with contextlib.closing(sqlite3.connect(daemon.data / "mistudio.db")) as db:
        db.execute("drop table tokens")  # what no code expects
    for path in ("/api/tokens", f"/api/tokens?{token}=hf_CANARY{mark}", f"/api/tokens/{token}"):
        status, body = daemon.call("GET", path, Authorization=f"Bearer {token}")
        assert status == 500 and "its log has the reason under" in body["error"]["message"]
    daemon.end()
    assert "no such table: tokens" in daemon.log.read_text()
    assert daemon.traces(mark) == [] and daemon.traces(token) == []


def test_the_traces_would_be_found(start: Any, tmp_path: Path) -> None:
    daemon = start()
    mark = f"m{secrets.token_hex(12)}"  # of digits alone it could not be a name
    daemon.run(mark)
    daemon.end()
    found = daemon.traces(mark)
    for place in ("answer", "runs", "mistudio.db", "INSERT"):
        assert [line for line in found if place in line], place
    assert Secrets(tmp_path / "none", {}).all() == []
