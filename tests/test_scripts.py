"""The entry points as a person runs them. Nothing here installs into the checkout's own environment."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from ports import free_port

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ["start-mistudio.sh", "run-tests.sh", ".ci/run", "scripts/install.sh"]


def run(script: Path, *arguments: str, cwd: Path | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("MISTUDIO_", "XDG_", "PYTHON"))}
    return subprocess.run(
        [str(script), *arguments], env=ours | environ, cwd=cwd, capture_output=True, text=True, timeout=240
    )


@dataclass
class Place:
    """A home and a data folder of one test's own; ``start`` runs the checkout's script there."""

    home: Path
    port: str

    @property
    def data(self) -> Path:
        return self.home / ".local/share/mistudio"

    def start(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        environ = {"HOME": str(self.home), "MISTUDIO_PORT": self.port} | environ
        return run(ROOT / "start-mistudio.sh", *arguments, cwd=self.home, **environ)


def is_installed() -> bool:
    """Whether start-mistudio.sh would find nothing to install."""
    command = f'ROOT="{ROOT}"; . "$ROOT/scripts/install.sh"; installed "$ROOT/.venv" worker'
    return subprocess.run(["bash", "-euo", "pipefail", "-c", command], capture_output=True).returncode == 0


@pytest.fixture
def place() -> Iterator[Place]:
    """Below a short path: that of a UNIX socket has room for 107 bytes."""
    if not is_installed():
        pytest.skip(".venv is missing or older than pyproject.toml: ./run-tests.sh mends that")
    with tempfile.TemporaryDirectory(prefix="mistudio-", ignore_cleanup_errors=True) as folder:
        home = Path(folder) / "a home"
        home.mkdir()
        yield Place(home, str(free_port()))


@pytest.fixture
def studio(place: Place) -> Iterator[Place]:
    """A studio that runs."""
    started = place.start()
    try:
        assert started.returncode == 0, started.stderr
        assert f"miStudio is running at http://127.0.0.1:{place.port} (data in {place.data})" in started.stdout
        yield place
    finally:
        place.start("stop")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what an installation starts from, with no environment in it."""
    copy = tmp_path / "a checkout"
    scripts = ("start-mistudio.sh", "scripts/install.sh", "scripts/look.py")
    for name in (*scripts, "pyproject.toml", "constraints.txt", "hatch_build.py", "web/package-lock.json"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    return copy


def program(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_valid_bash(script: str) -> None:
    subprocess.run(["bash", "-n", ROOT / script], check=True)


def test_the_service_that_is_named_is_the_one_that_is_installed() -> None:
    named = re.findall(r"systemctl stop (\w+)", (ROOT / "start-mistudio.sh").read_text())
    assert named and all((ROOT / "systemd" / f"{one}.service").is_file() for one in named)


def test_shellcheck_finds_nothing() -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed")
    checked = subprocess.run(["shellcheck", "-x", *SCRIPTS], cwd=ROOT, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


def test_an_old_python_is_named_in_one_sentence(checkout: Path, tmp_path: Path) -> None:
    old = program(tmp_path / "old", '#!/bin/sh\ncase "$2" in *print*) echo 3.9 ;; *) exit 1 ;; esac\n')
    ran = run(checkout / "start-mistudio.sh", PYTHON=old)
    assert ran.returncode == 1
    assert ran.stderr == (
        f"start-mistudio.sh: miStudio needs Python 3.10 or newer, and {old} is 3.9: "
        "install one, or name one with PYTHON=/path/to/python3\n"
    )


def test_a_python_that_is_not_there_is_named_in_one_sentence(checkout: Path) -> None:
    ran = run(checkout / "start-mistudio.sh", PYTHON="/no/such/python")
    assert (ran.returncode, ran.stderr.count("\n")) == (1, 1)
    assert "/no/such/python is not there or does not run" in ran.stderr


def test_a_python_without_venv_names_the_package_to_install(checkout: Path, tmp_path: Path) -> None:
    bare = program(tmp_path / "bare", '#!/bin/sh\ncase "$2" in *ensurepip*) exit 1 ;; *) echo 3.12 ;; esac\n')
    ran = run(checkout / "start-mistudio.sh", PYTHON=bare)
    assert (ran.returncode, ran.stderr.count("\n")) == (1, 1)
    assert "sudo apt install python3.12-venv" in ran.stderr


def test_no_network_is_one_sentence_and_leaves_no_stamp(checkout: Path) -> None:
    nowhere = {"https_proxy": "http://127.0.0.1:9", "PIP_CONFIG_FILE": "/dev/null", "PIP_FIND_LINKS": ""}
    ran = run(checkout / "start-mistudio.sh", PYTHON=sys.executable, **nowhere)
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1].startswith("start-mistudio.sh: no network: installing ")
    assert not (checkout / ".venv/.mistudio-installed").exists()


def test_typescript_is_installed_once_and_anew_when_the_lock_file_changes(checkout: Path, tmp_path: Path) -> None:
    log, bin = tmp_path / "npm.log", tmp_path / "bin"
    for folder in (bin, checkout / ".venv"):
        folder.mkdir()
    program(bin / "node", "#!/bin/sh\n")
    program(bin / "npm", f"#!/bin/sh\necho $1 >>{log}; rm -rf node_modules; mkdir node_modules\n")
    command = f'ROOT="{checkout}"; . "$ROOT/scripts/install.sh"; install_page_types'
    lock = checkout / "web" / "package-lock.json"
    for text, installed in ((lock.read_text(), 1), (lock.read_text(), 1), ("{}", 2)):
        lock.write_text(text)
        environ = os.environ | {"PATH": f"{bin}:{os.environ['PATH']}"}
        subprocess.run(["bash", "-euo", "pipefail", "-c", command], check=True, env=environ)
        assert log.read_text().split() == ["ci"] * installed


def test_without_an_installation_status_and_stop_say_so(checkout: Path) -> None:
    status, stop = (run(checkout / "start-mistudio.sh", word) for word in ("status", "stop"))
    assert (status.returncode, stop.returncode) == (3, 0)
    assert "not running" in status.stdout and "not running" in stop.stdout


def test_usage_is_told_and_an_unknown_word_is_refused(checkout: Path) -> None:
    assert run(checkout / "start-mistudio.sh", "-h").stdout.startswith("usage: start-mistudio.sh")
    refused = run(checkout / "start-mistudio.sh", "dance")
    assert (refused.returncode, refused.stdout) == (2, "")


def test_status_and_stop_when_nothing_runs(place: Place) -> None:
    status, stop = place.start("status"), place.start("stop")
    assert (status.returncode, status.stdout) == (3, f"miStudio is not running (data in {place.data})\n")
    assert (stop.returncode, stop.stdout) == (0, f"miStudio is not running (data in {place.data})\n")


def test_studio_starts_once_tells_its_state_and_stops(studio: Place) -> None:
    again = studio.start()
    assert again.stdout == f"miStudio is already running at http://127.0.0.1:{studio.port} (data in {studio.data})\n"
    with urllib.request.urlopen(f"http://127.0.0.1:{studio.port}/api/status") as answer:
        assert json.load(answer)["data"] == str(studio.data)
    assert f"miStudio is running at http://127.0.0.1:{studio.port}" in studio.start("status").stdout
    assert studio.start("stop").stdout == "stopping miStudio\nmiStudio has stopped\n"
    assert not (studio.data / "mistudiod.pid").exists()
    assert studio.start("status").returncode == 3


def test_first_start_for_other_machines_says_how_the_first_device_gets_in(place: Place) -> None:
    try:
        started = place.start(MISTUDIO_LISTEN="lan")
        assert started.returncode == 0, started.stderr
        assert f"miStudio is running at https://127.0.0.1:{place.port}" in started.stdout
        assert re.search(r"^No device has a token yet\..*: [0-9]{8}$", started.stdout, re.MULTILINE)
        assert "is running at https://" in place.start("status", MISTUDIO_LISTEN="lan").stdout
    finally:
        place.start("stop", MISTUDIO_LISTEN="lan")


def test_studio_with_other_data_on_the_port_is_not_mistaken_for_ours(studio: Place, tmp_path: Path) -> None:
    other = studio.start(MISTUDIO_DATA=str(tmp_path / "other"))
    assert other.returncode == 1
    assert f"is the port of a miStudio with other data, in {studio.data}" in other.stderr


def test_second_daemon_on_the_same_data_is_refused_and_the_first_kept(studio: Place) -> None:
    second = studio.start(MISTUDIO_PORT=str(free_port()))
    assert (second.returncode, second.stderr.count("\n")) == (1, 1)
    assert f"miStudio runs with the data in {studio.data}" in second.stderr
    assert studio.start("status").returncode == 0


def test_daemon_that_ends_as_it_starts_leaves_its_last_words(place: Place) -> None:
    place.data.mkdir(parents=True)
    with open(place.data / "mistudiod.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ran = place.start()
    assert ran.returncode == 1
    assert "another daemon uses the data folder" in ran.stderr
    assert ran.stderr.splitlines()[-1].startswith("start-mistudio.sh: miStudio ended as it started")


def test_port_of_another_program_is_named_in_one_sentence(place: Place) -> None:
    with socket.create_server(("127.0.0.1", int(place.port))):
        ran = place.start()
    assert (ran.returncode, ran.stderr.count("\n")) == (1, 1)
    assert f"port {place.port} is taken by another program" in ran.stderr


def test_data_folder_that_cannot_be_written_is_named_in_one_sentence(place: Place) -> None:
    ran = place.start(MISTUDIO_DATA="/proc/mistudio")
    assert (ran.returncode, ran.stderr.count("\n")) == (1, 1)
    assert "the data folder /proc/mistudio is not writable" in ran.stderr


def test_bad_setting_is_named_before_anything_starts(place: Place) -> None:
    ran = place.start(MISTUDIO_PORT="many")
    assert ran.returncode != 0
    assert ran.stderr == "MISTUDIO_PORT must be a whole number, not 'many'\n"


def test_stop_leaves_a_foreign_process_alone(place: Place) -> None:
    place.data.mkdir(parents=True)
    with subprocess.Popen(["sleep", "60"]) as foreign:
        (place.data / "mistudiod.pid").write_text(f"{foreign.pid}\n")
        stopped = place.start("stop")
        alive = foreign.poll() is None
        foreign.send_signal(signal.SIGKILL)
    assert alive and "not running" in stopped.stdout


def test_the_studio_is_found_and_told_though_it_wants_a_token(tmp_path: Path) -> None:
    """Listening beyond loopback it answers strangers nothing; the script asks over the UNIX socket."""
    if not (ROOT / ".venv" / "bin" / "mistudiod").exists():
        pytest.skip(".venv is missing: ./run-tests.sh mends that")
    port = free_port()
    environ = {**os.environ, "MISTUDIO_DATA": str(tmp_path / "data"), "MISTUDIO_PORT": str(port),
               "MISTUDIO_LISTEN": "0.0.0.0", "MISTUDIO_HOST": ""}  # fmt: skip
    command = [str(ROOT / ".venv" / "bin" / "mistudiod")]
    subprocess.run([*command, "token", "laptop"], env=environ, check=True, capture_output=True)
    daemon = subprocess.Popen([*command, "serve"], env=environ, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        look = [str(ROOT / ".venv" / "bin" / "python"), str(ROOT / "scripts" / "look.py")]
        while time.monotonic() < deadline:
            lines = subprocess.run(look, env=environ, capture_output=True, text=True, check=True).stdout.splitlines()
            if lines[4] == "ours":
                break
            time.sleep(0.2)
        assert lines == [
            f"https://127.0.0.1:{port}", f"unix:{tmp_path}/data/mistudiod.sock", str(tmp_path / "data"),
            str(tmp_path / "data"), "ours",
        ]  # fmt: skip
        other = {**environ, "MISTUDIO_DATA": str(tmp_path / "other")}
        found = subprocess.run(look, env=other, capture_output=True, text=True, check=True).stdout.splitlines()
        assert found[4] == "studio"
        status = subprocess.run(
            [str(ROOT / "start-mistudio.sh"), "status"], env=environ, capture_output=True, text=True, check=False
        )
        assert status.returncode == 0 and "miStudio is running" in status.stdout, status.stderr
    finally:
        daemon.terminate()
        daemon.wait(20)
