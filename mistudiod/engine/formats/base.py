"""What every reader of a published layout works with: where files come from, what was found, what was read.

A reader looks at configs and at the headers of weights, never at a name alone; what a path says (a layer, a width) is
taken where the files do not say it. Weights are read by ``tensor_files.TensorFile``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol

import torch

from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.engine.tensor_files import MOST_HEADER_BYTES
from mistudiod.facts import Stored, parse_header

MAX_TEXT_BYTES = 1 << 20
MAX_FILES = 100_000
MOST_DEPTH = 32  # of objects and lists in each other
LOOKED_INTO = 64  # candidates of one format whose insides are all looked at; on the Hub each costs a request
SIBLINGS_AFTER = 4
_MOST_TEXT_CHARS, _MOST_NUMBER = 2000, 1e300


class Listing(Protocol):
    """Files of a Hub repo, of a folder, or one file; ``source`` is what a person calls it.

    Readers ask again for what they have read: one that fetches remembers small answers.
    """

    source: str

    def names(self) -> Sequence[str]:
        """Paths inside the source, with ``/``."""

    def size(self, name: str) -> int:
        """Bytes."""

    def read(self, name: str, start: int, n: int) -> bytes:
        """The ``n`` bytes from ``start`` on, fewer at the end; of a file on the Hub nothing else is fetched."""

    def text(self, name: str, limit: int = MAX_TEXT_BYTES) -> str:
        """A small config file; ValueError when it is larger than ``limit`` bytes or no UTF-8."""

    def path(self, name: str) -> Path:
        """The whole file on this disk, fetched if need be."""


class FolderListing:
    """The files of a folder and below, or one file with the small configs (.json, .yaml) beside it."""

    def __init__(self, path: Path) -> None:
        self.source = str(path)
        if path.is_file():
            beside = (
                one for one in path.parent.iterdir() if one.suffix in (".json", ".yaml", ".yml") and one.is_file()
            )
            self._root, names = path.parent, {path.name, *(one.name for one in beside)}
        elif path.is_dir():
            self._root, names = path, set(_files_below(path))
        else:
            raise ValueError(f"{path} is neither a folder nor a file")
        self._names = dict.fromkeys(sorted(names))

    def names(self) -> Sequence[str]:
        return list(self._names)

    def size(self, name: str) -> int:
        return self.path(name).stat().st_size

    def read(self, name: str, start: int, n: int) -> bytes:
        with self.path(name).open("rb") as file:
            file.seek(start)
            return file.read(n)

    def text(self, name: str, limit: int = MAX_TEXT_BYTES) -> str:
        return as_text(name, self.read(name, 0, limit + 1), limit)

    def path(self, name: str) -> Path:
        if name not in self._names:
            raise ValueError(f"{self.source} has no file {name}")
        return self._root / name


@dataclass(frozen=True)
class Found:
    """One SAE in a source, as far as it is known before its weights are read."""

    format: str
    path: str  # of its folder or file inside the source, "" for all of it: what ``repo:path`` names
    files: tuple[str, ...]  # that reading it needs, the weights among them
    layer: int | None = None
    width: int | None = None  # d_sae
    l0: float | None = None
    hook: str | None = None  # TransformerLens' name
    model: str | None = None  # as its maker calls it
    pickle: bool = False  # whether reading needs a pickle


@dataclass
class Imported:
    """What was read: the SAE in our canonical form, and what its maker says of it."""

    sae: SparseAutoencoder
    found: Found
    hook: str | None = None  # where it reads
    hook_out: str | None = None  # where it writes; for an SAE the hook itself
    model: str | None = None
    context: int | None = None
    bos: bool | None = None  # whether text began with BOS; None: not known
    declared: dict[str, object] = field(default_factory=dict)  # l0, fvu, variance_explained … as the card says
    notes: list[str] = field(default_factory=list)  # what was folded, guessed or repaired, a sentence each


class Format(Protocol):
    """A layout in which SAEs are published."""

    name: str

    def look(self, listing: Listing) -> list[Found]:
        """The SAEs of this layout; ValueError, one sentence, when what is there is damaged."""

    def read(self, listing: Listing, found: Found, device: str | torch.device) -> Imported:
        """ValueError, one sentence, for what is damaged or of a kind that is not understood."""


def look_at(candidates: Sequence[str], one: Callable[[str, bool], Found | None]) -> list[Found]:
    """What ``one(candidate, inside)`` makes of each: looking inside it, or, of the many of a large repo, by its path.

    A large repo is one whose candidates are over LOOKED_INTO: if the first are an SAE, the others are taken for its
    siblings, which reading then proves. Raises its first ValueError when nothing else was found.
    """
    found: list[Found] = []
    wrong: ValueError | None = None
    many = len(candidates) > LOOKED_INTO
    for n, candidate in enumerate(candidates):
        if many and n == LOOKED_INTO and not found:
            break
        try:
            new = one(candidate, not many or n < SIBLINGS_AFTER or not found)
        except ValueError as error:
            wrong = wrong or error
        else:
            found += [new] if new else []
    if wrong and not found:
        raise wrong
    return found


def tensors_of(listing: Listing, name: str) -> dict[str, Stored]:
    """The header of a safetensors file, checked: no overlap, no hole, nothing beyond its end. Raises ValueError."""
    return parse_header(
        Path(name), listing.size(name), lambda start, n: listing.read(name, start, n), MOST_HEADER_BYTES
    )


def config_of(listing: Listing, name: str) -> dict[str, object]:
    """A JSON object; ValueError when there is none in the file."""
    try:
        value = json.loads(listing.text(name), parse_constant=lambda _: None)  # NaN and Infinity are no JSON
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} of {listing.source} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{name} of {listing.source} does not hold a JSON object")
    if _depth(value) > MOST_DEPTH:
        raise ValueError(f"{name} of {listing.source} is nested more than {MOST_DEPTH} deep, which no real one is")
    return value


def _depth(value: object) -> int:
    """How deep objects and lists lie in each other."""
    depth, level = 0, [value]
    while level := [one for one in level if isinstance(one, dict | list)]:
        depth += 1
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
    return depth


def whole(config: Mapping[str, object], key: str, at: str) -> int:
    """A count out of a config; ValueError when it is not a whole number above 0."""
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1 or not 0 < value < 1 << 40:
        raise ValueError(f"{at} has {key} {json.dumps(value)[:100]}, which must be a whole number above 0")
    return int(value)


def number(value: object) -> float | None:
    """A finite number out of a config, or None."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _MOST_NUMBER
    return float(value) if usable else None


