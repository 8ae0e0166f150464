"""Secrets: what the studio needs to be let in elsewhere, as the Hugging Face token. Never in database, log or answer.

Each is looked up in ``secrets.json`` in the data folder, then in the folder of systemd's credentials, then in the
environment. Nothing is cached: what is mended by hand counts at once.
"""

from __future__ import annotations

import json
import logging
import os
import re
import stat
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, SecretStr, TypeAdapter, ValidationError

from mistudiod.errors import Conflict, NotFound, StudioError
from mistudiod.jobs import now
from mistudiod.redact import PROCESS
from mistudiod.specs import NEEDS

log = logging.getLogger("mistudiod.secret")
NAME = r"[a-z0-9][a-z0-9.-]{0,63}(:[0-9]{1,5})?"
MAX_VALUE_CHARS = 4096
_ENVIRONMENT = {"hf": "HF_TOKEN", "openai": "OPENAI_API_KEY"}
_CREDENTIALS = "CREDENTIALS_DIRECTORY"  # set by systemd for LoadCredential= and the like
Source = Literal["file", "credentials", "environment"]


class SecretsUnusable(StudioError):
    """The secrets cannot be read or kept safely; the message says how to mend it."""

    status, code = 503, "secrets"


def check_name(name: str) -> str:
    if not re.fullmatch(NAME, name):
        raise ValueError(
            "must be hf, neuronpedia, openai, or an endpoint's host in lower case, as ollama.lan or ollama.lan:11434"
        )
    return name


def check_value(value: SecretStr) -> SecretStr:
    """The value without a line break at its end, as files and pipes add one."""
    text = value.get_secret_value().removesuffix("\n").removesuffix("\r")
    if not 1 <= len(text) <= MAX_VALUE_CHARS or not text.isascii() or not text.isprintable():
        raise ValueError(f"must be 1 to {MAX_VALUE_CHARS} printable ASCII characters")
    return SecretStr(text)


SecretName = Annotated[str, AfterValidator(check_name)]
SecretValue = Annotated[SecretStr, AfterValidator(check_value)]


@dataclass(frozen=True)
class Listed:
    """That there is a secret, where it comes from, and when it was set (UTC, ISO; None when nobody noted it)."""

    name: str
    source: Source
    set_at: str | None


class _Kept(BaseModel):
    model_config = ConfigDict(defer_build=True, extra="forbid", hide_input_in_errors=True)
    value: SecretValue
    set_at: str


_KEPT = TypeAdapter(dict[SecretName, _Kept], config=ConfigDict(defer_build=True))


