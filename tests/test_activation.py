"""Sockets that systemd has opened, passed by its own systemd-socket-activate."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import dataset
from test_daemon import SERVE, _pid

from mistudiod import listen
from mistudiod.settings import Settings

needs_systemd = pytest.mark.skipif(shutil.which("systemd-socket-activate") is None, reason="systemd is not here")
PASSED = {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(str(self._path))


def ask(connection: http.client.HTTPConnection, method: str, path: str, body: Any = None) -> Any:
    with contextlib.closing(connection):
        headers = {"Content-Type": "application/json"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        assert response.status < 300, response.read()
        return json.load(response)


@needs_systemd
def test_sockets_of_systemd_are_answered_in_the_place_of_our_own(tmp_path: Path, port: int) -> None:
    unix = tmp_path / "api.sock"
    passed = [
        f"--setenv=PYTHONPATH={os.environ.get('PYTHONPATH', '')}",
        f"--setenv=RUNTIME_DIRECTORY={tmp_path / 'run'}",
    ]
    program = [sys.executable, "-c", SERVE, "--data", str(tmp_path / "data"), "serve"]
    command = ["systemd-socket-activate", "-l", f"127.0.0.1:{port}", "-l", str(unix), *passed, *program]
    (tmp_path / "run").mkdir()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as daemon:
        assert daemon.stderr is not None
        try:
            assert all("Listening on" in daemon.stderr.readline() for _ in range(2))
            status = ask(http.client.HTTPConnection("127.0.0.1", port, timeout=30), "GET", "/api/status")
            assert status["name"] == "mistudio"
            assert ask(UnixConnection(unix), "GET", "/api/status")["same_user"] is True
            assert ask(UnixConnection(tmp_path / "data" / "mistudiod.sock"), "GET", "/api/status")["same_user"] is True
            job = ask(UnixConnection(unix), "POST", "/api/jobs", {"spec": dataset("slow")})["id"]
            worker = _pid(tmp_path / "data" / "runs" / str(job) / "attempt-1")
            environ = Path(f"/proc/{worker}/environ").read_bytes().decode()
            assert not {line.partition("=")[0] for line in environ.split("\0")} & PASSED
            daemon.send_signal(signal.SIGTERM)
            said = daemon.stderr.read()
            assert daemon.wait(30) == 0
        finally:
            daemon.kill()
    assert f"is at http://127.0.0.1:{port}," in said
    assert unix.exists() and not any((tmp_path / "run").iterdir())  # theirs stays, and we made none


def refused(data: Path, opened: str, **options: Any) -> str:
    """What a daemon says that is passed as its file descriptor 3 what a shell has opened."""
    serve = f'"{sys.executable}" -m mistudiod serve --data "{data}" --port 0'
    script = f"exec env LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web {serve} {opened}"
    found = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, **options)
    assert found.returncode == 78 and "Traceback" not in found.stderr
    assert not data.exists()
    return found.stderr


def test_what_is_no_socket_is_one_sentence(tmp_path: Path) -> None:
    assert "file descriptor 3 (web) of LISTEN_FDS is no socket: " in refused(tmp_path / "data", "3</dev/null")


def test_a_socket_to_which_nobody_connects_is_one_sentence(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(("127.0.0.1", 0))
        said = refused(tmp_path / "data", f"3<&{datagrams.fileno()}", pass_fds=(datagrams.fileno(),))
    assert "give TCP or UNIX sockets by ListenStream=, with Accept=no" in said


def test_an_address_that_others_reach_decides_who_needs_a_token() -> None:
    with socket.create_server(("127.0.0.1", 0)) as near, socket.create_server(("0.0.0.0", 0)) as far:
        settings, listeners = listen.on(Settings(listen="127.0.0.1"), [near, far])
        assert (settings.listen, settings.port, listeners) == ("0.0.0.0", far.getsockname()[1], [near, far])
        settings, _ = listen.on(Settings(listen="0.0.0.0"), [near])
        assert settings.listen == "127.0.0.1"
