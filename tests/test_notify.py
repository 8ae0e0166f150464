"""What the daemon tells its service manager: that it is ready, well, at work, ending; and when it keeps silent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import dataset
from service_manager import Manager, started
from test_daemon import Daemon, _pid

from mistudiod.database import Database
from mistudiod.heartbeat import at_work, beat, patience
from mistudiod.notify import Notify
from mistudiod.store import Jobs
from mistudiod.turn import Turn

WATCHDOG_S = 2.0
OURS = {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with contextlib.closing(Manager(str(tmp_path / "notify"))) as found:
        yield found


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, Manager]]:
    """A daemon as systemd starts it, and what it says."""
    folder = tmp_path_factory.mktemp("service")
    with contextlib.closing(Manager(str(folder / "notify"))) as heard:
        variables = {"NOTIFY_SOCKET": heard.address, "WATCHDOG_USEC": f"{WATCHDOG_S * 1e6:.0f}"}
        variables["RUNTIME_DIRECTORY"] = str(folder)
        with started(folder / "data", **variables) as daemon:
            yield daemon.ready(), heard


def test_it_is_ready_once_it_answers_and_asks_for_time_until_then(service: tuple[Daemon, Manager]) -> None:
    daemon, manager = service
    if "READY" not in {name for message in manager.heard for name in message}:
        manager.until(lambda said: said.get("READY") == "1")
    assert daemon.call("/api/status")["name"] == "mistudio"
    first = manager.heard[0]
    assert first["STATUS"] == "starting" and int(first["EXTEND_TIMEOUT_USEC"]) > 10_000_000


def test_it_says_that_it_is_well_and_what_it_works_at(service: tuple[Daemon, Manager]) -> None:
    daemon, manager = service
    job = daemon.call("/api/jobs", {"spec": dataset("slow")})["id"]
    manager.until(lambda said: "WATCHDOG" in said)
    manager.until(lambda said: said.get("STATUS") == f"job {job} (add_dataset slow: work, 50 %)")
    pid = _pid(daemon.data / "runs" / str(job) / "attempt-1")
    environ = Path(f"/proc/{pid}/environ").read_bytes().decode()
    assert not {line.partition("=")[0] for line in environ.split("\0")} & OURS
    daemon.call(f"/api/jobs/{job}/stop", {})
    manager.until(lambda said: said.get("STATUS") == "nothing is at work")


GROUP_MEMBER = """
import http.client, os, socket, sys
os.chdir(sys.argv[1])
os.setgroups([])
os.setgid(int(sys.argv[3]))
os.setuid(int(sys.argv[2]))
door = socket.socket(socket.AF_UNIX)
try:
    door.connect("api.sock")
except PermissionError:
    sys.exit("no permission")
