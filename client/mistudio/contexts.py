"""Contexts: studios by name, with their tokens, in a file that only its user can read."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mistudio.near import did_you_mean

LOCAL = "local"  # this machine: always there, never stored
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Context:
    host: str
    token: str | None = field(default=None, repr=False)
    fingerprint: str | None = None  # of the only certificate that is accepted


@dataclass
class Contexts:
    """The contexts by name, and the one that ``use`` has chosen. Its methods raise ValueError with a sentence."""

    known: dict[str, Context]
    chosen: str | None = None

    def get(self, name: str) -> Context:
        if name not in self.known:
            raise ValueError(f"there is no context {name!r}{did_you_mean(name, [*self.known, LOCAL])}")
        return self.known[name]

    def add(self, name: str, context: Context) -> None:
        if name == LOCAL or not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot be a context: take letters, digits, '.', '_' or '-', and not {LOCAL!r}")
        self.known[name] = context

    def use(self, name: str) -> None:
        self.chosen = None if name == LOCAL else name
        if self.chosen:
            self.get(name)

    def remove(self, name: str) -> None:
        self.get(name)
        del self.known[name]
        if self.chosen == name:
            self.chosen = None


def path(environ: Mapping[str, str]) -> Path:
    base = environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(base) / "mistudio" / "contexts.json"


def read(environ: Mapping[str, str]) -> Contexts:
    """What the file holds; nothing when there is none. Raises ValueError when it cannot be understood."""
    file = path(environ)
    try:
        held = json.loads(file.read_text())
        known = {
            name: Context(str(one["host"]), one.get("token"), one.get("fingerprint"))
            for name, one in held["contexts"].items()
        }
        return Contexts(known, held.get("chosen"))
    except FileNotFoundError:
        return Contexts({})
    except OSError as error:
        raise ValueError(f"the contexts in {file} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{file} does not hold contexts any more; mend or remove it") from None


def write(contexts: Contexts, environ: Mapping[str, str]) -> None:
    """Replace the file, whole or not at all. Raises ValueError when it cannot be written."""
    import tempfile

    file = path(environ)
    known = {name: asdict(one) for name, one in contexts.known.items()}
    text = json.dumps({"chosen": contexts.chosen, "contexts": known}, indent=1, ensure_ascii=False) + "\n"
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, partial = tempfile.mkstemp(dir=file.parent, prefix=".contexts-")  # readable by its user alone
        try:
            with os.fdopen(descriptor, "w") as out:
                out.write(text)
                out.flush()
                os.fsync(out.fileno())
            os.replace(partial, file)
        except BaseException:
            os.unlink(partial)
            raise
    except OSError as error:
        raise ValueError(f"the contexts cannot be written to {file}: {error.strerror}") from error
