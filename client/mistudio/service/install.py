"""Installing the service, or changing it to what is wanted: nothing is done twice, what broke off is gone on with."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mistudio.errors import NoService
from mistudio.service import manifest, program, python
from mistudio.service.choices import Choices, check_paths, chosen
from mistudio.service.files import wanted
from mistudio.service.manifest import Manifest
from mistudio.service.place import PROGRAM, SOCKET, UNIT, Place, run
from mistudio.service.program import Say
from mistudiod import __version__

Texts = tuple["str | None", "str | None"]


@dataclass
class Plan:
    """What is missing. ``files``: path → its text before and after; ``program``: to be made, or gone over to."""

    choices: Choices
    files: dict[str, Texts]
    program: str | None = None
    python: python.Python | None = None
    old_programs: list[str] = field(default_factory=list)
    starts: bool = False  # enabled or started, because it is not
    broke_off: bool = False

    @property
    def is_empty(self) -> bool:
        return not (self.files or self.program or self.old_programs or self.starts or self.broke_off)

    def said(self) -> dict[str, Any]:
        """For --json: the diffs, and in words what else is done."""
        return {
            "files": {path: manifest.difference(path, *texts) for path, texts in self.files.items()},
            "steps": self.steps(),
        }

    def steps(self) -> list[str]:
        steps = ["go on with the installation that broke off"] if self.broke_off else []
        if self.program and self.python:
            by = f"{self.python.path} (Python {self.python.version})"
            steps.append(f"make {PROGRAM}/programs/{self.program} with {by} and {program.torch_said(self.python)}")
        steps += [f"remove {PROGRAM}/programs/{name}" for name in self.old_programs]
        return steps + (["enable and start mistudiod.service"] if self.starts else [])


def plan(place: Place, given: Mapping[str, Any]) -> Plan:
    """Writes nothing. Raises NoService when it cannot be done."""
    before = manifest.read(place)
    choices = chosen(before.choices if before else {}, given)
    if place.home is not None and (choices.socket or choices.announce or choices.hf_cache or choices.allow):
        raise NoService(
            "--socket, --announce, --hf-cache and --allow are of the machine's service: one of yours sees what you see"
        )
    check_paths(place, choices)
    held = before or Manifest()
    found = Plan(choices, manifest.changes(place, held, wanted(place, choices)))
    found.broke_off = before is not None and not before.complete
    if place.has_program:
        found.python = python.choose()
        name = program.name(found.python)
        folder = place.at(PROGRAM) / "programs"
        linked = os.path.realpath(place.at(PROGRAM) / "bin") == os.path.realpath(folder / name / "bin")
        found.program = None if program.is_whole(folder / name) and linked else name
        found.old_programs = [one for one in held.programs if one != name]
    found.starts = place.live and not _is_up(place, choices)
    return found


def carry_out(place: Place, plan: Plan, say: Say) -> None:
    """Raises NoService; what was done stays, and the next run goes on from there."""
    before = os.umask(0o022)  # the service's user reads what root writes
    try:
        with manifest.alone(place):
            held = _announced(place, plan)
            if plan.program and plan.python:
                program.make(place.at(PROGRAM) / "programs" / plan.program, plan.python, say)
            _write_files(place, plan)
            if plan.program:
                program.switch(place.at(PROGRAM), plan.program)
            _activate(place, plan, say)
            _finished(place, plan, held)
    finally:
        os.umask(before)


def _announced(place: Place, plan: Plan) -> Manifest:
    """The manifest of what is about to be made, beside what was."""
    held = manifest.read(place) or Manifest()
    for path, (_, after) in plan.files.items():
        if after is not None:
            hashes = held.files.setdefault(path, [])
            hashes += [one for one in [manifest.digest(after)] if one not in hashes]
    for path, text in wanted(place, plan.choices).items():  # the same as is there already, by whatever hand
        held.files.setdefault(path, [manifest.digest(text)])
    if plan.program and plan.program not in held.programs:
        held.programs.append(plan.program)
    held.choices, held.complete = plan.choices.said(), False
    manifest.write(place, held)
    return held


def _write_files(place: Place, plan: Plan) -> None:
    for path, (before, _) in plan.files.items():  # to make a program takes minutes
        if manifest.current(place, path) != before:
            raise NoService(f"{path} was changed while this was at work, and is not overwritten: run this again")
    for path, (_, after) in plan.files.items():
        if after is not None:
            manifest.put(place.at(path), after)
            continue
        if path == f"{place.units}/{SOCKET}":
            place.systemctl("disable", *(["--now"] if place.live else []), SOCKET)
        place.at(path).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # a person may have drop-ins there too
        place.at(f"{place.units}/{UNIT}.d").rmdir()


def _activate(place: Place, plan: Plan, say: Say) -> None:
    if not place.live:
        place.systemctl("enable", UNIT, *([SOCKET] if plan.choices.socket else []))
        return
    if place.home is None:
        run("systemd-sysusers", "/etc/sysusers.d/mistudio.conf", *_groups_file(place))
        run("systemd-tmpfiles", "--create", "/etc/tmpfiles.d/mistudio.conf")
        _verify(place, say)
    place.systemctl("daemon-reload")
    say("starting mistudiod.service")
    try:
        if plan.choices.socket:
            place.systemctl("stop", UNIT)  # the port must be free for systemd to listen on
            place.systemctl("enable", "--now", SOCKET)
        place.systemctl("enable", UNIT)
        with contextlib.suppress(NoService):  # of a unit that never ran
            place.systemctl("reset-failed", UNIT)  # starts that were in vain just now are not held against this one
        place.systemctl("restart", UNIT)
    except NoService as error:
        user = "" if place.home is None else "--user "
        raise NoService(f"{error}; what it said: journalctl {user}-u mistudiod -n 30") from None


def _groups_file(place: Place) -> list[str]:
    path = "/etc/sysusers.d/mistudio-groups.conf"
    return [path] if place.at(path).is_file() else []


def _verify(place: Place, say: Say) -> None:
    """systemd's own judgement. It also judges units that ours waits for; what it says of those is not ours to mend."""
    # --man=no: a machine may have no manual pages.
    judge = ("systemd-analyze", "verify", "--man=no", str(place.at(f"{place.units}/{UNIT}")))
    ran = subprocess.run(judge, capture_output=True, text=True, timeout=60)
    lines = [line for line in ran.stderr.splitlines() if UNIT in line]
    if ran.returncode:
        raise NoService(f"systemd finds the unit wrong: {lines[-1] if lines else 'systemd-analyze verify says more'}")
    for line in lines:
        say(f"systemd-analyze verify: {line}")


def _finished(place: Place, plan: Plan, held: Manifest) -> None:
    kept = wanted(place, plan.choices)
    held.files = {path: [manifest.digest(text)] for path, text in kept.items()}
    for name in plan.old_programs:
        shutil.rmtree(place.at(PROGRAM) / "programs" / name, ignore_errors=True)
    held.programs = [name for name in held.programs if name not in plan.old_programs]
    held.complete, held.version = True, __version__
    manifest.write(place, held)


def _is_up(place: Place, choices: Choices) -> bool:
    """Enabled, and running (or waiting for its first request)."""
    unit = SOCKET if choices.socket else UNIT
    try:
        found = place.properties(unit, "ActiveState", "UnitFileState")
    except NoService:
        return False
    return found.get("ActiveState") == "active" and found.get("UnitFileState") == "enabled"
