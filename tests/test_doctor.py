"""The check-up: what it finds on a sound machine, what it says of each trouble, and that it disturbs nobody."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from conftest import OpenStudio, Studio, standstill
from kernel_files import MEMINFO, tree
from studio import running

from mistudiod import doctor
from mistudiod.doctor import Finding, as_json, as_text, examine, machine, reach, software, storage
from mistudiod.doctor.finding import Subject
from mistudiod.settings import Settings

REPO = Path(__file__).parent.parent
NAMES = ["python", "mistudio", "packages", "torch", "data folder", "file system", "disk space", "disk speed", "sqlite",
         "database", "port", "access", "hub", "memory", "open files", "clock", "settings"]  # fmt: skip


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody outside is asked: nothing listens on port 1."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")


def subject(data: Path, root: Path = Path("/"), **settings: object) -> Subject:
    return Subject(Settings(data=data, **settings), root=root)  # type: ignore[arg-type]


async def test_a_sound_machine_has_no_problem_and_every_check_has_spoken(tmp_path: Path) -> None:
    pytest.importorskip("torch")  # where there is none, that is a problem
    found = await examine(Settings(data=tmp_path / "new", port=0))
    assert [finding.name for finding in found] == NAMES
    assert [finding for finding in found if finding.level == "problem"] == []
    assert not (tmp_path / "new").exists()


async def test_every_finding_that_is_not_ok_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "mistudio.db").write_text("this is no database, and long enough to be read as one" * 100)
    with listener() as port:
        found = await examine(Settings(data=tmp_path, listen="0.0.0.0", port=port), root=tmp_path)
    wrong = [finding for finding in found if finding.level != "ok"]
    assert {"database", "port", "access"} <= {finding.name for finding in wrong}
    assert all(finding.remedy for finding in wrong)
    assert not as_json(found)["ok"]


def test_torch_is_not_imported(tmp_path: Path) -> None:
    code = (
        "import asyncio, sys\nfrom mistudiod.doctor import examine\nfrom mistudiod.settings import Settings\n"
        f"asyncio.run(examine(Settings(data={str(tmp_path)!r} and __import__('pathlib').Path({str(tmp_path)!r}))))\n"
        "print(sorted({'torch', 'numpy', 'transformers', 'datasets', 'pyarrow', 'bitsandbytes'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


async def test_the_daemon_answers_others_while_it_examines_itself(studio: Studio) -> None:
    report = await studio.get("/api/doctor")  # the first one imports
    assert await standstill(lambda: studio.get("/api/doctor"), 0.05) < 0.05
    assert {one["name"] for one in report["findings"]} >= set(NAMES) - {"torch"}
    (port,) = [one for one in report["findings"] if one["name"] == "port"]
    assert port["message"].startswith("this daemon listens")


def test_a_report_for_people_has_the_remedy_below_its_finding() -> None:
    found = [
        Finding("python", "ok", "Python 3.11.7"),
        Finding("disk space", "warning", "1.0 GB free", "delete something"),
    ]
    assert as_text(found).splitlines() == [
        "ok       python      Python 3.11.7",
        "warning  disk space  1.0 GB free",
        "                     → delete something",
    ]


@pytest.mark.parametrize(("listen", "code"), [("127.0.0.1", 0), ("0.0.0.0", 1)])
def test_the_command_ends_with_1_when_there_is_a_problem(tmp_path: Path, listen: str, code: int) -> None:
    pytest.importorskip("torch")
    options = ["--data", str(tmp_path), "--listen", listen, "--port", "0"]
    command = [sys.executable, "-m", "mistudiod", "doctor", *options]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MISTUDIO_")}
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, env=environ)
    assert done.returncode == code, done.stdout
    report = json.loads(done.stdout)
    assert report["ok"] == (code == 0)
    assert set(report["findings"][0]) == {"name", "level", "message", "remedy"}
    assert done.stderr == ""
    plain = subprocess.run(command, capture_output=True, text=True, env=environ)
    assert (plain.returncode, plain.stdout.count("\n") >= len(NAMES)) == (code, True)


def test_a_check_that_cannot_look_says_so_and_stops_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def data_folder(_subject: Subject) -> Finding:
        raise PermissionError(13, "Permission denied", "/secret")

    monkeypatch.setattr(doctor, "CHECKS", (data_folder, software.python))
    first, second = asyncio.run(examine(Settings(data=tmp_path)))
    assert (first.name, first.level, second.level) == ("data folder", "warning", "ok")
    assert "/secret" in first.message


# -- software --------------------------------------------------------------------------------------------------------


def test_the_workers_packages_are_those_of_the_extra() -> None:
    extra = re.search(r"^worker = \[(.*?)^\]", (REPO / "pyproject.toml").read_text(), re.MULTILINE | re.DOTALL)
    assert extra
    named = dict(re.findall(r'"([a-z-]+)>=([0-9.]+)', extra[1]))
    assert named == software.WORKER


@pytest.mark.parametrize(
    ("version", "wanted", "older"),
    [("2.13.0+cpu", "2.4", False), ("2.3.1", "2.4", True), ("4.57.1", "5", True), ("5.23.0", "5", False),
     ("0.4.5", "0.4.5", False), ("1.9", "1.26", True), ("2.4.0a0+git", "2.4", False), ("?", "5", False)],
)  # fmt: skip
def test_versions_compare_as_numbers(version: str, wanted: str, older: bool) -> None:
    assert software._older(version, wanted) == older


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all that can be imported besides the standard library."""
    site = tmp_path / "site"
    for name, version in software.WORKER.items():
        put_package(site, name, f"{version}.1")
    kept = [path for path in sys.path if "site-packages" not in path and Path(path) != REPO]
    monkeypatch.setattr(sys, "path", [str(site), *kept])
    for name in software.WORKER:
        monkeypatch.delitem(sys.modules, software.MODULES.get(name, name), raising=False)
    return site