def words(value: object) -> str | None:
    """A text out of a config, or None; what cannot be printed in a line is '?'."""
    return one_line(value[:_MOST_TEXT_CHARS]) if isinstance(value, str) and value else None


def one_line(text: str) -> str:
    """Bytes of a file's name that are no UTF-8, halves of characters, line feeds and the like are shown as '?'."""
    return "".join(one if one.isprintable() else "?" for one in text)


def folder_of(name: str) -> str:
    """The folder of a file inside a source; "" is the source itself."""
    parent = PurePosixPath(name).parent.as_posix()
    return "" if parent == "." else parent


def inside(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def as_text(name: str, data: bytes, limit: int) -> str:
    if len(data) > limit:
        raise ValueError(f"{name} is larger than {limit >> 10:,} KiB, which no real one is")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{name} is not UTF-8 text") from None


def _files_below(path: Path) -> Iterator[str]:
    n = 0
    for folder, below, files in os.walk(path):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in files:
            n += 1
            if n > MAX_FILES:
                raise ValueError(f"{path} has more than {MAX_FILES:,} files: name a folder deeper down")
            file = Path(folder) / name
            if file.is_file():  # to open a pipe would wait for who writes into it
                yield file.relative_to(path).as_posix()


def beside(listing: Listing, *needed: str) -> list[str]:
    """The folders of a source, in order, that hold all these files."""
    names = set(listing.names())
    first = needed[0]
    folders = [folder_of(name) for name in names if PurePosixPath(name).name == first]
    return sorted(folder for folder in folders if all(inside(folder, name) in names for name in needed))
