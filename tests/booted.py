"""This machine once more, in a container that a real systemd boots as process 1: what it writes is gone at the end.

Its root is an overlay of this machine's, so programs, checkout and ``.venv`` are the same, and so is its network.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which

ROOT = Path(__file__).resolve().parents[1]
_BOOT_S = 120.0
_REBOOTED = 133  # how systemd-nspawn --keep-unit ends then
# Of this machine's own services none is wanted; what configures its network would do so for this machine as well.
_KEPT = ("dbus.service", "dbus.socket", "systemd-logind.service", "systemd-journald.service", "systemd-journald.socket")
_PASSED = ("PIP_", "SSL_", "REQUESTS_", "HTTP_", "HTTPS_", "http_", "https_")  # how pip reaches its index


def lacking() -> str | None:
    """Why none can be booted here."""
    if os.geteuid() != 0:
        return "only root can boot a container"
    missing = [name for name in ("systemd-nspawn", "nsenter", "mount") if which(name) is None]
    return f"{', '.join(missing)} is missing: apt install systemd-container" if missing else None


class Booted:
    """A container that runs."""

    def __init__(self, root: Path, log: Path) -> None:
        self.root, self.log = root, log
        self.start()

    def start(self) -> None:
        command = ["systemd-nspawn", "--boot", "-D", str(self.root), "--machine=studio", "--register=no",
                   "--keep-unit", "--resolv-conf=off", "--system-call-filter=@keyring"]  # fmt: skip
        with self.log.open("ab") as said:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        self.up()

    def end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(90)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(30)

    @property
    def init(self) -> int:
        """The process that is number 1 inside; 0 for a moment in which there is none yet."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        return int(children[0]) if children else 0

    def run(self, command: str, code: int | None = 0, limit_s: float = 120.0, user: str = "root") -> str:
        """What a shell says inside, stdout and stderr together; ``code``: None for any."""
        passed = [f"{name}={value}" for name, value in os.environ.items() if name.startswith(_PASSED)]
        program = f"{ROOT}/.venv/bin" if user == "root" else "/opt/mistudio/bin"  # others may not see where ours lies
        path = f"{program}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        home = "/root" if user == "root" else f"/home/{user}"
        words = ["nsenter", "-t", str(self.init), "-m", "-u", "-i", "-p", "env", "-i", *passed, f"HOME={home}"]
        words += [f"PATH={path}", "LANG=C.UTF-8", f"USER={user}"]
        words += ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"] if user != "root" else []
        done = subprocess.run(
            [*words, "bash", "-c", f"cd {home}; {command}"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, text=True, timeout=limit_s,
        )  # fmt: skip
        assert code is None or done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}\n{self.journal()}"
        return done.stdout

    def journal(self) -> str:
        return self.run("journalctl -u mistudiod --no-pager -n 60", code=None)

    def until(self, command: str, said: str, limit_s: float = 120.0) -> str:
        """Ask until it says that."""
        end = time.monotonic() + limit_s
        while said not in (found := self.run(command, code=None)):
            assert time.monotonic() < end, f"{command}: {found}\n{self.journal()}"
            time.sleep(0.5)
        return found

    def reboot(self) -> None:
        """The container ends with a code of its own for that, and is booted again."""
        self.run("systemctl reboot", code=None)
        assert self._process.wait(_BOOT_S) == _REBOOTED, self.log.read_text()[-3000:]
        self.start()

    def up(self) -> None:
        """Wait until its systemd has done what it does at the start."""
        end = time.monotonic() + _BOOT_S
        while time.monotonic() < end:
            if self.init and self.run("systemctl is-system-running", code=None).strip() in ("running", "degraded"):
                return
            time.sleep(0.3)
        raise AssertionError(self.log.read_text()[-3000:])


@contextmanager
def booted(folder: Path) -> Iterator[Booted]:
    """``folder``: for what is written inside; on a file system that an overlay can write to."""
    upper, work, root = (folder / name for name in ("upper", "work", "root"))
    for each in (upper, work, root):
        each.mkdir(parents=True)
    mount = ["mount", "-t", "overlay", "overlay", "-o", f"lowerdir=/,upperdir={upper},workdir={work}", str(root)]
    subprocess.run(mount, check=True)
    try:
        _prepare(root)
        found = Booted(root, folder / "boot.log")
        try:
            yield found
        finally:
            found.end()
    finally:
        subprocess.run(["umount", "--lazy", str(root)], check=False)


def _prepare(root: Path) -> None:
    units = root / "etc" / "systemd" / "system"
    (root / "etc" / "machine-id").unlink(missing_ok=True)
    for wants in units.glob("*.wants"):
        for unit in wants.iterdir():
            if unit.name not in _KEPT:
                unit.unlink()
    for name in ("systemd-networkd.service", "systemd-networkd.socket", "systemd-resolved.service"):
        (units / name).unlink(missing_ok=True)
        (units / name).symlink_to("/dev/null")
