"""``mistudio service``: what is written where, what a second run does, what is removed; all below a root of a test."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result
from mistudio.cli import main

from mistudiod import units
from mistudiod.settings import Settings

Run = Callable[..., Result]
UNITS = "etc/systemd/system"
UNIT = f"{UNITS}/mistudiod.service"
LISTEN, PATHS = f"{UNIT}.d/listen.conf", f"{UNIT}.d/paths.conf"
USERS, FOLDERS = "etc/sysusers.d/mistudio.conf", "etc/tmpfiles.d/mistudio.conf"
MANIFEST = "etc/mistudio/installed.json"
AVAHI = "etc/avahi/services/mistudio.service"

pytestmark = pytest.mark.skipif(shutil.which("systemctl") is None, reason="systemctl, which enables units, is not here")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def service(root: Path) -> Run:
    def invoke(*words: str, typed: str | None = None) -> Result:
        return CliRunner().invoke(main, ["service", *words, "--root", str(root)], input=typed)

    return invoke


def files(root: Path) -> dict[str, str]:
    """Path → text, and where a link leads; nothing of the folders."""
    there = [path for path in root.rglob("*") if path.is_symlink() or path.is_file()]
    return {str(path.relative_to(root)): os.readlink(path) if path.is_symlink() else path.read_text() for path in there}


def good(result: Result) -> Result:
    assert result.exit_code == 0, (result.output, result.exception)
    return result


@pytest.mark.parametrize("page", ["operations.md", "jetson.md"])
def test_every_command_of_the_service_in_the_documents_can_be_said(page: str) -> None:
    text = (units.FOLDER.parent / "docs" / page).read_text()
    found = re.findall(r"mistudio (service [^`#\n]+)", text)
    assert found
    for words in found:
        assert CliRunner().invoke(main, [*shlex.split(words), "--help"]).exit_code == 0, words


# -- what is written -------------------------------------------------------------------------------------------------


def test_an_installation_writes_the_units_that_are_shipped_and_starts_them_with_the_machine(
    service: Run, root: Path
) -> None:
    good(service("install"))
    found = files(root)
    link = f"{UNITS}/multi-user.target.wants/mistudiod.service"
    assert set(found) == {UNIT, USERS, FOLDERS, MANIFEST, link}
    assert found[UNIT] == (units.FOLDER / "mistudiod.service").read_text()
    assert found[USERS] == (units.FOLDER / "mistudio.sysusers.conf").read_text()
    assert found[link] == "/etc/systemd/system/mistudiod.service"
    assert set(json.loads(found[MANIFEST])["files"]) == {f"/{path}" for path in (UNIT, USERS, FOLDERS)}
    assert stat.S_IMODE((root / UNIT).stat().st_mode) == 0o644


def test_what_will_be_written_is_shown_as_a_diff_and_a_dry_run_writes_nothing(service: Run, root: Path) -> None:
    shown = good(service("install", "--listen", "lan", "--dry-run")).stdout
    assert "--- /dev/null\n+++ /etc/systemd/system/mistudiod.service\n" in shown
    assert "+Environment=MISTUDIO_LISTEN=lan" in shown
    assert not root.exists()
    assert good(service("install", "--listen", "lan")).stdout == shown


def test_a_second_installation_has_nothing_to_do_and_changes_nothing(service: Run, root: Path) -> None:
    good(service("install", "--listen", "lan"))
    before = {path: (root / path).lstat().st_mtime_ns for path in files(root)}
    again = good(service("install"))
    assert (again.stdout, again.stderr) == ("", "nothing to do\n")
    assert {path: (root / path).lstat().st_mtime_ns for path in files(root)} == before


def test_what_is_not_said_again_stays_and_what_is_said_otherwise_is_changed(service: Run, root: Path) -> None:
    good(service("install", "--listen", "lan"))
    good(service("install", "--allow", made(root, "/data")))
    assert (root / LISTEN).exists()
    gone = good(service("install", "--listen", "local", "--allow", "")).stdout
    assert f"--- /{LISTEN}\n+++ /dev/null\n" in gone
    assert not (root / f"{UNIT}.d").exists()
    assert set(json.loads((root / MANIFEST).read_text())["files"]) == {f"/{path}" for path in (UNIT, USERS, FOLDERS)}


def test_a_newer_miStudio_shows_what_it_changes_in_the_unit(service: Run, root: Path) -> None:
    good(service("install"))
    older = (root / UNIT).read_text().replace("WatchdogSec=", "WatchdogSec=1")
    written_by_us(root, UNIT, older)
    shown = good(service("install")).stdout
    assert [line for line in shown.splitlines() if line.startswith(("+W", "-W"))] == [
        "-WatchdogSec=160", "+WatchdogSec=60",
    ]  # fmt: skip
    assert (root / UNIT).read_text() == (units.FOLDER / "mistudiod.service").read_text()


def written_by_us(root: Path, path: str, text: str) -> None:
    """As an older version would have installed it."""
    from mistudio.service.manifest import digest

    (root / path).write_text(text)
    held = json.loads((root / MANIFEST).read_text())
    held["files"][f"/{path}"] = [digest(text)]
    (root / MANIFEST).write_text(json.dumps(held))


def test_the_group_of_a_device_is_joined_only_where_there_is_one(service: Run, root: Path) -> None:
    (root / "etc").mkdir(parents=True)
    (root / "etc/group").write_text("root:x:0:\nvideo:x:44:\njtop:x:998:me\n")
    good(service("install"))
    assert (root / "etc/sysusers.d/mistudio-groups.conf").read_text() == "m mistudio video\nm mistudio jtop\n"


def test_sockets_of_systemd_are_installed_on_request_and_not_for_a_network(service: Run, root: Path) -> None:
    refused = service("install", "--socket", "--listen", "lan")
    assert refused.exit_code == 1 and "--socket listens on this machine alone" in refused.stderr
    good(service("install", "--socket"))
    assert (root / f"{UNITS}/sockets.target.wants/mistudiod.socket").is_symlink()
    good(service("install", "--no-socket"))
    assert "mistudiod.socket" not in "".join(files(root))


def test_the_network_is_told_of_it_on_request_alone(service: Run, root: Path) -> None:
    refused = service("install", "--announce")
    assert refused.exit_code == 1 and "say --listen lan, or --no-announce" in refused.stderr
    refused = service("install", "--announce", "--listen", "lan")
    assert refused.exit_code == 1 and "install the package avahi-daemon" in refused.stderr
    assert not root.exists()
    (root / AVAHI).parent.mkdir(parents=True)
    good(service("install", "--listen", "lan"))
    assert not (root / AVAHI).exists()
    good(service("install", "--announce"))
    service_of = ElementTree.parse(root / AVAHI).getroot().find("service")
    assert service_of is not None
    assert (service_of.findtext("type"), service_of.findtext("port")) == ("_https._tcp", str(Settings().port))
    refused = service("install", "--listen", "local")
    assert refused.exit_code == 1 and "--no-announce" in refused.stderr
    good(service("install", "--listen", "local", "--no-announce"))
    assert not (root / AVAHI).exists()
    good(service("install", "--listen", "lan", "--announce"))
    good(service("uninstall"))
    assert (root / AVAHI).parent.is_dir() and not (root / AVAHI).exists()


# -- what the service may read ---------------------------------------------------------------------------------------


def made(root: Path, path: str, mode: int = 0o755) -> str:
    (root / path.lstrip("/")).mkdir(parents=True)
    (root / path.lstrip("/")).chmod(mode)
    return path


def judged(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """By systemd, with a program that is there."""
    unit = root / UNIT
    unit.write_text(unit.read_text().replace("/opt/mistudio/bin/mistudiod", "/bin/true"))
    return subprocess.run([*words, str(unit)], capture_output=True, text=True, timeout=60)


def test_folders_of_a_home_are_shown_to_the_service_and_the_rest_of_it_is_not(service: Run, root: Path) -> None:
    texts, disk = made(root, "/home/ada/my texts"), made(root, "/mnt/disk")
    good(service("install", "--allow", texts, "--allow", disk))
    lines = (root / PATHS).read_text().splitlines()
    assert lines[1:] == [
        "[Service]",
        "ProtectHome=tmpfs",
        'BindReadOnlyPaths="-/home/ada/my texts"',
        'BindReadOnlyPaths="-/mnt/disk"',
        'Environment="MISTUDIO_ALLOWED_PATHS=/home/ada/my texts,/mnt/disk"',
    ]
    verified = judged(root, "systemd-analyze", "verify")
    assert (verified.returncode, verified.stderr) == (0, "")
    exposed = judged(root, "systemd-analyze", "security", "--offline=true", "--threshold=17")
    assert exposed.returncode == 0, exposed.stdout


def test_models_of_a_persons_cache_are_shown_in_the_services_own(service: Run, root: Path) -> None:
    cache = "/home/ada/.cache/huggingface"
    for name in ("models--gpt2", "models--Qwen--Qwen3-0.6B", "datasets--a--b", ".locks"):
        made(root, f"{cache}/hub/{name}")
    good(service("install", "--hf-cache", cache))
    own = "/var/cache/mistudio/huggingface/hub"
    assert (root / PATHS).read_text().splitlines()[2:] == [
        f'BindReadOnlyPaths="-{cache}/hub/{name}":{own}/{name}'
        for name in ("datasets--a--b", "models--Qwen--Qwen3-0.6B", "models--gpt2")
    ]
    folders = (root / FOLDERS).read_text()
    assert f"d {own} 0750 mistudio mistudio\n" in folders and f"d {own}/models--gpt2 0750" in folders
    verified = judged(root, "systemd-analyze", "verify")
    assert (verified.returncode, verified.stderr) == (0, "")
    shutil.copy(units.FOLDER / "mistudiod.service", root / UNIT)
    good(service("install", "--hf-cache", ""))
    assert not (root / PATHS).exists() and "models--" not in (root / FOLDERS).read_text()


@pytest.mark.parametrize(
    ("mode", "words", "sentence"),
    [
        (0o755, ("--allow", "/no/such"), "/no/such cannot be shown to the service: no such file or directory"),
        (0o750, ("--allow", "/data"), "/data is not readable for the service's user: chmod -R o+rX '/data'"),
        (0o755, ("--allow", "/"), "/ is more than the studio should see"),
        (0o755, ("--allow", "/home"), "/home is more than the studio should see"),
        (0o755, ("--allow", "/data:rbind"), "has a character that a unit or a list cannot hold"),
        (0o755, ("--allow", "/data\udcff"), "has a character that a unit or a list cannot hold"),
        (0o755, ("--allow", "/data%h"), "has a character that a unit or a list cannot hold"),
        (0o755, ("--hf-cache", "/data"), "there is no model or dataset of the Hugging Face Hub in /data"),
        (0o755, ("--hf-cache", "/no/such"), "the Hugging Face cache"),
    ],
)
def test_a_folder_that_the_service_could_not_read_is_a_sentence_and_nothing_is_written(
    service: Run, root: Path, mode: int, words: tuple[str, ...], sentence: str
) -> None:
    made(root, "/data", mode)
    refused = service("install", *words)
    assert refused.exit_code == 1 and sentence in refused.stderr, refused.output
    assert refused.stderr.count("\n") == 1
    assert files(root) == {}


# -- what a person has changed ---------------------------------------------------------------------------------------


def test_a_file_that_a_person_has_changed_is_never_overwritten(service: Run, root: Path) -> None:
    good(service("install"))
    (root / UNIT).write_text((root / UNIT).read_text() + "Environment=MINE=1\n")
    before = files(root)
    refused = service("install", "--listen", "lan")
    assert refused.exit_code == 1
    assert f"/{UNIT} was changed since it was installed and is not overwritten" in refused.stderr
    assert files(root) == before
    (root / UNIT).rename(root / f"{UNIT}.mine")
    good(service("install"))
    assert (root / UNIT).read_text() == (units.FOLDER / "mistudiod.service").read_text()


def test_a_file_of_somebody_else_is_not_taken_over(service: Run, root: Path) -> None:
    (root / UNIT).parent.mkdir(parents=True)
    (root / UNIT).write_text("[Service]\nExecStart=/usr/bin/other\n")
    refused = service("install")
    assert refused.exit_code == 1 and "is not of miStudio's making" in refused.stderr
    good(service("uninstall"))
    assert list(files(root)) == [UNIT]


def test_what_was_changed_is_kept_aside_when_the_service_is_removed(service: Run, root: Path) -> None:
    (root / "etc/sysusers.d").mkdir(parents=True)
    good(service("install", "--listen", "lan"))
    (root / LISTEN).write_text("mine")
    (root / f"{UNIT}.d/mine.conf").write_text("mine too")
    removed = good(service("uninstall"))
    assert f"/{LISTEN} was changed since it was installed: kept as listen.conf.kept beside" in removed.stderr
    assert files(root) == {f"{LISTEN}.kept": "mine", f"{UNIT}.d/mine.conf": "mine too"}
    assert (root / "etc/sysusers.d").is_dir()  # the system's, though it is empty


def test_a_manifest_that_is_damaged_or_newer_is_a_sentence_and_nothing_is_touched(service: Run, root: Path) -> None:
    good(service("install"))
    for text, sentence in (
        ("{", "does not say any more what was installed"),
        ('{"format": 9, "version": "3"}', "newer"),
    ):
        (root / MANIFEST).write_text(text)
        before = files(root)
        for verb in ("install", "uninstall", "status"):
            refused = service(verb)
            assert refused.exit_code == 1 and sentence in refused.stderr
        assert files(root) == before


def test_what_a_newer_miStudio_was_told_is_a_sentence_and_what_was_not_said_is_not_kept(
    service: Run, root: Path
) -> None:
    good(service("install", "--listen", "lan"))
    held = json.loads((root / MANIFEST).read_text())
    assert held["choices"] == {"listen": "lan"}, "so that an older one can read it"
    (root / MANIFEST).write_text(json.dumps(held | {"choices": {"listen": "lan", "mesh": True}}))
    before = files(root)
    refused = service("install")
    assert refused.exit_code == 1 and "a newer miStudio has installed it, with --mesh: use that one" in refused.stderr
    assert files(root) == before
    good(service("uninstall"))


def test_a_root_is_no_users(service: Run) -> None:
    assert service("install", "--user").exit_code == 2


# -- removal ---------------------------------------------------------------------------------------------------------


def test_a_removal_takes_exactly_what_was_installed_and_leaves_the_data(service: Run, root: Path) -> None:
    model = root / "var/lib/mistudio/models/gpt2/model.safetensors"
    model.parent.mkdir(parents=True)
    model.write_text("weights")
    good(service("install", "--listen", "lan"))
    shown = good(service("uninstall", "--dry-run")).stdout
    assert shown.splitlines() == [f"remove /{path}" for path in (UNIT, LISTEN, USERS, FOLDERS)]
    assert (root / UNIT).exists()
    good(service("uninstall"))
    assert files(root) == {str(model.relative_to(root)): "weights"}
    again = good(service("uninstall"))
    assert again.stderr == "nothing to do: miStudio is not installed as a service here\n"


def test_a_unit_that_was_deleted_by_hand_is_not_left_enabled(service: Run, root: Path) -> None:
    good(service("install"))
    (root / UNIT).unlink()
    good(service("uninstall"))
    assert files(root) == {}


def test_a_purge_says_what_goes_and_how_large_it_is_and_asks(service: Run, root: Path) -> None:
    model = root / "var/lib/mistudio/models/gpt2/model.safetensors"
    model.parent.mkdir(parents=True)
    model.write_bytes(bytes(3_000_000))
    good(service("install"))
    asked = service("uninstall", "--purge")
    assert asked.exit_code == 2 and "give --yes where nobody can be asked" in asked.stderr
    assert "delete /var/lib/mistudio (3.0 MB)" in asked.stdout
    assert model.exists() and (root / UNIT).exists()
    good(service("uninstall"))
    good(service("uninstall", "--purge", "--yes"))  # also what an earlier removal has left
    assert files(root) == {}
    assert not (root / "var/lib/mistudio").exists()


def test_a_purge_follows_data_to_the_disk_that_a_link_leads_to(service: Run, root: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk" / "mistudio"
    disk.mkdir(parents=True)
    (disk / "mistudio.db").write_text("rows")
    (root / "var/lib").mkdir(parents=True)
    (root / "var/lib/mistudio").symlink_to(disk)
    good(service("install"))
    shown = good(service("uninstall", "--purge", "--yes")).stdout
    assert f"delete /var/lib/mistudio, that is {disk} (" in shown
    assert not disk.exists() and not (root / "var/lib/mistudio").is_symlink()


# -- an installation that breaks off ---------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from mistudio.cli import main
root, call, *words = sys.argv[1:]
real = getattr(os, call)
n, status = 0, None
while status != 0:
    n += 1
    pid = os.fork()
    if pid == 0:
        left = n
        def killed(*arguments, **options):
            global left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)
        setattr(os, call, killed)
        main(["service", *words, "--root", f"{root}/{n}"])
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, -signal.SIGKILL)
print(f"killed {n - 1} times")
"""


