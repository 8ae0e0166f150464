"""What a person has chosen of a service; what is not said again stays as it was installed."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from mistudio.errors import NoService
from mistudio.service.place import AVAHI, HOMES, Place

# Of unit files, of tmpfiles, of settings that are lists; and what is no UTF-8.
_ODD = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff:,\"'\\%$*?\[\]]")
_REPO = re.compile(r"(models|datasets)--[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Choices:
    """``listen``: local or lan. Paths are absolute, and of this machine whatever the root is."""

    listen: str = "local"
    socket: bool = False
    announce: bool = False
    hf_cache: str | None = None
    allow: tuple[str, ...] = ()

    def said(self) -> dict[str, Any]:
        """What is not the default: an older miStudio, which one may go back to, knows fewer of them."""
        return {one.name: value for one in fields(self) if (value := getattr(self, one.name)) != one.default}


def chosen(kept: Mapping[str, Any], given: Mapping[str, Any]) -> Choices:
    """``given``: None where nothing was said; an empty path takes back what was given before. Raises NoService."""
    if newer := kept.keys() - {one.name for one in fields(Choices)}:
        named = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(newer))
        raise NoService(f"a newer miStudio has installed it, with {named}: use that one")
    choices = Choices(**{**kept, "allow": tuple(kept.get("allow", ()))})
    for name, value in given.items():
        if value is None:
            continue
        if name == "allow":
            value = tuple(dict.fromkeys(_absolute(path) for path in value if path))
        if name == "hf_cache":
            value = _absolute(value) if value else None
        choices = replace(choices, **{name: value})
    if choices.socket and choices.listen == "lan":
        raise NoService("--socket listens on this machine alone: leave out --listen lan, or say --no-socket")
    if choices.announce and choices.listen != "lan":
        raise NoService("--announce is for a studio that others can reach: say --listen lan, or --no-announce")
    return choices


def _absolute(path: str) -> str:
    found = os.path.realpath(os.path.expanduser(path))
    if _ODD.search(found):
        raise NoService(
            f"{path!r} has a character that a unit or a list cannot hold (such as : , % or a quote): rename it"
        )
    if found == "/" or found in HOMES:
        raise NoService(f"{found} is more than the studio should see: name the folder that it needs")
    return found


def check_paths(place: Place, choices: Choices) -> None:
    """That the service's user will be able to read them, and that Avahi's folder is there. Raises NoService."""
    if choices.announce and not place.at(AVAHI).is_dir():
        raise NoService(
            "--announce is done by Avahi, which is not here: install the package avahi-daemon, or say --no-announce"
        )
    for path in choices.allow:
        _check_readable(place, path)
    if choices.hf_cache:
        hub = _hub(place, choices.hf_cache)
        found = cached(place, choices)
        if not found:
            raise NoService(f"there is no model or dataset of the Hugging Face Hub in {hub}: name its cache folder")
        for name in found:
            _check_readable(place, f"{hub}/{name}")


def _check_readable(place: Place, path: str) -> None:
    """The folder itself: those above it are not gone through, for systemd binds it."""
    try:
        mode = place.at(path).stat().st_mode
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise NoService(
            f'{path} cannot be shown to the service: {reason}; name what is there, or "" for none'
        ) from None
    needed = stat.S_IROTH | (stat.S_IXOTH if stat.S_ISDIR(mode) else 0)
    if mode & needed != needed:
        raise NoService(f"{path} is not readable for the service's user: chmod -R o+rX '{path}'")


def cached(place: Place, choices: Choices) -> list[str]:
    """Folders of what lies in the chosen Hugging Face cache, as models--org--name."""
    if not choices.hf_cache:
        return []
    folder = place.at(_hub(place, choices.hf_cache))
    try:
        return sorted(one.name for one in folder.iterdir() if _REPO.fullmatch(one.name) and one.is_dir())
    except OSError as error:
        raise NoService(f"the Hugging Face cache {folder} cannot be read: {(error.strerror or '').lower()}") from None


def _hub(place: Place, path: str) -> str:
    """Of the cache's folder, or of the folder hub in it."""
    return f"{path}/hub" if (place.at(path) / "hub").is_dir() else path


def sources(place: Place, choices: Choices) -> dict[str, str]:
    """Of what is shown to the service under another path: where it lies, and where it is shown."""
    hub = _hub(place, choices.hf_cache) if choices.hf_cache else ""
    return {f"{hub}/{name}": name for name in cached(place, choices)}


def is_in_a_home(path: str) -> bool:
    return any(Path(path).is_relative_to(home) for home in HOMES)
