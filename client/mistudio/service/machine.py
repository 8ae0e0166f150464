"""Whether a service can be installed here: who asks, systemd, and the board. One sentence when it cannot."""

from __future__ import annotations

import os
import re

from mistudio.errors import NoService
from mistudio.service.place import Place, run

OLDEST_SYSTEMD = 249
_OLDEST_L4T = 36  # JetPack 6; L4T is what NVIDIA calls the system of its boards
_OLD_JETPACKS = {32: "4", 35: "5"}


def check(place: Place, verb: str, dry_run: bool) -> None:
    """Raises NoService. ``verb``: what is to be done, ``install`` or ``uninstall``."""
    check_board(place)
    if dry_run:
        return
    _check_user(place, verb)
    check_manager(place)
    if place.live:
        _check_version(run("systemctl", "--version"))


def check_manager(place: Place) -> None:
    """That there is a systemd to ask. Raises NoService."""
    if place.live and not _has_manager(place):
        whose = (
            "systemd does not run here as the first process" if place.home is None else "no systemd of this user runs"
        )
        raise NoService(
            f"{whose}, so there are no services: run mistudiod serve by other means; "
            "mistudio service install --dry-run shows what would be installed"
        )


def _check_user(place: Place, verb: str) -> None:
    if place.home is None and os.geteuid() != 0 and place.live:
        raise NoService(
            f"the machine's service is root's to {verb}: sudo mistudio service {verb}, or --user for one of your own"
        )
    if place.home is not None and os.geteuid() == 0 and os.environ.get("SUDO_USER"):
        raise NoService(f"a service of your own is yours to {verb}: mistudio service {verb} --user, without sudo")


def _has_manager(place: Place) -> bool:
    if place.home is None:
        return place.at("/run/systemd/system").is_dir()
    return os.path.isdir(os.path.join(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}", "systemd"))


def _check_version(said: str) -> None:
    found = re.match(r"systemd (\d+)", said)
    if found and int(found[1]) < OLDEST_SYSTEMD:
        raise NoService(
            f"systemd {found[1]} is too old for the service: Ubuntu 22.04 and Debian 12 have {OLDEST_SYSTEMD} or newer"
        )


def l4t(place: Place) -> int | None:
    """The release of NVIDIA's system for its boards, as 36; None on any other machine."""
    try:
        found = re.search(r"\bR(\d+)\b", place.at("/etc/nv_tegra_release").read_text(errors="replace"))
    except OSError:
        return None
    return int(found[1]) if found else None


def check_board(place: Place) -> None:
    """Whatever is newer than JetPack 6 is taken. Raises NoService."""
    release = l4t(place)
    if release is not None and release < _OLDEST_L4T:
        jetpack = f"JetPack {_OLD_JETPACKS[release]}" if release in _OLD_JETPACKS else "this JetPack"
        raise NoService(
            f"{jetpack} (L4T R{release}) is too old, with Python 3.8 and systemd 245: miStudio needs JetPack 6 or newer"
        )