def killed_everywhere(call: str, roots: Path, *words: str) -> int:
    """How often it was really killed: below the root n before its nth file, and below the last not at all."""
    command = [sys.executable, "-c", KILLED, str(roots), call, *words]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    return int(ran.stdout.split()[-2])


def whole(root: Path) -> dict[str, str]:
    """A file that a kill has left half made has another name, which nobody reads."""
    return {path: text for path, text in files(root).items() if not Path(path).name.startswith(".")}


def on(root: Path, *words: str) -> Result:
    return good(CliRunner().invoke(main, ["service", *words, "--root", str(root)]))


def test_an_installation_killed_anywhere_is_gone_on_with_or_removed_by_the_next(tmp_path: Path) -> None:
    times = killed_everywhere("replace", tmp_path, "install", "--listen", "lan")
    assert times == 6  # the manifest, its four files, and the manifest once more
    wanted = files(tmp_path / str(times + 1))
    for n in range(1, times + 1):
        root, other = tmp_path / str(n), tmp_path / f"{n}-removed"
        shutil.copytree(root, other, symlinks=True)
        went_on = on(root, "install", "--listen", "lan")
        assert n == 1 or "go on with the installation that broke off" in went_on.stdout
        assert whole(root) == wanted, n
        assert on(root, "install").stderr == "nothing to do\n"
        on(other, "uninstall")
        assert whole(other) == {}, n


def test_a_removal_killed_anywhere_is_gone_on_with_by_the_next(tmp_path: Path) -> None:
    for n in range(1, 8):
        on(tmp_path / str(n), "install", "--listen", "lan")
    times = killed_everywhere("unlink", tmp_path, "uninstall")
    assert times == 5  # four files, and the manifest as the last
    for n in range(1, times + 2):
        on(tmp_path / str(n), "uninstall")
        assert whole(tmp_path / str(n)) == {}, n


def test_two_installations_at_once_are_one_and_a_sentence(service: Run, root: Path) -> None:
    from mistudio.service import manifest
    from mistudio.service.place import Place

    with manifest.alone(Place(root, live=False)):
        refused = service("install")
    assert refused.exit_code == 1 and "another mistudio service install or uninstall is at work" in refused.stderr
    assert files(root) == {}