def put_package(site: Path, name: str, version: str, build: str = "cuda: Optional[str] = None\n") -> None:
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    code = {"__init__.py": "raise ImportError('imported!')", "version.py": build}
    tree(site, {f"{software.MODULES.get(name, name)}/{file}": content for file, content in code.items()})
    tree(site, {f"{name.replace('-', '_')}-{version}.dist-info/METADATA": metadata})


def drop_package(site: Path, name: str) -> None:
    for path in [*site.glob(f"{name}/*"), *site.glob(f"{name}-*/*")]:
        path.unlink()
    for path in [*site.glob(name), *site.glob(f"{name}-*")]:
        path.rmdir()


def test_all_packages_there_is_ok(packages: Path) -> None:
    found = software.packages(subject(packages))
    assert found.level == "ok" and "torch 2.4.1" in found.message


def test_a_missing_package_is_a_problem_and_a_missing_optional_one_a_warning(packages: Path) -> None:
    drop_package(packages, "bitsandbytes")
    assert software.packages(subject(packages)).level == "warning"
    drop_package(packages, "transformers")
    found = software.packages(subject(packages))
    assert (found.level, found.message) == ("problem", "no job can run: transformers not installed")
    assert "pip install 'mistudio[worker]'" in (found.remedy or "")


def test_a_package_that_is_too_old_is_named_with_what_is_needed(packages: Path) -> None:
    drop_package(packages, "transformers")
    put_package(packages, "transformers", "4.57.1")
    found = software.packages(subject(packages))
    assert (found.level, "transformers 4.57.1 (needs 5)" in found.message) == ("problem", True)


def test_without_torch_only_the_packages_speak_of_it(packages: Path) -> None:
    drop_package(packages, "torch")
    assert software.torch(subject(packages)) is None


NVIDIA_CARD = {
    "sys/bus/pci/devices/0000:01:00.0/vendor": "0x10de\n",
    "sys/bus/pci/devices/0000:01:00.0/class": "0x030000\n",
}
JETSON = {"proc/device-tree/model": "NVIDIA Jetson Orin Nano\0", "proc/device-tree/compatible": "nvidia,tegra234\0"}
CUDA = "cuda: Optional[str] = '12.8'\nhip: Optional[str] = None\n"


@pytest.mark.parametrize(
    ("machine_files", "build", "level", "words"),
    [
        ({}, "cuda: Optional[str] = None\n", "ok", "jobs run on the processor"),
        ({}, CUDA, "ok", "(CUDA 12.8); no NVIDIA GPU"),
        (NVIDIA_CARD, CUDA, "warning", "its driver does not answer"),
        (JETSON, CUDA, "ok", "on NVIDIA Jetson Orin Nano"),
        (JETSON, "__version__ = '2'\ncuda = None\n", "problem", "is not used"),
        (JETSON, "hip: Optional[str] = '6.2'\n", "problem", "ROCm 6.2"),
    ],
)
def test_the_build_of_torch_is_held_against_the_gpu(
    packages: Path, tmp_path: Path, machine_files: dict[str, str], build: str, level: str, words: str
) -> None:
    drop_package(packages, "torch")
    put_package(packages, "torch", "2.4.1", build)
    found = software.torch(subject(packages, tree(tmp_path / "root", machine_files)))
    assert found is not None
    assert found.level == level and words in found.message
    assert (found.remedy is None) == (level == "ok")


