"""Plays ``systemctl`` where no systemd runs: starts what a unit and its drop-ins say, and writes down what it is told.

STANDIN is its folder, STANDIN_UNITS that of the units. It knows the words that miStudio uses, and no others.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

STATE, UNITS = Path(os.environ["STANDIN"]), Path(os.environ["STANDIN_UNITS"])
ROOT = os.environ.get("STANDIN_ROOT", "")  # before the program of a unit


def main(words: list[str]) -> int:
    with (STATE / "calls").open("a") as calls:
        calls.write(f"{' '.join(words)}\n")
    verb, *rest = [word for word in words if word != "--user"]
    if verb == "--version":
        print("systemd 255 (255.4-1ubuntu8)")
    elif verb == "daemon-reload":
        (STATE / "loaded").write_text(unit())
    elif verb == "enable":
        (STATE / "enabled").touch()
    elif verb in ("disable", "stop"):
        if verb == "disable":
            (STATE / "enabled").unlink(missing_ok=True)
        if verb == "stop" or "--now" in rest:
            stop()
    elif verb == "reset-failed":
        (STATE / "starts").unlink(missing_ok=True)
    elif verb == "restart":
        stop()
        with (STATE / "starts").open("a") as starts:
            starts.write("one\n")
        if len((STATE / "starts").read_text().splitlines()) > int(values("StartLimitBurst")[0]):
            print("Job for mistudiod.service failed: Start request repeated too quickly.", file=sys.stderr)
            return 1
        return start()
    elif verb == "show":
        show()
    else:
        raise SystemExit(f"the stand-in does not know {words}")
    return 0


def unit() -> str:
    return "\n".join(path.read_text() for path in [*UNITS.glob("mistudiod.service"), *drop_ins()])


def drop_ins() -> list[Path]:
    return sorted((UNITS / "mistudiod.service.d").glob("*.conf"))


def values(key: str) -> list[str]:
    loaded = STATE / "loaded"  # what was there at the last daemon-reload
    lines = loaded.read_text().splitlines() if loaded.exists() else []
    return [line.partition("=")[2] for line in lines if line.partition("=")[0] == key]


def start() -> int:
    environ = dict(os.environ)
    for line in values("Environment"):
        if "%" not in line:
            environ |= dict(word.split("=", 1) for word in shlex.split(line))
    (command,) = values("ExecStart")
    program, *arguments = shlex.split(command)
    with (STATE / "log").open("a") as log:
        daemon = subprocess.Popen(
            [ROOT + program, *arguments], env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    (STATE / "pid").write_text(str(daemon.pid))
    until = time.monotonic() + 60
    while " is at " not in (STATE / "log").read_text():
        if daemon.poll() is not None or time.monotonic() > until:
            print("Job for mistudiod.service failed.", file=sys.stderr)
            return 1
        time.sleep(0.05)
    return 0


def running() -> int | None:
    try:
        pid = int((STATE / "pid").read_text())
        return pid if b"mistudiod" in Path(f"/proc/{pid}/cmdline").read_bytes() else None
    except (OSError, ValueError):
        return None


def stop() -> None:
    pid = running()
    if pid is None:
        return
    os.kill(pid, signal.SIGTERM)
    until = time.monotonic() + 60
    while running() == pid and time.monotonic() < until:
        time.sleep(0.02)
    (STATE / "log").write_text("")


def show() -> None:
    print(f"ActiveState={'active' if running() else 'inactive'}")
    print(f"UnitFileState={'enabled' if (STATE / 'enabled').exists() else 'disabled'}")
    print(f"DropInPaths={' '.join(map(str, drop_ins()))}")
    for key in ("ProtectHome", "IPAddressDeny"):
        print(f"{key}={(values(key) or [''])[-1]}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
