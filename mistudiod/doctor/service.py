"""The systemd unit, and what of this machine it hides from the studio. Source: systemd.exec(5), "Sandboxing"."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

from mistudiod.doctor.finding import Finding, Subject
from mistudiod.host import text
from mistudiod.settings import PREFIX, SettingsError, load

_UNIT = "mistudiod.service"
_PLACES = ("etc/systemd/system", "run/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system",
           "lib/systemd/system")  # fmt: skip
_FILE = "etc/mistudio/mistudio.toml"
_STATE = Path("/var/lib/mistudio")
_HOMES, _TEMPORARY = ("/home", "/root", "/run/user"), ("/tmp", "/var/tmp")
_TRUE = {"yes", "true", "1", "on"}
_CACHES = ("HF_HOME", "HF_HUB_CACHE")
Lines = list[tuple[str, str]]


def unit(subject: Subject) -> Finding | None:
    """Of an installed service: which of the paths that its settings name it cannot see, or not write to."""
    lines = _lines(subject.root)
    if not lines:
        return None
    environ = dict(_environment(lines))
    file = subject.root / _FILE
    try:
        settings, _ = load({}, environ, file if file.is_file() else Path(os.devnull))
    except SettingsError as error:
        return Finding("service", "problem", f"the service will not start: {error}", "mend that setting")
    data = settings.data if "data" in settings.given else _STATE
    caches = [Path(environ[name]) for name in _CACHES if environ.get(name, "").startswith("/")]
    if hidden := [path for path in caches if not _sees(lines, path)]:
        return _finding("see the Hugging Face cache", hidden, f"sudo mistudio service install --hf-cache {hidden[0]}")
    if hidden := [path for path in (data, *settings.allowed_folders) if not _sees(lines, path)]:
        return _finding("see", hidden, f"sudo mistudio service install --allow {hidden[0]}")
    if not _writes(lines, data):
        return _finding("write to", [data], f"sudo systemctl edit mistudiod, and add ReadWritePaths={data}")
    return Finding("service", "ok", f"{_UNIT} is installed, and sees all paths that its settings name")


def allowed(subject: Subject) -> Finding | None:
    """Folders of which people elsewhere may name files, as far as this process can look into them."""
    folders = subject.settings.allowed_folders
    if not folders:
        return None
    if closed := [str(path) for path in folders if not path.is_dir() or not os.access(path, os.R_OK | os.X_OK)]:
        message = f"no file can be read of {', '.join(closed)}: it is not there, or not for this user"
        return Finding("allowed paths", "warning", message, "mend the setting allowed_paths, or let this user read it")
    return Finding("allowed paths", "ok", ", ".join(map(str, folders)))


def _finding(what: str, paths: Iterable[Path], command: str) -> Finding:
    message = f"the service cannot {what} {', '.join(map(str, paths))}: its unit hides it"
    return Finding("service", "problem", message, f"run: {command}")


def _lines(root: Path) -> Lines:
    """Assignments of the unit's file and its drop-ins; none when it is not installed."""
    main = next((path for place in _PLACES if (path := root / place / _UNIT).is_file()), None)
    if main is None:
        return []
    parts = [part for place in _PLACES for part in (root / place / f"{_UNIT}.d").glob("*.conf")]
    return [line for path in (main, *sorted(parts, key=lambda part: part.name)) for line in _assignments(path)]


def _assignments(path: Path) -> Iterator[tuple[str, str]]:
    for line in (text(path) or "").replace("\\\n", " ").splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and not name.startswith(("#", ";")):
            yield name.strip(), value.strip()


def _values(lines: Lines, *names: str) -> list[str]:
    """Words of all lines of these names; an empty line forgets what came before it."""
    found: list[str] = []
    for name, value in lines:
        if name in names:
            found = [*found, *shlex.split(value)] if value else []
    return found


def _environment(lines: Lines) -> Iterator[tuple[str, str]]:
    for word in _values(lines, "Environment"):
        name, _, value = word.partition("=")
        if name in _CACHES or name.startswith(PREFIX):
            yield name, value


def _last(lines: Lines, name: str) -> str:
    return next((value for key, value in reversed(lines) if key == name), "").lower()


def _sees(lines: Lines, path: Path) -> bool:
    hidden = list(_HOMES) if _last(lines, "ProtectHome") in _TRUE | {"tmpfs"} else []
    hidden += _TEMPORARY if _last(lines, "PrivateTmp") in _TRUE else ()
    hidden += _values(lines, "InaccessiblePaths", "TemporaryFileSystem")
    return not _is_below(path, hidden) or _is_below(path, _values(lines, "BindPaths", "BindReadOnlyPaths"))


def _writes(lines: Lines, path: Path) -> bool:
    if _last(lines, "ProtectSystem") != "strict":
        return True
    return _is_below(path, [str(_STATE), *_values(lines, "ReadWritePaths", "BindPaths")])


def _is_below(path: Path, named: Iterable[str]) -> bool:
    """``named`` as units write them: ``-/there/if/it/is``, ``/from:/to:options``."""
    for one in named:
        source, _, rest = one.lstrip("-+").partition(":")
        if path.is_relative_to(rest.partition(":")[0] or source):
            return True
    return False
