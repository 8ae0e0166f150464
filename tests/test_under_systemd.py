"""The service under a real systemd, a machine's first process: installed, used, killed, hung, rebooted, removed.

Some 6 minutes: ``./run-tests.sh drill tests/test_under_systemd.py``, as root, with systemd-nspawn.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from shutil import which

import pytest
from booted import Booted, booted, lacking

pytestmark = [
    pytest.mark.drill,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(lacking() is not None, reason=str(lacking())),
]
TRAIN = (
    "mistudio --json train start --tokenization python-pico --hook blocks.3.hook_resid_post --width 256 --k 8 "
    "--checkpoint-every-s 1 --tokens {tokens} --name {name} --detach"
)
INSTALLED = "find /etc /opt /run /usr/lib/systemd /var/lib /var/cache -iname '*mistudio*' | sort"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    with booted(tmp_path_factory.mktemp("booted")) as found:
        found.run("useradd -m ada")
        yield found


def job(machine: Booted, id: int) -> dict[str, object]:
    found: dict[str, object] = json.loads(machine.run(f"mistudio job show {id} --json"))
    return found


def main_pid(machine: Booted) -> int:
    return int(machine.run("systemctl show mistudiod --property MainPID --value"))


def started_again(machine: Booted, pid: int) -> None:
    """Wait until another process than ``pid`` is the service's, and answers."""
    end = time.monotonic() + 60
    while main_pid(machine) in (0, pid):
        assert time.monotonic() < end, machine.journal()
        time.sleep(0.3)
    machine.until("mistudio status", "/var/lib/mistudio")


def trained_for(machine: Booted, id: int, tokens: int) -> None:
    """Wait until a training has come so far, and has kept it."""
    newest = f"N=$(ls /var/lib/mistudio/runs/{id}/checkpoints | sort -n | tail -1)"
    machine.until(f'{newest}; test "${{N:-0}}" -gt {tokens // 4096} && echo so far', "so far")


def gone_on(machine: Booted, id: int) -> None:
    """The training is done, and was not begun anew."""
    machine.run(f"mistudio job wait {id}", limit_s=600)
    logs = machine.run(f"mistudio job logs {id}")
    assert job(machine, id)["state"] == "done" and "training goes on from step" in logs, (job(machine, id), logs)


def test_it_is_installed_starts_and_is_content_behind_its_walls(machine: Booted) -> None:
    assert machine.run(INSTALLED) == ""
    said = machine.run("mistudio service install", limit_s=1500)
    assert "miStudio is running at http://127.0.0.1:6478 (data in /var/lib/mistudio)" in said
    shown = machine.run("systemctl show mistudiod --property ActiveState,SubState,UnitFileState,StatusText")
    assert shown.split("\n")[:-1] == [
        "StatusText=nothing is at work", "ActiveState=active", "SubState=running", "UnitFileState=enabled",
    ]  # fmt: skip
    exposure = re.search(
        r"exposure level for mistudiod.service: ([\d.]+)", machine.run("systemd-analyze security mistudiod")
    )
    assert exposure is not None and float(exposure[1]) < 2.0
    pid = main_pid(machine)
    status = machine.run(f"cat /proc/{pid}/status")
    assert "NoNewPrivs:\t1" in status and "Seccomp:\t2" in status and "CapEff:\t0000000000000000" in status
    seen = machine.run(f"nsenter -t {pid} -m ls -A /home /root")
    assert "ada" not in seen and ".bash" not in seen
    findings = json.loads(machine.run("mistudio doctor --json", code=None))["findings"]
    assert [one for one in findings if one["level"] == "problem"] == []
    assert machine.run("mistudio service status")