door.sendall(b"GET /api/status HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n")
print(door.makefile("rb").read().decode().partition("\\r\\n\\r\\n")[2])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_members_of_its_group_use_it_without_a_token_and_are_not_its_user(service: tuple[Daemon, Manager]) -> None:
    daemon, _ = service
    folder, nobody = daemon.data.parent, pwd.getpwnam("nobody")
    assert stat.S_IMODE((folder / "api.sock").stat().st_mode) == 0o660
    folder.chmod(0o750)

    def asked_by(group: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", GROUP_MEMBER, str(folder), str(nobody.pw_uid), str(group)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    member, stranger = asked_by(os.getegid()), asked_by(nobody.pw_gid)
    assert json.loads(member.stdout)["same_user"] is False, member.stderr
    assert stranger.stderr.strip() == "no permission"


def test_while_another_process_holds_the_database_it_does_not_say_that_it_is_well(
    service: tuple[Daemon, Manager],
) -> None:
    daemon, manager = service
    with contextlib.closing(sqlite3.connect(daemon.data / "mistudio.db", isolation_level=None)) as other:
        other.execute("begin immediate")
        assert daemon.process.stderr is not None
        assert any(
            "writer of the database does not answer" in line for line in iter(daemon.process.stderr.readline, "")
        )
        manager.drain()
        time.sleep(WATCHDOG_S)
        assert not [said for said in manager.drain() if "WATCHDOG" in said]
        assert daemon.call("/api/status")["name"] == "mistudio"  # the event loop goes on
        other.execute("rollback")
    manager.until(lambda said: "WATCHDOG" in said)


async def test_while_the_event_loop_stands_still_it_does_not_say_that_it_is_well(
    tmp_path: Path, manager: Manager, caplog: pytest.LogCaptureFixture
) -> None:
    database = Database(tmp_path / "mistudio.db", tmp_path / "backups")
    await database.open()
    beating = asyncio.create_task(beat(Notify(manager.address, 1.2), database, Jobs(database, Turn(0))))
    try:
        await asyncio.to_thread(manager.until, lambda said: "STATUS" in said)  # from now on it sleeps
        manager.drain()
        time.sleep(1.5)  # noqa: ASYNC251 - the very thing
        for _ in range(2000):
            if "the event loop stood still" in caplog.text:
                break
            await asyncio.sleep(0.01)
        assert not [said for said in manager.drain() if "WATCHDOG" in said]
        await asyncio.to_thread(manager.until, lambda said: "WATCHDOG" in said)
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
        await database.close()


def test_it_says_that_it_ends_and_asks_for_time_for_that(tmp_path: Path, manager: Manager) -> None:
    with started(tmp_path / "data", NOTIFY_SOCKET=manager.address, RUNTIME_DIRECTORY=str(tmp_path)) as daemon:
        assert (daemon.ready().data.parent / "api.sock").exists()
        assert daemon.end() == 0
    said = manager.drain()
    stopping = said.index({"STOPPING": "1"})
    assert not (tmp_path / "api.sock").exists()
    assert said[stopping + 1]["STATUS"].startswith("stopping") and "EXTEND_TIMEOUT_USEC" in said[stopping + 1]
    assert not [message for message in said if "WATCHDOG" in message]  # nobody asked for it


async def test_time_is_asked_for_again_and_again_but_not_for_ever(manager: Manager) -> None:
    async with patience(Notify(manager.address), "starting", 0.0):
        await asyncio.sleep(0.05)
    assert manager.drain() == []
    async with patience(Notify(manager.address), "starting", 12.0):
        await asyncio.sleep(0.05)
    (asked,) = manager.drain()
    assert 11_000_000 < int(asked["EXTEND_TIMEOUT_USEC"]) <= 12_000_000


def test_an_abstract_socket_is_heard_too() -> None:
    with contextlib.closing(Manager(f"@mistudio-test-{os.getpid()}")) as manager:
        Notify(manager.address).say(READY=1, STATUS="two\nlines\x00 READY=0")
        assert manager.listen(10) == {"READY": "1", "STATUS": "two lines\x00 READY=0"}


def test_the_variables_are_taken_out_of_the_environment() -> None:
    environ = {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid()), "PATH": "/bin"}
    found = Notify.take(environ)
    assert (found.address, found.watchdog_s, environ) == ("/run/x", 60.0, {"PATH": "/bin"})


@pytest.mark.parametrize(
    "environ",
    [{}, {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "0"}],
    ids=["nothing is set", "another process is meant", "no number", "no time"],
)
def test_without_a_watchdog_there_is_none(environ: dict[str, str]) -> None:
    assert Notify.take(environ).watchdog_s is None


def test_a_manager_that_has_gone_is_said_once_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    notify = Notify(str(tmp_path / "gone"))
    notify.say(READY=1)
    notify.say(WATCHDOG=1)
    assert caplog.text.count("cannot be told anything") == 1


def test_of_many_jobs_the_line_names_three() -> None:
    jobs = [{"id": n, "kind": "tokenize", "spec": {"name": "t"}, "progress": None} for n in range(5)]
    assert at_work(jobs) == "job 0 (tokenize t); job 1 (tokenize t); job 2 (tokenize t); and 2 more"
