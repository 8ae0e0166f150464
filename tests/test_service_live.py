"""A service that is installed, answers and is removed: real files, a real daemon, and a stand-in for systemd."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from mistudio import Client
from mistudio.errors import NoService
from mistudio.service import install, manifest, program, python, remove, state
from mistudio.service.choices import Choices
from mistudio.service.files import wanted
from mistudio.service.manifest import put
from mistudio.service.place import DATA, PROGRAM, Place
from ports import free_port

STAND_IN = Path(__file__).parent / "systemctl_standin.py"
DROP_IN = "mistudiod.service.d/listen.conf"
Ran = subprocess.CompletedProcess[str]


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A short one: the path of a UNIX socket has room for 107 bytes, of which pytest's own may leave too few."""
    with tempfile.TemporaryDirectory(prefix="mistudio-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


class Machine:
    """Whose systemctl is the stand-in, with the units in ``units``. ``ended`` leaves no daemon behind."""

    def __init__(self, folder: Path, units: Path, root: str = "") -> None:
        self.units, self.state, self.bin = units, folder / "systemd", folder / "bin"
        self.state.mkdir(parents=True)
        self.bin.mkdir()
        (self.bin / "systemctl").write_text(f'#!/bin/sh\nexec {sys.executable} {STAND_IN} "$@"\n')
        (self.bin / "systemctl").chmod(0o755)
        self.environ = {"STANDIN": str(self.state), "STANDIN_UNITS": str(units), "STANDIN_ROOT": root}
        self.environ["PATH"] = f"{self.bin}{os.pathsep}{os.environ['PATH']}"

    def told(self) -> list[str]:
        told = (self.state / "calls").read_text().splitlines()
        (self.state / "calls").unlink()
        return [
            words for words in told if not words.startswith(("show", "--user show", "--version", "--user --version"))
        ]

    @property
    def pid(self) -> int:
        return int((self.state / "pid").read_text())

    def runs(self) -> bool:
        try:
            return b"mistudiod" in Path(f"/proc/{self.pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return False

    def ended(self) -> None:
        if self.runs():
            os.kill(self.pid, signal.SIGKILL)


class User(Machine):
    """With a home of the test's own, in which his systemd runs."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        super().__init__(folder / "run", self.home / ".config/systemd/user")
        self.port = free_port()
        settings = self.home / ".config/mistudio/mistudio.toml"
        settings.parent.mkdir(parents=True)
        settings.write_text(f"port = {self.port}\n")
        ours = {
            name: value for name, value in os.environ.items() if not name.startswith(("MISTUDIO_", "XDG_", "SUDO_"))
        }
        self.environ = ours | {"HOME": str(self.home), "XDG_RUNTIME_DIR": str(folder / "run")} | self.environ

    def says(self, *words: str) -> Ran:
        return self.runs_mistudio("service", *words, "--user")

    def runs_mistudio(self, *words: str) -> Ran:
        command = [sys.executable, "-m", "mistudio.cli", *words]
        return subprocess.run(command, env=self.environ, capture_output=True, text=True, timeout=120)


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    made = User(tmp_path)
    yield made
    made.ended()


def test_a_users_service_is_installed_answers_and_is_removed_and_the_studio_stays(user: User) -> None:
    first = user.says("install")
    assert first.returncode == 0, first.stderr
    url, data = f"http://127.0.0.1:{user.port}", user.home / ".local/share/mistudio"
    assert first.stdout.endswith(f"miStudio is running at {url} (data in {data})\n")
    assert "sudo loginctl enable-linger" in first.stderr
    assert user.told() == [
        "--user daemon-reload", "--user enable mistudiod.service", "--user reset-failed mistudiod.service",
        "--user restart mistudiod.service",
    ]  # fmt: skip
    pid = user.pid
    with Client(url) as studio:
        assert studio.status()["data"] == str(data)

    again = user.says("install")
    assert again.stderr.startswith("nothing to do\n") and again.stdout == first.stdout.splitlines()[-1] + "\n"
    found = json.loads(user.says("status", "--json").stdout)
    assert (found["state"], found["url"], found["data"]) == ("active", url, str(data))
    assert (found["starts_at_boot"], found["installed_wholly"], found["cannot_see"]) == (True, True, [])
    assert (user.told(), user.pid) == ([], pid)

    refused = user.says("uninstall", "--purge")
    assert refused.returncode == 1 and "delete ~/.local/share/mistudio yourself" in refused.stderr
    assert user.says("uninstall").returncode == 0
    assert user.told() == ["--user disable --now mistudiod.service", "--user daemon-reload"]
    assert not user.runs()
    assert (data / "mistudio.db").is_file() and (user.home / ".config/mistudio/mistudio.toml").is_file()
    assert not (user.home / ".config/systemd/user/mistudiod.service").exists()
    assert user.says("status").returncode == 1


def test_a_service_that_does_not_start_says_where_to_look_and_the_next_installation_goes_on(user: User) -> None:
    settings = user.home / ".config/mistudio/mistudio.toml"
    right = settings.read_text()
    settings.write_text("prot = 1\n")
    failed = user.says("install")
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1] == (
        "Error: systemctl --user restart mistudiod.service failed: Job for mistudiod.service failed.; "
        "what it said: journalctl --user -u mistudiod -n 30"
    )
    settings.write_text(right)
    (user.state / "starts").write_text("one\n" * 5)  # as when systemd has tried again until it would no more
    went_on = user.says("install")
    assert went_on.returncode == 0, went_on.stderr
    assert went_on.stdout.splitlines()[0] == "go on with the installation that broke off"
    assert user.runs()


def test_a_service_for_the_network_prints_a_code_with_which_another_machine_comes_in(user: User) -> None:
    installed = user.says("install", "--listen", "lan", "--json")
    assert installed.returncode == 0, installed.stderr
    said = json.loads(installed.stdout)
    assert "+Environment=MISTUDIO_LISTEN=lan" in said["files"][f"{user.home}/.config/systemd/user/{DROP_IN}"]
    pair = ["--pair", said["code"], "--fingerprint", said["fingerprint"]]
    url = f"https://127.0.0.1:{user.port}"
    assert user.runs_mistudio("context", "add", "shelf", url, *pair).returncode == 0
    found = user.runs_mistudio("-c", "shelf", "status", "--json")
    assert json.loads(found.stdout)["data"] == said["data"]
    shown = user.says("install").stdout.splitlines()
    assert shown[0] == f"miStudio is running at {said['url']} (data in {said['data']})"
    assert shown[1].startswith("code          ") and shown[2] == f"fingerprint   {said['fingerprint']}"


@pytest.mark.parametrize(
    "given", [{"socket": True}, {"announce": True, "listen": "lan"}, {"allow": ["/usr"]}, {"hf_cache": "/usr"}], ids=str
)
def test_what_only_the_machines_service_can_do_is_refused(tmp_path: Path, given: dict[str, object]) -> None:
    with pytest.raises(NoService, match="are of the machine's service: one of yours sees what you see"):
        install.plan(Place(home=tmp_path), given)


def test_systemd_has_nothing_to_say_about_a_users_unit(tmp_path: Path) -> None:
    home = Path("/home/ada")
    for path, text in wanted(Place(home=home), Choices(listen="lan")).items():
        put(tmp_path / Path(path).relative_to(home / ".config/systemd/user"), text)
    unit = tmp_path / "mistudiod.service"
    verified = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60)
    assert (verified.returncode, verified.stderr) == (0, "")
    assert "Type=notify" in unit.read_text() and "ProtectSystem" not in unit.read_text()


def machine_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Machine, Place]:
    """A machine whose root is a folder, with a port and a data folder of the test, and the place of its service."""
    root = tmp_path / "root"
    (root / "run/systemd/system").mkdir(parents=True)
    machine = Machine(tmp_path / "run", root / "etc/systemd/system", str(root))
    for name in ("systemd-sysusers", "systemd-tmpfiles", "systemd-analyze", "userdel"):
        (machine.bin / name).write_text(f'#!/bin/sh\necho {name} "$@" >>{machine.state}/calls\n')
        (machine.bin / name).chmod(0o755)
    given = {"MISTUDIO_DATA": str(root / "var/lib/mistudio"), "MISTUDIO_PORT": str(free_port())}
    for variable, value in {**machine.environ, **given}.items():
        monkeypatch.setenv(variable, value)
    return machine, Place(root)


def made_program(place: Place) -> str:
    """A program that needs not be made: that of here, under the name that this miStudio's would have."""
    name = program.name(python.choose())
    folder = place.at(PROGRAM) / "programs" / name
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/mistudiod").write_text(f'#!/bin/sh\nexec {sys.executable} -m mistudiod "$@"\n')
    (folder / "bin/mistudiod").chmod(0o755)
    (folder / ".mistudio-installed").touch()
    return name


def test_a_machines_service_goes_over_to_a_new_program_and_is_removed_with_its_user_and_its_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, place = machine_of(tmp_path, monkeypatch)
    name, old, said = made_program(place), place.at(PROGRAM) / "programs" / "0.7.0-aaaa", list[str]()
    old.mkdir()
    manifest.write(place, manifest.Manifest(programs=[old.name], complete=True, version="0.7.0"))
    texts = place.at("/home/ada/texts")
    texts.mkdir(parents=True)
    try:
        upgrade = install.plan(place, {"allow": ["/home/ada/texts"]})
        assert (upgrade.program, upgrade.old_programs) == (name, [old.name])
        install.carry_out(place, upgrade, said.append)
        assert machine.told() == [
            "systemd-sysusers /etc/sysusers.d/mistudio.conf",
            "systemd-tmpfiles --create /etc/tmpfiles.d/mistudio.conf",
            f"systemd-analyze verify --man=no {machine.units}/mistudiod.service",
            "daemon-reload",
            "enable mistudiod.service",
            "reset-failed mistudiod.service",
            "restart mistudiod.service",
        ]
        with state.wait(place) as studio:
            assert studio.status()["data"] == str(place.at(DATA))
        assert install.plan(place, {}).is_empty and not old.exists()
        found = state.state(place)
        assert (found["state"], found["drop_ins"]) == ("active", ["paths.conf"])
        assert found["cannot_see"] == ["/home, /root, /run/user, but for /home/ada/texts"]
        remove.carry_out(place, remove.plan(place, purge=True), said.append)
        assert machine.told() == ["disable --now mistudiod.service", "daemon-reload", "userdel mistudio"]
        assert not machine.runs() and texts.is_dir()
        assert [path for path in tmp_path.glob("root/**/*mistudio*") if path.exists()] == []
    finally:
        machine.ended()


def test_a_purge_that_breaks_off_at_the_user_is_gone_on_with_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, place = machine_of(tmp_path, monkeypatch)
    manifest.write(place, manifest.Manifest(complete=True))
    (machine.bin / "userdel").write_text(f"#!/bin/sh\nls {place.manifest} >>{machine.state}/calls\n")
    remove.carry_out(place, remove.plan(place, purge=True), lambda _: None)
    assert machine.told() == [str(place.manifest)], "what says that there is something to remove is there until then"
    assert not place.manifest.parent.exists()


def test_what_a_person_changes_while_the_program_is_made_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, place = machine_of(tmp_path, monkeypatch)
    made_program(place)
    plan = install.plan(place, {})
    put(place.at(f"{place.units}/mistudiod.service"), "mine")
    with pytest.raises(NoService, match=r"mistudiod\.service was changed while this was at work"):
        install.carry_out(place, plan, lambda _: None)
    assert place.at(f"{place.units}/mistudiod.service").read_text() == "mine"


@pytest.mark.drill
@pytest.mark.timeout(3600)
def test_a_machines_service_runs_a_program_of_its_own_from_a_real_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its environment is made as in /opt, with the PyTorch of here; the daemon starts from it and trains."""
    machine, place = machine_of(tmp_path, monkeypatch)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    root, data, said = place.root, place.at(DATA), list[str]()
    try:
        made = install.plan(place, {})
        assert made.program is not None
        install.carry_out(place, made, said.append)
        assert install.plan(place, {}).is_empty
        with state.wait(place) as studio:
            assert studio.status()["data"] == str(data)
            assert studio.wait(studio.add_model("builtin:pico", "pico")["id"], 120)["state"] == "done"
        own = root / "opt/mistudio/programs" / made.program
        assert str(own).encode() in Path(f"/proc/{machine.pid}/cmdline").read_bytes()
        imported = [str(own / "bin/python"), "-I", "-c", "import mistudiod, mistudio, torch; print(mistudiod.__file__)"]
        assert str(own) in subprocess.run(imported, capture_output=True, text=True, check=True, timeout=120).stdout
        assert program.is_whole(own)
        remove.carry_out(place, remove.plan(place, purge=True), said.append)
        assert not (root / "opt/mistudio").exists() and not data.exists() and not machine.runs()
    finally:
        machine.ended()
