"""The prompts that labels are asked for with: those that come with the studio, and a person's own."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from mistudiod.errors import Conflict, Invalid, NotFound
from mistudiod.paths import PARTIAL
from mistudiod.specs import check_name

MAX_BYTES = 20_000
_BUILT_IN = Path(__file__).parent / "labelling" / "templates"


@dataclass(frozen=True)
class Template:
    name: str
    text: str
    built_in: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


class Templates:
    """Each is a file NAME.txt of ``folder``, or a built-in one. Every method reads or writes files: call it from a
    thread.
    """

    def __init__(self, folder: Path, built_in: Path = _BUILT_IN) -> None:
        self._folder, self._built_in = folder, built_in

    def all(self) -> list[Template]:
        """By name; files that are none are left out."""
        found = {path.stem: (path, True) for path in self._built_in.glob("*.txt")}
        found = {path.stem: (path, False) for path in self._folder.glob("*.txt") if _is_name(path.stem)} | found
        read = (_read(name, *where) for name, where in sorted(found.items()))
        return [one for one in read if one is not None]

    def get(self, name: str) -> Template:
        """Raises NotFound."""
        for folder in (self._built_in, self._folder):
            if found := _read(name, folder / f"{name}.txt", folder == self._built_in):
                return found
        names = ", ".join(one.name for one in self.all()) or "none"
        raise NotFound(f"there is no template {name!r}: there are {names}", {"template": "is not there"})

    def put(self, name: str, text: str) -> Template:
        """Keep a person's template, in place of the one of that name. Raises Conflict, Invalid."""
        if name.lower() in {path.stem.lower() for path in self._built_in.glob("*.txt")}:
            raise Conflict(f"the template {name!r} comes with the studio and stays as it is: choose another name")
        text = _with_line_feeds(text)
        if not text.strip() or len(text.encode(errors="replace")) > MAX_BYTES:
            raise Invalid(f"a template has 1 to {MAX_BYTES} bytes of text", {"text": "is empty or too long"})
        self._folder.mkdir(exist_ok=True)
        partial = self._folder / f"{PARTIAL}{name}"
        with open(partial, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._folder / f"{name}.txt")
        return Template(name, text, built_in=False)


def _read(name: str, path: Path, built_in: bool) -> Template | None:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
        return Template(name, _with_line_feeds(data.decode()), built_in) if len(data) <= MAX_BYTES else None
    except (OSError, UnicodeDecodeError):
        return None


def _with_line_feeds(text: str) -> str:
    """Whatever the editor ends its lines with: the lines that begin messages are known by it, and so is the hash."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _is_name(name: str) -> bool:
    try:
        return bool(check_name(name))
    except ValueError:
        return False
