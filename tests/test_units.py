"""The systemd service as it is shipped, judged by systemd's own programs; what only PID 1 does is not tried here."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from mistudiod import units
from mistudiod.secret import Secrets

SOCKET, SERVICE = "mistudiod.socket", "mistudiod.service"
DROP_INS = ("credentials.conf", "lan-only.conf")


def run(*command: str) -> subprocess.CompletedProcess[str]:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not here")
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def installed(folder: Path, drop_ins: tuple[str, ...] = ()) -> list[str]:
    """The units with a program that is there; ``drop_ins`` beside them as an installation puts them."""
    service = (units.FOLDER / SERVICE).read_text()
    assert service.count("/opt/mistudio/bin/mistudiod") == 1
    (folder / SERVICE).write_text(service.replace("/opt/mistudio/bin/mistudiod", "/bin/true"))
    shutil.copy(units.FOLDER / SOCKET, folder)
    (folder / f"{SERVICE}.d").mkdir()
    for name in drop_ins:
        shutil.copy(units.FOLDER / f"{SERVICE}.d" / name, folder / f"{SERVICE}.d")
    return [str(folder / SERVICE), str(folder / SOCKET)]


@pytest.mark.parametrize("drop_ins", [(), DROP_INS], ids=["alone", "with the drop-ins"])
def test_systemd_has_nothing_to_say_about_the_units(tmp_path: Path, drop_ins: tuple[str, ...]) -> None:
    found = run("systemd-analyze", "verify", *installed(tmp_path, drop_ins))
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")  # an unknown key is only a warning


def test_the_judge_does_say_what_is_wrong(tmp_path: Path) -> None:
    service, _ = installed(tmp_path)
    Path(service).write_text(Path(service).read_text() + "[Service]\nProtectHoem=yes\n")
    assert "ProtectHoem" in run("systemd-analyze", "verify", service).stderr


@pytest.mark.parametrize("drop_ins", [(), ("lan-only.conf",)], ids=["alone", "without the internet"])
def test_the_service_is_exposed_as_little_as_the_best(tmp_path: Path, drop_ins: tuple[str, ...]) -> None:
    service, _ = installed(tmp_path, drop_ins)
    found = run("systemd-analyze", "security", "--offline=true", "--threshold=17", service)  # tenths of 10
    assert found.returncode == 0, found.stdout + found.stderr


def test_the_secrets_that_a_drop_in_hands_over_are_the_daemons(tmp_path: Path) -> None:
    lines = (units.FOLDER / f"{SERVICE}.d" / "credentials.conf").read_text().splitlines()
    names = [line.removeprefix("LoadCredential=").split(":")[0] for line in lines if line.startswith("Load")]
    for name in names:
        (tmp_path / name).write_text("a value of ten\n")
    found = Secrets(tmp_path / "secrets.json", {"CREDENTIALS_DIRECTORY": str(tmp_path)}).all()
    assert [(one.name, one.source) for one in found] == [("hf", "credentials")] and names == ["hf"]


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """The root of another machine, which has the service's user."""
    (tmp_path / "etc").mkdir()
    found = run("systemd-sysusers", f"--root={tmp_path}", str(units.FOLDER / "mistudio.sysusers.conf"))
    assert found.returncode == 0, found.stderr
    return tmp_path


def test_the_user_of_the_service_and_its_group_are_made(machine: Path) -> None:
    user = next(line for line in (machine / "etc/passwd").read_text().splitlines() if line.startswith("mistudio:"))
    assert user.split(":")[5:] == ["/var/lib/mistudio", "/usr/sbin/nologin"]
    assert "\nmistudio:" in "\n" + (machine / "etc/group").read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders away")
def test_the_folders_of_the_service_are_made_and_those_of_secrets_are_roots_alone(machine: Path) -> None:
    found = run("systemd-tmpfiles", f"--root={machine}", "--create", str(units.FOLDER / "mistudio.tmpfiles.conf"))
    assert (found.returncode, found.stderr) == (0, "")
    user = next(line for line in (machine / "etc/passwd").read_text().splitlines() if line.startswith("mistudio:"))
    states = {name: (machine / name).stat() for name in FOLDERS}
    assert {name: (found.st_mode & 0o777, found.st_uid == 0) for name, found in states.items()} == FOLDERS
    assert {found.st_uid for found in states.values()} == {0, int(user.split(":")[2])}


FOLDERS = {  # mode, and whether it is root's
    "run/mistudio": (0o750, False),
    "var/lib/mistudio": (0o750, False),
    "var/cache/mistudio": (0o750, False),
    "etc/mistudio": (0o755, True),
    "etc/mistudio/credentials": (0o700, True),
}
