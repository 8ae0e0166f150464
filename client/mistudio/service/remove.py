"""Removing the service: what its manifest names and nothing else; what was made with the studio only when asked."""

from __future__ import annotations

import contextlib
import grp
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from mistudio.errors import NoService
from mistudio.service import manifest
from mistudio.service.manifest import Manifest
from mistudio.service.place import CACHE, CONFIG, DATA, PROGRAM, SOCKET, UNIT, Place, run
from mistudio.service.program import Say

_RUNTIME = "/run/mistudio"  # systemd leaves it, for the unit says so: a socket of systemd's may lie there
_KEPT = ".kept"  # after the name of a file that a person has changed


@dataclass
class Removal:
    """``changed``: set aside, as they are not as we wrote them. ``data``: folder → bytes, to be purged."""

    held: Manifest
    files: list[str]
    changed: list[str]
    programs: list[str]
    data: dict[str, int]

    @property
    def is_empty(self) -> bool:
        return not (self.held.files or self.programs or self.data)


def plan(place: Place, purge: bool) -> Removal:
    """Writes nothing. Raises NoService."""
    if purge and place.home is not None:
        raise NoService(
            "the data of your own service is your studio's: delete ~/.local/share/mistudio yourself to be rid of it"
        )
    held = manifest.read(place) or Manifest()
    there = {path: text for path in held.files if (text := manifest.current(place, path)) is not None}
    changed = [path for path, text in there.items() if not manifest.is_ours(held, path, text)]
    folders = [path for path in (DATA, CACHE, CONFIG) if purge and place.at(path).is_dir()]
    return Removal(
        held,
        [path for path in there if path not in changed],
        changed,
        [name for name in held.programs if (place.at(PROGRAM) / "programs" / name).is_dir()],
        {path: _bytes(place.at(path)) for path in folders},
    )


def named(place: Place, path: str) -> str:
    """A folder that will be deleted, as a person must see it: a link is followed."""
    real = os.path.realpath(place.at(path))
    return path if real == os.path.realpath(place.root) + path else f"{path}, that is {real}"


def carry_out(place: Place, plan: Removal, say: Say) -> None:
    """The manifest goes last: a removal that broke off is gone on with by the next."""
    with manifest.alone(place):
        _stop(place, plan)
        for path in plan.changed:
            aside = _aside(place.at(path))
            os.replace(place.at(path), aside)
            say(f"{path} was changed since it was installed: kept as {aside.name} beside")
        for path in plan.files:
            place.at(path).unlink(missing_ok=True)
        _remove_if_empty(place.at(f"{place.units}/{UNIT}.d"))
        if place.home is None:
            _remove_if_empty(place.at(_RUNTIME))
        _remove_programs(place, plan.held.programs)
        if place.live and plan.held.files:
            place.systemctl("daemon-reload")
        for path in [one for one in plan.data if one != CONFIG]:
            _delete(place.at(path))
        if plan.data and place.live:
            _remove_user(say)
        if CONFIG in plan.data:  # with it the manifest is gone, and nobody would know what is left to do
            _delete(place.at(CONFIG))
        place.manifest.unlink(missing_ok=True)
    _remove_if_empty(place.manifest.parent)


def _stop(place: Place, plan: Removal) -> None:
    """A unit whose file is gone may be enabled and run all the same; or it was never written: nothing to stop."""
    for unit in (SOCKET, UNIT):
        path = f"{place.units}/{unit}"
        if path not in plan.held.files:
            continue
        try:
            place.systemctl("disable", *(["--now"] if place.live else []), unit)
        except NoService:
            if path in [*plan.files, *plan.changed]:
                raise


def _aside(path: Path) -> Path:
    aside, n = path.with_name(path.name + _KEPT), 1
    while aside.exists():
        n += 1
        aside = path.with_name(f"{path.name}{_KEPT}-{n}")
    return aside


def _remove_programs(place: Place, names: list[str]) -> None:
    if not names:
        return
    folder = place.at(PROGRAM)
    if (folder / "bin").is_symlink():
        (folder / "bin").unlink()
    for name in names:
        shutil.rmtree(folder / "programs" / name, ignore_errors=True)
    _remove_if_empty(folder / "programs")
    _remove_if_empty(folder)


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def _delete(folder: Path) -> None:
    """Also what a link leads to, as to a larger disk; the folder of a mount stays, empty."""
    shutil.rmtree(os.path.realpath(folder), ignore_errors=True)
    if folder.is_symlink():
        folder.unlink()
    if folder.is_dir() and any(folder.iterdir()):
        raise NoService(f"{folder} could not be deleted wholly: look what is left there, and who uses it")


def _remove_user(say: Say) -> None:
    try:
        run("userdel", "mistudio")
        if any(one.gr_name == "mistudio" for one in grp.getgrall()):  # it goes with its user, if nobody else is in it
            run("groupdel", "mistudio")
    except NoService as error:
        say(f"the user mistudio, or its group, stays: {error}")


def _bytes(folder: Path) -> int:
    total = 0
    for at, _, files in os.walk(os.path.realpath(folder)):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(at, name)).st_blocks * 512
    return total
