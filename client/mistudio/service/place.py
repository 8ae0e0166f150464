"""Where a service lies: the machine's, or that of one user; below another root it is only written, never started."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mistudio.errors import NoService

UNIT, SOCKET = "mistudiod.service", "mistudiod.socket"
DATA, CACHE, CONFIG = "/var/lib/mistudio", "/var/cache/mistudio", "/etc/mistudio"
PROGRAM = "/opt/mistudio"
AVAHI = "/etc/avahi/services"
HOMES = ("/home", "/root", "/run/user")  # what ProtectHome= hides
LIMIT_S = 2700.0  # a restart: the daemon asks for 10 min to save what is at work, and for 30 to migrate, at most


@dataclass(frozen=True)
class Place:
    """``home``: of the user whose service it is; None for the machine's. ``live``: systemd runs here."""

    root: Path = Path("/")
    home: Path | None = None
    live: bool = True

    def at(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    @property
    def units(self) -> str:
        return "/etc/systemd/system" if self.home is None else f"{self.home}/.config/systemd/user"

    @property
    def manifest(self) -> Path:
        return self.at(f"{CONFIG if self.home is None else f'{self.home}/.config/mistudio'}/installed.json")

    @property
    def has_program(self) -> bool:
        """Whether a program is made: its files say where they lie, so it can only be made where it will run."""
        return self.home is None and (self.live or self.root == Path("/"))

    def systemctl(self, *words: str) -> str:
        """What it printed. Raises NoService with what it said when it fails."""
        scope = ["--user"] if self.home else []
        scope += [] if self.live else [f"--root={self.root}"]
        return run("systemctl", *scope, *words)

    def properties(self, unit: str, *names: str) -> dict[str, str]:
        """Of a unit, as systemd has loaded it; an unknown one has them too."""
        said = self.systemctl("show", unit, f"--property={','.join(names)}")
        return dict(line.split("=", 1) for line in said.splitlines() if "=" in line)


def run(*command: str) -> str:
    """stdout of a program of the system. Raises NoService with its last words."""
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, env=_plain(os.environ))
    except FileNotFoundError:
        raise NoService(f"{command[0]} is not here: install the package systemd") from None
    except subprocess.TimeoutExpired:
        raise NoService(f"{' '.join(command)} did not end within {LIMIT_S:.0f} s") from None
    if ran.returncode:
        words = [line for line in (ran.stderr or ran.stdout).splitlines() if line.strip()]
        raise NoService(f"{' '.join(command)} failed: {words[-1] if words else f'exit code {ran.returncode}'}")
    return ran.stdout


def _plain(environ: Mapping[str, str]) -> dict[str, str]:
    return {**environ, "LC_ALL": "C", "SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0"}
