"""The text that every Python carries: the standard library's sources, its help topics and C docstrings.

Read by the dataset ``builtin:python`` and by the script that trained ``builtin:pico``, so that both mean the same
text. Standard library only. Not here: tests, generated tables, anything installed by pip, anything that names paths
of the machine (``_sysconfigdata``).
"""

from __future__ import annotations

import importlib
import pydoc
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Top-level modules that no model, tokenizer or SAE of ours has been trained on.
HELD_OUT = frozenset(
    "calendar configparser csv fractions graphlib heapq imaplib json shlex statistics textwrap wave zipfile".split()
)

# Generated tables, bundled third-party code, tests, and files that hold paths of the machine.
_SKIP_FOLDERS = frozenset(
    "__pycache__ test tests idle_test site-packages dist-packages _bundled encodings lib2to3 pydoc_data "
    "lib-dynload".split()
)
_SKIP_PREFIXES = ("_sysconfigdata", "config-", "_sysconfig_vars", "antigravity", "this")
_MAX_BYTES = 300_000  # larger files are tables

# Modules written in C, whose documentation is text that no source file holds.
_C_MODULES = (
    "array atexit binascii builtins cmath errno fcntl gc itertools math operator "
    "select signal sys time unicodedata zlib"
).split()


@dataclass(frozen=True)
class Document:
    """One text with its name, such as ``collections/abc.py`` or ``topic:lambda``."""

    name: str
    text: str
    held_out: bool


def documents() -> Iterator[Document]:
    """Every document, in an order that depends only on the names."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if _skipped(name) or path.stat().st_size > _MAX_BYTES:
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if text.strip():
            yield Document(name, text, is_held_out(name))
    yield from _help_topics()
    yield from _c_docstrings()


def is_held_out(name: str) -> bool:
    """Whether the document belongs to a module of ``HELD_OUT`` (``json/decoder.py``, ``csv.py``)."""
    return name.split("/")[0].removesuffix(".py") in HELD_OUT


def _skipped(name: str) -> bool:
    *folders, file = name.split("/")
    return bool(_SKIP_FOLDERS.intersection(folders)) or file.startswith(_SKIP_PREFIXES)


def _help_topics() -> Iterator[Document]:
    from pydoc_data.topics import topics

    for name in sorted(topics):
        yield Document(f"topic:{name}", topics[name], held_out=False)


def _c_docstrings() -> Iterator[Document]:
    for name in _C_MODULES:
        try:
            module = importlib.import_module(name)
        except ImportError:  # fcntl, select and signal differ between platforms
            continue
        parts = [f"{name}\n\n{module.__doc__ or ''}"]
        for attribute in sorted(vars(module)):
            doc = pydoc.getdoc(getattr(module, attribute))
            if doc and not attribute.startswith("_"):
                parts.append(f"{name}.{attribute}\n\n{doc}")
        yield Document(f"help:{name}", "\n\n\n".join(parts), held_out=False)