def test_a_member_of_its_group_goes_the_whole_way_and_nobody_else_comes_in_by_the_socket(machine: Booted) -> None:
    strangers = machine.run(
        "curl -sS --unix-socket /run/mistudio/api.sock http://localhost/api/status", None, user="ada"
    )
    assert "Permission denied" in strangers or "Could not connect" in strangers or "Couldn't connect" in strangers
    machine.run("usermod -aG mistudio ada")
    for words in (
        "model add builtin:pico --name pico",
        "dataset add builtin:python --name python",
        "dataset tokenize python --model pico --name python-pico",
        "train start --tokenization python-pico --hook blocks.3.hook_resid_post --tokens 90000 --name whole",
        "feature extract whole --tokens 50000",
        "sae export whole",
        "steer whole 'import ' -f 3:+1 --max-tokens 8",
    ):
        machine.run(f"mistudio {words}", limit_s=600, user="ada")
    listed = json.loads(machine.run("mistudio sae list --json", user="ada"))["saes"]
    assert [one["name"] for one in listed] == ["whole"]
    owners = machine.run("find /var/lib/mistudio /var/cache/mistudio ! -user mistudio -o ! -group mistudio")
    assert owners == "", "what it writes is its user's"
    assert machine.run("find /var/lib/mistudio -perm /007 ! -type l") == "", "and nobody else's"


def test_it_is_started_again_when_it_is_killed_and_a_training_goes_on(machine: Booted) -> None:
    id = json.loads(machine.run(TRAIN.format(tokens=1_000_000, name="killed")))["id"]
    trained_for(machine, id, 100_000)
    pid = main_pid(machine)
    machine.run(f"kill -9 {pid}")
    started_again(machine, pid)
    gone_on(machine, id)
    assert machine.run("systemctl show mistudiod --property NRestarts --value").strip() == "1"


def test_one_that_hangs_is_ended_by_the_watchdog_and_started_again(machine: Booted) -> None:
    folder = "/etc/systemd/system/mistudiod.service.d"
    machine.run(f"mkdir -p {folder}; printf '[Service]\\nWatchdogSec=5\\n' > {folder}/soon.conf")
    machine.run("systemctl daemon-reload; systemctl restart mistudiod")
    id = json.loads(machine.run(TRAIN.format(tokens=1_000_000, name="hung")))["id"]
    trained_for(machine, id, 100_000)
    pid = main_pid(machine)
    machine.run(f"kill -STOP {pid}")
    machine.until("journalctl -u mistudiod --no-pager --grep 'Watchdog timeout'", "limit 5s", limit_s=60)
    started_again(machine, pid)
    machine.run(f"rm {folder}/soon.conf; rmdir --ignore-fail-on-non-empty {folder}; systemctl daemon-reload")
    gone_on(machine, id)


def test_a_restart_waits_for_a_training_to_save_what_it_has(machine: Booted) -> None:
    never_by_itself = TRAIN.format(tokens=3_000_000, name="restarted").replace("every-s 1", "every-s 3000")
    id = json.loads(machine.run(never_by_itself))["id"]
    machine.until(f"mistudio job show {id} --json | tr -d '\\n ' | grep -oE '\"done\":[1-9][0-9]{{5,}}'", "done")
    machine.run("systemctl restart mistudiod", limit_s=200)
    machine.until(f"mistudio job logs {id}", "training goes on from step")
    assert machine.run("systemctl show mistudiod --property Result --value").strip() == "success"
    machine.run(f"mistudio job stop {id}")
    machine.run(f"mistudio job wait {id}", code=None)


def test_a_setting_that_cannot_be_used_is_said_once_and_not_tried_again(machine: Booted) -> None:
    machine.run("mkdir -p /etc/mistudio; echo 'port = 99999' > /etc/mistudio/mistudio.toml")
    machine.run("systemctl restart mistudiod", code=1)
    shown = machine.run("systemctl show mistudiod --property ActiveState,ExecMainStatus,NRestarts")
    assert "ActiveState=failed" in shown and "ExecMainStatus=78" in shown and "NRestarts=0" in shown
    assert "port" in machine.journal()
    machine.run("rm /etc/mistudio/mistudio.toml; systemctl reset-failed mistudiod; systemctl start mistudiod")


