"""The folders of an SAE on their way to another name, into the trash or out of it; the next start finishes what a crash
cuts short.

An SAE lies at a place: its name, or ``trash/<id>``, which no SAE can be called. ``moving.json`` says which one is on
its way, from where to where: it is written first, and removed when folders and database agree. The SAE's own folder
goes last. What was found out about it, its certificate and evaluation, is not written anew: it would pass for newer
than it is.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, get_args

from mistudiod import about
from mistudiod.errors import Conflict
from mistudiod.index import read_object
from mistudiod.paths import PARTIAL, Paths, put_beside, sync, write_whole
from mistudiod.renamed import renamed
from mistudiod.specs.library import Format

log = logging.getLogger("mistudiod.moving")
FORMATS: tuple[str, ...] = get_args(Format)
_TRASH = "trash/"
_MEND = "free some space on its disk and start the studio anew, which finishes that or takes it back"


class Move(NamedTuple):
    """``was``: what the SAE has been called up to now; ``row``: its number in the index, of one that was there;
    ``job``: which has made it; ``ages``: when its folders were last written, which they keep; ``said``: what was in the
    files that another name changes, "" for one that is not there.
    """

    old: str
    new: str
    was: str
    row: int | None
    job: int | None
    ages: Mapping[str, int] = MappingProxyType({})
    said: Mapping[str, str] = MappingProxyType({})

    @property
    def name(self) -> str | None:
        """What it is called then; None in the trash."""
        return None if self.new.startswith(_TRASH) else self.new

    @property
    def is_restored(self) -> bool:
        return self.old.startswith(_TRASH)

    @property
    def is_renamed(self) -> bool:
        return not (self.is_restored or self.name is None)


def in_trash(id: str) -> str:
    """The place of what was removed as ``id``."""
    return f"{_TRASH}{id}"


def folders(paths: Paths, place: str) -> dict[str, Path]:
    """Of an SAE at a place, by what they are; its own comes last. Not each is there."""
    if place.startswith(_TRASH):
        top = paths.trash / place.removeprefix(_TRASH)
        exports = {format: top / "exports" / format for format in FORMATS}
        return {**exports, "features": top / "features", "sae": top / "sae"}
    exports = {format: paths.exports / f"{place}-{format}" for format in FORMATS}
    return {**exports, "features": paths.artifact("features", place), "sae": paths.artifact("sae", place)}


def check_room(paths: Paths, place: str) -> None:
    """Raises Conflict unless nothing lies where an SAE is to go, as an export of an earlier one. Empty folders go."""
    if paths.moving.exists():
        raise Conflict(f"an SAE is half renamed, removed or restored: {_MEND}")
    for folder in folders(paths, place).values():
        with contextlib.suppress(OSError):
            folder.rmdir()
        if os.path.lexists(folder):
            raise Conflict(f"{folder} is in the way: move it away or delete it")


def begin(paths: Paths, move: Move) -> Move:
    """Say that it is on its way: from now on it is finished, or taken back."""
    ages = {name: folder.stat().st_mtime_ns for name, folder in _aged(paths, move.old)}
    saying = _saying(folders(paths, move.old)) if move.name not in (None, move.was) else ()
    move = move._replace(ages=ages, said={name: _text(file) for name, file in saying})
    write_whole(paths.moving, [json.dumps(move._asdict())])
    return move


def begun(paths: Paths) -> Move | None:
    """The one that was on its way when the daemon died. What does not say which, for it is damaged, is put aside."""
    paths.moving.with_name(f"{PARTIAL}{paths.moving.name}").unlink(missing_ok=True)
    found = read_object(paths.moving)
    with contextlib.suppress(TypeError):
        if found:
            return Move(**found)
    if paths.moving.exists():
        aside = paths.moving.with_suffix(".damaged")
        paths.moving.replace(aside)
        log.warning("%s is damaged: it is put aside as %s, and not heeded", paths.moving, aside.name)
    return None


def end(paths: Paths) -> None:
    paths.moving.unlink(missing_ok=True)
    sync(paths.data)


def carry_out(paths: Paths, move: Move) -> bool:
    """Rename what is not renamed yet; False when the SAE is at neither place, or at both. Raises OSError."""
    before, after = folders(paths, move.old), folders(paths, move.new)
    if os.path.lexists(before["sae"]) == os.path.lexists(after["sae"]):
        return False
    for what, folder in before.items():
        _rename(folder, after[what])
    for parent in {folder.parent for folder in (*before.values(), *after.values())}:
        if parent.is_dir():
            sync(parent)
    if move.name is not None:
        _say(after, move.was, move.name)
    _keep_ages(paths, move.new, move.ages)
    return True


def take_back(paths: Paths, move: Move) -> bool:
    """Rename what was renamed back, and let its files say what they said; False when that cannot be, which is logged.

    It is on its way still then.
    """
    before, after = folders(paths, move.old), folders(paths, move.new)
    try:
        for what, folder in reversed(after.items()):
            _rename(folder, before[what])
        for name, text in move.said.items():
            what, _, file = name.partition("/")
            _put_back(before[what] / file, text)
        _keep_ages(paths, move.old, move.ages)
        end(paths)
    except (OSError, Conflict):
        log.exception("%s cannot be taken back to %s", move.new, move.old)
        return False
    return True


def not_taken_back(error: Exception) -> Conflict:
    """``error``: for which it could not be finished."""
    return Conflict(f"{why(error)}, and what was done before could not be taken back: {_MEND}")


def why(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename or 'a file'} cannot be written or moved ({error.strerror})"
    return str(error)


def _aged(paths: Paths, place: str) -> Iterator[tuple[str, Path]]:
    """The folders whose age says when something was made: the SAE's own, and of each extraction by its number."""
    at = folders(paths, place)
    for name, folder in [("sae", at["sae"]), *((one.name, one) for one in at["features"].glob("*"))]:
        if folder.is_dir() and not folder.is_symlink():
            yield name, folder