def test_a_build_that_does_not_say_is_known_by_its_libraries(tmp_path: Path) -> None:
    assert software._built_for(tmp_path) == "the processor"
    tree(tmp_path, {"lib/libtorch_cuda.so": ""})
    assert software._built_for(tmp_path) == "CUDA"


# -- storage ---------------------------------------------------------------------------------------------------------


def test_a_file_in_the_place_of_the_data_folder_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for data in (tmp_path / "file", tmp_path / "file" / "below"):
        assert storage.folder(subject(data)).level == "problem"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_a_problem(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    for data in (tmp_path, tmp_path / "new"):
        assert storage.folder(subject(data)).level == "problem"
        assert storage.speed(subject(data)) is None
    tmp_path.chmod(0o700)


def test_a_folder_that_others_may_write_is_a_warning(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    found = storage.folder(subject(tmp_path))
    assert (found.level, found.remedy) == ("warning", f"run: chmod go-w {tmp_path}")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_another_users_folder_is_a_warning(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12345)
    found = storage.folder(subject(tmp_path))
    assert (found.level, "belongs to 12345" in found.message) == ("warning", True)


@pytest.mark.parametrize(
    ("kind", "level"), [("ext4", "ok"), ("nfs4", "warning"), ("cifs", "warning"), ("fuse.sshfs", "warning"),
                        ("tmpfs", "warning"), ("9p", "warning"), ("btrfs", "ok")],
)  # fmt: skip
def test_a_network_or_memory_file_system_is_a_warning(tmp_path: Path, kind: str, level: str) -> None:
    data = tmp_path / "my data"
    data.mkdir()
    escaped = str(data).replace(" ", "\\040")
    mounts = (
        "22 1 8:1 / / rw,relatime shared:1 - xfs /dev/sda1 rw\n"
        f"31 22 0:40 / {escaped} rw - autofs systemd-1 rw\n"
        f"32 22 0:41 / {escaped} rw,relatime shared:7 - {kind} host:/export rw\n"
        f"33 22 0:42 / {escaped}X rw - xfs /dev/sdb rw\nbroken line\n"
    )
    found = storage.file_system(subject(data / "not yet", tree(tmp_path / "root", {"proc/self/mountinfo": mounts})))
    assert found is not None
    assert (found.level, found.message.split(":")[0]) == (level, kind)


@pytest.mark.parametrize(("free", "level"), [(1 << 20, "problem"), (1 << 30, "warning"), (1 << 33, "ok")])
def test_little_free_space_is_told_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: int, level: str) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _path: type("Usage", (), {"free": free}))
    assert storage.space(subject(tmp_path / "new")).level == level


def test_a_slow_disk_is_a_warning_and_nothing_is_left_of_the_test(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = storage.speed(subject(tmp_path))
    assert found is not None and found.message.endswith(" ms")
    monkeypatch.setattr(storage, "SLOW_MS", -1.0)
    found = storage.speed(subject(tmp_path))
    assert found is not None and found.level == "warning"
    assert list(tmp_path.iterdir()) == []


async def test_a_sound_database_is_read_beside_the_daemon(studio: Studio) -> None:
    before = sorted(path.name for path in studio.data.iterdir())
    found = storage.database(subject(studio.data))
    assert (found.level, "whole" in found.message) == ("ok", True)
    assert sorted(path.name for path in studio.data.iterdir()) == before


async def test_a_damaged_database_and_one_of_a_newer_version_are_problems(
    open_studio: OpenStudio, tmp_path: Path
) -> None:
    studio = await open_studio()
    await studio.server.close()
    path = studio.data / "mistudio.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("insert into _sqlite_migrations (migration_set, name, applied_at) values ('mistudio', 'm999', '')")
        db.commit()
    found = storage.database(subject(studio.data))
    assert (found.level, "newer miStudio (it has m999)" in found.message) == ("problem", True)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    found = storage.database(subject(studio.data))
    assert found.level == "problem" and "backups" in (found.remedy or "")


def test_a_lost_database_is_told_apart_from_a_new_folder(tmp_path: Path) -> None:
    assert storage.database(subject(tmp_path)).level == "ok"
    (tmp_path / "runs" / "1").mkdir(parents=True)
    assert storage.database(subject(tmp_path)).level == "warning"


def test_a_database_that_takes_too_long_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "mistudio.db")) as db:
        db.execute("create table t (x)")
        db.executemany("insert into t values (?)", ((str(i) * 50,) for i in range(20_000)))
        db.commit()
    monkeypatch.setattr(storage, "_CHECK_LIMIT_S", -1.0)
    found = storage.database(subject(tmp_path))
    assert (found.level, "too large" in found.message) == ("ok", True)