def test_a_port_that_is_taken_at_the_boot_is_tried_again(machine: Booted) -> None:
    machine.run("systemctl stop mistudiod; systemctl reset-failed mistudiod")
    taken = (
        "import socket, time; s = socket.create_server(('127.0.0.1', 6478)); print('taken', flush=True); time.sleep(8)"
    )
    machine.run(f'systemd-run --unit taken python3 -c "{taken}"')
    machine.until("ss -ltn", ":6478")
    machine.run("systemctl start mistudiod", code=None)
    machine.until("systemctl show mistudiod --property ActiveState", "ActiveState=active", limit_s=60)
    assert "another program has it" in machine.journal()


def test_a_training_goes_on_after_the_machine_was_started_again(machine: Booted) -> None:
    id = json.loads(machine.run(TRAIN.format(tokens=1_000_000, name="rebooted")))["id"]
    trained_for(machine, id, 100_000)
    machine.reboot()
    machine.until("mistudio status", "/var/lib/mistudio")
    gone_on(machine, id)


def test_another_device_comes_in_over_tls_with_a_code_and_the_port_wants_a_token(machine: Booted) -> None:
    said = machine.run("mistudio service install --listen lan", limit_s=900)
    code = re.search(r"\b(\d{4} ?\d{4})\b", said)
    fingerprint = re.search(r"(?:[0-9A-F]{2}:){31}[0-9A-F]{2}", said)
    assert code is not None and fingerprint is not None, said
    known = f"--pair {code[1].replace(' ', '')} --fingerprint {fingerprint[0]}"
    machine.run(f"mistudio context add shelf https://127.0.0.1:6478 {known}")
    assert "whole" in machine.run("mistudio -c shelf sae list")
    assert '"unauthorized"' in machine.run("curl -sk https://127.0.0.1:6478/api/saes", code=None)


@pytest.mark.skipif(which("avahi-browse") is None, reason="avahi-daemon and avahi-utils are not here")
def test_the_local_network_hears_of_it_for_as_long_as_that_is_wanted(machine: Booted) -> None:
    browse = "avahi-browse --resolve --parsable --terminate _https._tcp"
    machine.run("systemctl start avahi-daemon")
    assert "miStudio" not in machine.run(browse)
    machine.run("mistudio service install --announce", limit_s=900)
    machine.until(browse, ";6478;")
    machine.run("mistudio service install --no-announce", limit_s=900)
    assert "miStudio" not in machine.run(browse)
    machine.run("systemctl stop avahi-daemon.socket avahi-daemon")


def test_the_first_request_starts_one_for_which_systemd_listens(machine: Booted) -> None:
    machine.run("mistudio service install --listen local --socket", limit_s=900)
    machine.run("systemctl stop mistudiod.service", code=None)
    assert machine.run("systemctl is-active mistudiod.socket").strip() == "active"
    assert machine.run("systemctl is-active mistudiod.service", code=None).strip() == "inactive"
    assert "whole" in machine.run("mistudio sae list", user="ada")
    assert machine.run("systemctl is-active mistudiod.service").strip() == "active"


def test_it_is_removed_with_all_that_it_had(machine: Booted) -> None:
    machine.run("mistudio service uninstall", limit_s=200)
    assert "/var/lib/mistudio" in machine.run(INSTALLED) and "mistudiod.service" not in machine.run(INSTALLED)
    machine.run("mistudio service install --listen local --no-socket", limit_s=1500)
    assert "whole" in machine.run("mistudio sae list", user="ada")
    machine.run("mistudio service uninstall --purge --yes", limit_s=200)
    assert machine.run(INSTALLED) == ""
    assert "mistudio" not in machine.run("getent passwd; getent group; systemctl list-units --all --no-pager --plain")
