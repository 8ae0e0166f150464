"""Every file of a service and what stands in it, besides its program. Nothing here writes."""

from __future__ import annotations

import sys

from mistudio.service.choices import Choices, is_in_a_home, sources
from mistudio.service.place import AVAHI, CACHE, SOCKET, UNIT, Place
from mistudiod import units

GROUPS = ("render", "video", "jtop")  # who may use the GPU and ask jetson-stats, where there are such groups
_HUB = f"{CACHE}/huggingface/hub"
# Of the machine's unit what a user's can have: its manager has no right to the rest.
_OF_A_USER = frozenset(
    "Description Documentation StartLimitIntervalSec StartLimitBurst Type NotifyAccess Restart RestartSec "
    "RestartPreventExitStatus TimeoutStartSec TimeoutStopSec WatchdogSec KillMode OOMPolicy UMask "
    "NoNewPrivileges".split()
)


def wanted(place: Place, choices: Choices) -> dict[str, str]:
    """Path → text, of the service as it is chosen. The paths are those of the running machine."""
    unit = (units.FOLDER / UNIT).read_text()
    files = {f"{place.units}/{UNIT}": unit if place.home is None else user_unit(unit)}
    if choices.listen == "lan":
        files[f"{place.units}/{UNIT}.d/listen.conf"] = _drop_in("--listen lan", "Environment=MISTUDIO_LISTEN=lan")
    if place.home is not None:
        return files
    if choices.socket:
        files[f"{place.units}/{SOCKET}"] = (units.FOLDER / SOCKET).read_text()
    if choices.announce:
        files[f"{AVAHI}/mistudio.service"] = (units.FOLDER / "mistudio.avahi.service").read_text()
    if choices.allow or choices.hf_cache:
        files[f"{place.units}/{UNIT}.d/paths.conf"] = _paths(place, choices)
    files["/etc/sysusers.d/mistudio.conf"] = (units.FOLDER / "mistudio.sysusers.conf").read_text()
    if groups := _groups(place):
        files["/etc/sysusers.d/mistudio-groups.conf"] = "".join(f"m mistudio {name}\n" for name in groups)
    files["/etc/tmpfiles.d/mistudio.conf"] = (units.FOLDER / "mistudio.tmpfiles.conf").read_text() + _mount_points(
        place, choices
    )
    return files


def user_unit(text: str) -> str:
    """The unit of one user's service: the program that runs now, as that user, with that user's own studio."""
    lines = [f"# The studio as a service of one user: {_INSTALL} --user"]
    for line in text.splitlines():
        if line.startswith("["):
            lines += ["", line]
        if line == "[Service]":
            lines.append(f'ExecStart="{sys.executable}" -m mistudiod serve')
        if line.partition("=")[0] in _OF_A_USER:
            lines.append(line)
    return "\n".join([*lines, "WantedBy=default.target"]) + "\n"


_INSTALL = "mistudio service install"


def _drop_in(options: str, *lines: str) -> str:
    """Options are given anew, the file is not edited: what a person changes belongs in a file of its own."""
    return "\n".join([f"# {_INSTALL} {options}", "[Service]", *lines]) + "\n"


def _paths(place: Place, choices: Choices) -> str:
    """What lies in homes is hidden but for these; a disk that is not mounted must not keep the studio from starting."""
    lines = ["ProtectHome=tmpfs"] if any(map(is_in_a_home, choices.allow)) else []
    lines += [f'BindReadOnlyPaths="-{path}"' for path in choices.allow]
    if choices.allow:
        lines.append(f'Environment="MISTUDIO_ALLOWED_PATHS={",".join(choices.allow)}"')
    lines += [f'BindReadOnlyPaths="-{path}":{_HUB}/{name}' for path, name in sources(place, choices).items()]
    return _drop_in("--allow, --hf-cache", *lines)


def _mount_points(place: Place, choices: Choices) -> str:
    """systemd would make them root's: the studio could then never download into them once they are empty again."""
    names = sources(place, choices).values()
    folders = [f"{CACHE}/huggingface", _HUB, *(f"{_HUB}/{name}" for name in names)] if names else []
    return "".join(f"d {folder} 0750 mistudio mistudio\n" for folder in folders)


def _groups(place: Place) -> list[str]:
    """Those of GROUPS that this machine has: naming another would make it."""
    try:
        known = {line.partition(":")[0] for line in place.at("/etc/group").read_text().splitlines()}
    except OSError:
        return []
    return [name for name in GROUPS if name in known]
