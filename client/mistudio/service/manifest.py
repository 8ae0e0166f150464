"""What an installation makes, written down before: so the next run can go on, and a removal takes exactly that."""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mistudio.errors import NoService
from mistudio.service.place import Place
from mistudiod import __version__

_FORMAT = 1


@dataclass
class Manifest:
    """``files``: path → the hashes (SHA-256) of every text that we may have written there."""

    files: dict[str, list[str]] = field(default_factory=dict)
    programs: list[str] = field(default_factory=list)  # folders of programs that were begun
    choices: dict[str, Any] = field(default_factory=dict)
    complete: bool = False
    version: str = __version__


def read(place: Place) -> Manifest | None:
    """None when nothing was installed. Raises NoService when it cannot be understood."""
    path = place.manifest
    try:
        held = json.loads(path.read_text())
        if held["format"] != _FORMAT:
            raise NoService(f"{path} is of a newer miStudio ({held['version']}): use that one")
        known = {name: held[name] for name in ("files", "programs", "choices", "complete", "version")}
        return Manifest(**known)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NoService(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None
    except (ValueError, KeyError, TypeError):
        raise NoService(f"{path} does not say any more what was installed: mend or remove it") from None


def write(place: Place, manifest: Manifest) -> None:
    put(place.manifest, json.dumps({"format": _FORMAT, **asdict(manifest)}, indent=1, ensure_ascii=False) + "\n")


def put(path: Path, text: str) -> None:
    """A file that is there whole or not at all, also after a power cut; everybody may read it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "w") as out:
            out.write(text)
            out.flush()
            os.fchmod(out.fileno(), 0o644)
            os.fsync(out.fileno())
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def alone(place: Place) -> Iterator[None]:
    """Only one installs or removes at a time. Raises NoService."""
    folder = place.manifest.parent
    folder.mkdir(parents=True, exist_ok=True)
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise NoService("another mistudio service install or uninstall is at work: wait until it has ended") from None
    finally:
        os.close(held)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def current(place: Place, path: str) -> str | None:
    try:
        return place.at(path).read_text(errors="surrogateescape")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NoService(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None


def is_ours(manifest: Manifest, path: str, text: str) -> bool:
    """Whether it stands there as one of ours has written it."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest() in manifest.files.get(path, [])


def difference(path: str, before: str | None, after: str | None) -> str:
    """As diff -u says it; a file that is not there is /dev/null."""
    lines = difflib.unified_diff(
        (before or "").splitlines(), (after or "").splitlines(),
        "/dev/null" if before is None else path, "/dev/null" if after is None else path, lineterm="",
    )  # fmt: skip
    return "\n".join(lines)


def changes(place: Place, manifest: Manifest, files: Mapping[str, str]) -> dict[str, tuple[str | None, str | None]]:
    """Path → its text now and the one it is to have; None: no file. Raises NoService for what a person has changed."""
    found: dict[str, tuple[str | None, str | None]] = {}
    for path in [*files, *(path for path in manifest.files if path not in files)]:
        before, after = current(place, path), files.get(path)
        if before == after:
            continue
        if before is not None and not is_ours(manifest, path, before):
            whose = "was changed since it was installed" if path in manifest.files else "is not of miStudio's making"
            raise NoService(
                f"{path} {whose} and is not overwritten: keep what you need of it in a drop-in of your own "
                "(sudo systemctl edit mistudiod), move it away, and run this again"
            )
        found[path] = (before, after)
    return found