def _keep_ages(paths: Paths, place: str, ages: Mapping[str, int]) -> None:
    """Some file systems take a folder for changed that has another parent, and what is written into one changes it."""
    for name, folder in _aged(paths, place):
        if name in ages:
            os.utime(folder, ns=(folder.stat().st_atime_ns, ages[name]))


def _rename(folder: Path, to: Path) -> None:
    if not os.path.lexists(folder) or os.path.lexists(to):
        return
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.rename(to)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise Conflict(f"{folder} and {to.parent} lie on different disks: move {folder} by hand first") from error
        raise


def _saying(places: Mapping[str, Path]) -> Iterator[tuple[str, Path]]:
    """The files that another name changes, and what they are called in ``Move.said``."""
    yield from ((f"sae/{file}", places["sae"] / file) for file in ("recipe.json", about.ABOUT))
    for path in sorted(places["features"].glob("*/manifest.json")):
        yield f"features/{path.parent.name}/{path.name}", path


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def _put_back(path: Path, text: str) -> None:
    if _text(path) == text:
        return
    if text:
        put_beside(path.parent, path.name, text)
    else:
        path.unlink()


def _say(places: Mapping[str, Path], was: str, name: str) -> None:
    """Let the SAE's files call it by its name. Of the training's spec nothing changes: checkpoints know it by that."""
    if was == name or not places["sae"].is_dir():
        return
    for path in (path for _, path in _saying(places) if path.name != about.ABOUT):
        found = read_object(path) or {}
        now = {
            field: one if field == "spec" else renamed({field: one}, was, name)[field] for field, one in found.items()
        }
        if now != found:
            put_beside(path.parent, path.name, json.dumps(now, indent=1, ensure_ascii=False, allow_nan=False))
    known = about.said(read_object(places["sae"] / about.ABOUT))
    if (called := about.called(known, was, name)) != known:
        about.write(places["sae"], called)