class Secrets:
    """Every method reads or writes files: call it from a thread. Raises SecretsUnusable."""

    def __init__(self, file: Path, environ: Mapping[str, str]) -> None:
        self._file, self._environ = file, environ
        self._changing = threading.Lock()

    def get(self, name: str) -> str | None:
        """Its value, which is hidden in this process's logs from now on; None when nobody has set it."""
        found = self._all().get(name)
        return found[1].get_secret_value() if found else None

    def for_kind(self, kind: str, endpoint: str | None = None) -> dict[str, str]:
        """What a worker of that kind is to be handed; of what it needs, that which is set.

        ``endpoint``: name of the secret of the endpoint that it asks; the worker knows it as "endpoint".
        """
        needed = {name: name for name in NEEDS.get(kind, ())} | ({"endpoint": endpoint} if endpoint else {})
        return {to: value for to, name in needed.items() if (value := self.get(name)) is not None}

    def all(self) -> list[Listed]:
        return [listed for _, (listed, _) in sorted(self._all().items())]

    def learn(self) -> None:
        """Hide every secret there is in this process's logs; at its start, before it logs anything else."""
        try:
            self._all()
        except SecretsUnusable as error:
            log.warning(error.message)

    def set(self, name: str, value: SecretStr) -> None:
        """Keep a checked value under a checked name; one from elsewhere is not looked up any more."""
        PROCESS.know([value.get_secret_value()])
        with self._changing:
            self._write(self._read() | {name: _Kept(value=value, set_at=now())})

    def remove(self, name: str) -> None:
        """Raises NotFound; Conflict when it is not kept by us."""
        with self._changing:
            kept = self._read()
            if kept.pop(name, None) is None:
                elsewhere = self._all().get(name)
                if elsewhere is None:
                    raise NotFound(f"there is no secret {name!r}")
                raise Conflict(f"the secret {name!r} comes from the daemon's {elsewhere[0].source}; remove it there")
            self._write(kept)

    def _all(self) -> dict[str, tuple[Listed, SecretStr]]:
        found: dict[str, tuple[Listed, SecretStr]] = {}
        for name, value in self._from_environment().items():
            found[name] = Listed(name, "environment", None), value
        for name, value in self._from_credentials().items():
            found[name] = Listed(name, "credentials", None), value
        for name, kept in self._read().items():
            found[name] = Listed(name, "file", kept.set_at), kept.value
        PROCESS.know(value.get_secret_value() for _, value in found.values())
        return found

    def _from_environment(self) -> dict[str, SecretStr]:
        values = {name: _usable(self._environ.get(variable, "")) for name, variable in _ENVIRONMENT.items()}
        return {name: value for name, value in values.items() if value is not None}

    def _from_credentials(self) -> dict[str, SecretStr]:
        """Its files that can be secrets of ours: others, as TLS keys, may lie there too."""
        folder = self._environ.get(_CREDENTIALS)
        found = {}
        for path in sorted(Path(folder).iterdir()) if folder and os.path.isdir(folder) else []:
            if re.fullmatch(NAME, path.name) and path.is_file():
                try:
                    with open(path, "rb") as file:
                        text = file.read(MAX_VALUE_CHARS + 2).decode(errors="replace")
                except OSError as error:
                    log.warning("the credential %s cannot be read: %s", path, error.strerror)
                    continue
                if (value := _usable(text)) is not None:
                    found[path.name] = value
        return found

    def _read(self) -> dict[str, _Kept]:
        try:
            with open(self._file, "rb") as file:
                self._refuse_shared(os.fstat(file.fileno()))
                text = file.read()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise SecretsUnusable(f"the secrets in {self._file} cannot be read: {error.strerror}") from None
        try:
            return _KEPT.validate_json(text)
        except ValidationError:  # whose text may have a value in it
            raise SecretsUnusable(
                f"the file {self._file} is not as miStudio writes it: move it away and set the secrets again"
            ) from None

    def _refuse_shared(self, found: os.stat_result) -> None:
        mode = stat.S_IMODE(found.st_mode)
        if mode & 0o077 or found.st_uid != os.geteuid():
            raise SecretsUnusable(
                f"the secrets in {self._file} are not safe: its mode is {mode:04o} and its owner user {found.st_uid}, "
                f"but only the daemon's user {os.geteuid()} may have access; chown and chmod 600 it, and replace the "
                "secrets if somebody may have read them"
            )

    def _write(self, kept: Mapping[str, _Kept]) -> None:
        """At every moment there is the old file or the new one, and nobody else may read either."""
        text = json.dumps({name: {"value": one.value.get_secret_value(), "set_at": one.set_at}
                           for name, one in sorted(kept.items())}, indent=1)  # fmt: skip
        new = self._file.with_name(f".{self._file.name}.new")
        try:
            new.unlink(missing_ok=True)  # left by a daemon that died while it wrote
            handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(handle, "w") as file:
                file.write(text)
                file.flush()
                os.fsync(handle)
            new.rename(self._file)
            _sync(self._file.parent)
        except OSError as error:
            new.unlink(missing_ok=True)
            raise SecretsUnusable(f"the secrets in {self._file} cannot be written: {error.strerror}") from None


def _usable(text: str) -> SecretStr | None:
    try:
        return check_value(SecretStr(text))
    except ValueError:
        return None


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
