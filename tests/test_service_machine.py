"""On which machines the service can be installed, with which Python, and how a package is taken along."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest
from click.testing import CliRunner
from mistudio.cli import main
from mistudio.errors import NoService
from mistudio.service import machine, program, python, wheel
from mistudio.service.place import LIMIT_S, Place, run

from mistudiod.serving import START_LIMIT_S, STOP_LIMIT_S

R36 = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8\n"


def stand_in(folder: Path, name: str, text: str) -> str:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)
    return str(folder / name)


@pytest.fixture
def booted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A machine that runs systemd 249, as far as is looked at."""
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    stand_in(tmp_path / "bin", "systemctl", "echo 'systemd 249 (249.11-0ubuntu3.16)'")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return Place(tmp_path)


@pytest.mark.parametrize("release", ["R36", "R38", "R39", "R41", None])
def test_jetpack_6_and_whatever_comes_after_it_is_taken(booted: Place, release: str | None) -> None:
    if release:
        (booted.root / "etc").mkdir()
        (booted.root / "etc/nv_tegra_release").write_text(R36.replace("R36", release))
    machine.check(booted, "install", dry_run=False)
    assert machine.l4t(booted) == (int(release[1:]) if release else None)


@pytest.mark.parametrize(("release", "name"), [("R35", "JetPack 5"), ("R32", "JetPack 4"), ("R34", "this JetPack")])
def test_an_older_jetpack_is_refused_in_a_sentence_also_in_a_dry_run(booted: Place, release: str, name: str) -> None:
    (booted.root / "etc").mkdir()
    (booted.root / "etc/nv_tegra_release").write_text(R36.replace("R36", release))
    for dry_run in (False, True):
        with pytest.raises(NoService) as refused:
            machine.check(booted, "install", dry_run)
        assert str(refused.value).startswith(f"{name} (L4T {release}) is too old, with Python 3.8")


def test_a_systemd_that_is_too_old_is_refused(booted: Place) -> None:
    stand_in(booted.root / "bin", "systemctl", "echo 'systemd 245 (245.4-4ubuntu3.24)'")
    with pytest.raises(NoService, match="systemd 245 is too old for the service"):
        machine.check(booted, "install", dry_run=False)


def test_without_systemd_as_the_first_process_one_sentence_says_so_and_a_dry_run_goes_on(
    booted: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    (booted.root / "run/systemd/system").rmdir()
    with pytest.raises(NoService, match="systemd does not run here as the first process"):
        machine.check(booted, "install", dry_run=False)
    machine.check(booted, "install", dry_run=True)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(booted.root))
    with pytest.raises(NoService, match="no systemd of this user runs"):
        machine.check(Place(booted.root, home=Path("/home/ada")), "install", dry_run=False)