# -- reach -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def listener() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as one:
        yield one.getsockname()[1]


def test_a_free_port_is_ok_and_stays_free(tmp_path: Path, port: int) -> None:
    for _ in range(2):
        assert reach.port(subject(tmp_path, port=port)).message == f"127.0.0.1 port {port} is free"


def test_another_program_on_the_port_is_a_problem_even_if_it_says_nothing(tmp_path: Path) -> None:
    with listener() as port:
        began = time.monotonic()
        found = reach.port(subject(tmp_path, port=port))
    assert (found.level, "another program" in found.message) == ("problem", True)
    assert time.monotonic() - began < 30, "it never says anything"


@pytest.mark.parametrize("said", [b"[]", b"{}", b'{"name": "other"}', b"hello", b'{"error": "no"}', b"[" * 60_000])
def test_another_web_server_on_the_port_is_no_studio(tmp_path: Path, said: bytes) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Other)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    found = reach.port(subject(tmp_path, port=server.server_port))
    server.shutdown()
    server.server_close()
    assert "another program" in found.message


def test_a_running_daemon_is_known_by_its_data_folder(tmp_path: Path, port: int) -> None:
    with running(tmp_path / "own") as url:
        its = int(url.rpartition(":")[2])
        assert reach.port(subject(tmp_path / "own", port=its)).message.startswith("the daemon of this data folder")
        found = reach.port(subject(tmp_path / "another", port=its))
        assert (found.level, str(tmp_path / "own") in found.message) == ("problem", True)
        assert "listens elsewhere" in reach.port(subject(tmp_path / "own", port=port)).message


@pytest.mark.parametrize(
    ("listen", "words"),
    [("192.0.2.1", "cannot listen on 192.0.2.1"), ("no.such.host.invalid", "cannot listen on no.such")],
)
def test_an_address_that_is_not_this_machines_is_a_problem(tmp_path: Path, listen: str, words: str) -> None:
    found = reach.port(subject(tmp_path, listen=listen, port=6478))
    assert (found.level, words in found.message) == ("problem", True)


async def test_beyond_loopback_a_token_that_is_still_good_is_needed(open_studio: OpenStudio) -> None:
    studio = await open_studio()
    lan = subject(studio.data, listen="0.0.0.0")
    assert reach.access(lan).level == "problem"
    assert reach.access(subject(studio.data)).level == "ok"
    await studio.call("POST", "/api/tokens", json={"name": "short", "scope": "read", "expires_in_s": 1})
    await asyncio.sleep(1.1)
    assert reach.access(lan).level == "problem"
    await studio.call("POST", "/api/tokens", json={"name": "long", "scope": "read"})
    assert reach.access(lan).message == "listens on 0.0.0.0: 1 token can open it"


# -- the machine -----------------------------------------------------------------------------------------------------


def test_memory_that_is_all_but_taken_is_a_warning(tmp_path: Path) -> None:
    found = machine.memory(subject(tmp_path, tree(tmp_path, {"proc/meminfo": MEMINFO})))
    assert found is not None and found.level == "ok"
    tree(tmp_path, {"proc/meminfo": MEMINFO.replace("MemAvailable: 8388608", "MemAvailable: 500000")})
    found = machine.memory(subject(tmp_path, tmp_path))
    assert found is not None and found.level == "warning"


def test_where_memory_cannot_be_read_nothing_is_said(tmp_path: Path) -> None:
    assert machine.memory(subject(tmp_path, tmp_path)) is None


def test_a_clock_that_starts_at_1970_is_a_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert machine.clock(subject(tmp_path)).level == "ok"
    monkeypatch.setattr(machine, "RELEASED", 3000)
    found = machine.clock(subject(tmp_path))
    assert (found.level, "timedatectl" in (found.remedy or "")) == ("problem", True)


def test_the_settings_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("MISTUDIO_PORT", "1")
    found = machine.settings(subject(tmp_path))
    assert found.message in ("no settings file; MISTUDIO_PORT in the environment",)
    tree(tmp_path, {"mistudio/mistudio.toml": ""})
    assert str(tmp_path / "mistudio" / "mistudio.toml") in machine.settings(subject(tmp_path)).message
    assert "named.toml" in machine.settings(Subject(Settings(), config=Path("named.toml"))).message