def test_who_is_not_root_is_told_how_and_a_users_service_is_not_roots(
    booted: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_USER", "ada")
    with pytest.raises(NoService, match="install --user, without sudo"):
        machine.check(Place(booted.root, home=Path("/root")), "install", dry_run=False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(NoService, match="sudo mistudio service uninstall, or --user for one of your own"):
        machine.check(booted, "uninstall", dry_run=False)


def test_a_program_of_the_system_that_fails_says_its_last_words(booted: Place) -> None:
    stand_in(booted.root / "bin", "systemctl", "echo one >&2; echo 'Failed to enable unit: no' >&2; exit 1")
    with pytest.raises(NoService, match="systemctl enable x failed: Failed to enable unit: no"):
        booted.systemctl("enable", "x")
    with pytest.raises(NoService, match="no-such-program is not here"):
        run("no-such-program")


def test_a_restart_may_take_as_long_as_the_daemon_may_ask_for() -> None:
    assert LIMIT_S > STOP_LIMIT_S + START_LIMIT_S, "a large database that is migrated is no installation that failed"


def test_an_error_is_a_sentence_and_with_json_an_object() -> None:
    refused = CliRunner().invoke(main, ["service", "status", "--root", "/no/such", "--json"])
    assert refused.exit_code == 1
    assert refused.stderr.startswith('{"error": {"code": "service", "message": "miStudio is not installed as a service')


# -- the Python ------------------------------------------------------------------------------------------------------


def test_the_python_below_the_environment_is_taken_unless_the_service_could_not_see_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(python, "ask", lambda path: asked.append(path))
    for base in ("/usr/bin/python3.11", "/home/ada/.pyenv/bin/python3.12", "/root/.local/python", "/homely/python"):
        monkeypatch.setattr(sys, "_base_executable", base, raising=False)
        monkeypatch.setattr(os.path, "realpath", lambda path: path)
        python.choose()
    assert asked == ["/usr/bin/python3.11", "/usr/bin/python3", "/usr/bin/python3", "/homely/python"]


def test_a_python_says_what_it_brings_and_an_old_or_bare_one_is_refused(tmp_path: Path) -> None:
    own = python.ask(sys.executable)
    assert own.version.startswith(f"{sys.version_info[0]}.{sys.version_info[1]}.")
    torch = stand_in(tmp_path, "nvidia", """echo '["3.12.3", true, "2.8.0a0+nv25.8", "1.26.4"]'""")
    assert python.ask(torch) == python.Python(torch, "3.12.3", "2.8.0a0+nv25.8", "1.26.4")
    assert python.ask(stand_in(tmp_path, "past", """echo '["3.10.12", true, "2.3.1", null]'""")).torch is None
    with pytest.raises(NoService, match=r"needs Python 3\.10 or newer, and .* is 3\.8\.10"):
        python.ask(stand_in(tmp_path, "old", """echo '["3.8.10", true, null, null]'"""))
    with pytest.raises(NoService, match=r"sudo apt install python3\.12-venv"):
        python.ask(stand_in(tmp_path, "bare", """echo '["3.12.3", false, null, null]'"""))
    with pytest.raises(NoService, match="does not run: install python3"):
        python.ask(str(tmp_path / "no"))


def test_the_machines_own_torch_is_kept_and_what_it_was_made_with(tmp_path: Path) -> None:
    nvidia = python.Python("/usr/bin/python3", "3.99.1", "2.8.0a0+nv25.8", "1.26.4")
    assert program.constraints(nvidia) == ["numpy<2", "torch==2.8.0a0+nv25.8"]
    assert program.torch_said(nvidia) == "the PyTorch 2.8.0a0+nv25.8 of /usr/bin/python3, which is kept"


def test_versions_that_work_here_are_those_of_the_service_where_the_python_is_the_same() -> None:
    same = python.Python("/usr/bin/python3", "{}.{}.0".format(*sys.version_info))
    held = program.constraints(same)
    assert f"aiohttp=={metadata.version('aiohttp')}" in held
    assert not [line for line in held if line.startswith("mistudio==")]
    if ours := python.torch_version():
        assert f"torch=={ours}" in held
        with_another = replace(same, torch="2.5.0", numpy="1.26.4")  # which is not taken: ours is the one that is tried
        assert program.constraints(with_another) == held


def test_another_python_or_other_sources_are_another_program() -> None:
    one = python.Python("/usr/bin/python3", "3.11.2")
    other = python.Python("/usr/bin/python3", "3.12.1")
    assert program.name(one) == program.name(one) != program.name(other)


def test_a_program_that_was_not_finished_is_never_switched_to(tmp_path: Path) -> None:
    folder = tmp_path / "programs" / "1"
    (folder / "bin").mkdir(parents=True)
    broken = python.Python(stand_in(tmp_path, "broken", "echo 'No space left on device' >&2; exit 1"), "3.11.2")
    with pytest.raises(NoService, match="the disk is full: making it needs some 4 GB"):
        program.make(folder, broken, lambda said: None)
    assert not program.is_whole(folder)
    assert program.switch(tmp_path, "1") and not program.switch(tmp_path, "1")
    assert (tmp_path / "bin").resolve() == folder / "bin"
    assert program.switch(tmp_path, "2") and os.readlink(tmp_path / "bin") == "programs/2/bin"


# -- a package taken along -------------------------------------------------------------------------------------------


def test_an_installed_package_is_packed_into_a_wheel_that_pip_installs_to_the_same_files(tmp_path: Path) -> None:
    packed = wheel.pack("aiohttp", tmp_path)  # compiled, of this platform
    tags = (metadata.distribution("aiohttp").read_text("WHEEL") or "").split("Tag: ")[1:]
    assert all(part in packed.name for tag in tags for part in tag.split()[0].split("-"))
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-compile"]
    subprocess.run([*install, "--target", str(tmp_path / "place"), str(packed)], check=True, timeout=120)
    ours = metadata.distribution("aiohttp")
    files = {str(path) for path in ours.files or () if "__pycache__" not in path.parts and path.parts[0] != ".."}
    assert len(files) > 50
    for path in files:
        if Path(path).name not in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json"):
            assert (tmp_path / "place" / path).read_bytes() == Path(str(ours.locate_file(path))).read_bytes(), path


def test_a_program_of_an_installed_miStudio_has_its_command_lines_and_its_units(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is installed from a wheel, which is then gone."""
    info = tmp_path / "mistudio-0.8.0.dist-info"
    for name, text in {
        "mistudiod/__init__.py": "", "mistudiod/systemd/mistudiod.service": "[Unit]\n", "mistudio/cli.py": "",
        f"{info.name}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info.name}/METADATA": "Metadata-Version: 2.1\nName: mistudio\nVersion: 0.8.0\n",
        f"{info.name}/entry_points.txt": "[console_scripts]\nmistudiod = mistudiod.__main__:run\n",
        f"{info.name}/INSTALLER": "pip\n", "mistudiod/__pycache__/__init__.pyc": "",
    }.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    named = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()]
    (info / "RECORD").write_text("".join(f"{name},,\n" for name in [*named, "../../bin/mistudiod"]))
    monkeypatch.syspath_prepend(tmp_path)
    with zipfile.ZipFile(wheel.pack("mistudio", tmp_path)) as packed:
        assert Path(str(packed.filename)).name == "mistudio-0.8.0-py3-none-any.whl"
        names = set(packed.namelist())
    assert {"mistudiod/systemd/mistudiod.service", f"{info.name}/entry_points.txt"} <= names
    assert names == {name for name in named if "INSTALLER" not in name and "pyc" not in name} | {f"{info.name}/RECORD"}


def test_what_cannot_be_packed_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="no-such-package is not installed here"):
        wheel.pack("no-such-package", tmp_path)
    info = tmp_path / "odd-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="odd 1 was not installed from a wheel"):
        wheel.pack("odd", tmp_path)
    (info / "WHEEL").write_text("Tag: py3-none-any\n")
    (info / "RECORD").write_text("odd/gone.py,,\nodd-1.dist-info/METADATA,,\n")
    with pytest.raises(ValueError, match=r"odd 1 lacks its file odd/gone\.py"):
        wheel.pack("odd", tmp_path)
