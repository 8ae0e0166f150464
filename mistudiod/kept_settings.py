"""Settings that a person changes while the studio runs: kept in its data folder, below flag, environment and file.

Jobs and sessions that start afterwards see them; what runs goes on as it was.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Mapping, MutableMapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mistudiod import hub_cache
from mistudiod.endpoints import KEYLESS
from mistudiod.errors import Conflict, Invalid, StoreError
from mistudiod.paths import write_whole
from mistudiod.settings import Given, Settings, SettingsError, check, default_of, table

LIVE = tuple(setting.name for setting in table() if setting.metadata["live"])
_OFFLINE = "HF_HUB_OFFLINE"
_MOST_BYTES = 1 << 20


class KeptSettings:
    """``now`` is what holds. Raises SettingsError for a file that cannot be read: it may say offline."""

    def __init__(self, given: Settings, file: Path, environ: MutableMapping[str, str]) -> None:
        self._start, self._file, self._environ = given, file, environ
        self._given = dict(given.given)
        self._tells, self._told_by_others = False, hub_cache.is_offline(environ)
        if self._told_by_others:  # the libraries of workers heed it, whatever the settings say
            where = _OFFLINE if environ.get(_OFFLINE) else "TRANSFORMERS_OFFLINE"
            self._start = replace(given, offline=True)
            self._given["offline"] = Given("environment", where)
        self._changing = threading.Lock()
        self._kept = self._read()
        self.now = self._applied(self._kept)

    def listed(self) -> list[dict[str, Any]]:
        """Each with its value, where that comes from, and whether it may be changed here."""
        found = []
        for setting in table():
            name, given = setting.name, self._given.get(setting.name)
            value, default = getattr(self.now, name), default_of(setting)
            about = {
                "name": name,
                "value": str(value) if isinstance(value, Path) else value,
                "default": str(default) if isinstance(default, Path) else default,
                "source": given.source if given else "kept" if name in self._kept else "default",
                "where": given.where if given else None,
                "changeable": name in LIVE and given is None,
                "help": setting.metadata["help"],
            }
            found.append(about)
        return found

    def change(self, changes: Mapping[str, Any], secrets: Collection[str] = ()) -> None:
        """Keep these; None: as it would be without. All of them or none. ``secrets``: names of those that are set.

        Raises Conflict, Invalid, StoreError.
        """
        with self._changing:
            for name in changes:
                if given := self._given.get(name):
                    why = f"is set by {given.where}: change it there, and start the daemon anew"
                    raise Conflict(f"{name} {why}", {name: why})
            wanted = {name: value for name, value in {**self._kept, **changes}.items() if value is not None}
            kept = {name: _checked(name, value) for name, value in wanted.items()}
            now = self._applied(kept)
            if not {"endpoints", "label_endpoint"}.isdisjoint(changes):
                _agree(now)
            _guard(self.now, now, secrets)
            try:
                write_whole(self._file, [json.dumps(kept, indent=2) + "\n"])
            except OSError as error:
                raise StoreError(f"the settings cannot be kept in {self._file}: {error.strerror}") from error
            self._kept, self.now = kept, now
            self.tell_workers()

    def tell_workers(self) -> None:
        """That nothing is to be fetched: they inherit the variable, and their libraries know it."""
        if self._told_by_others:
            return
        if self.now.offline:
            self._environ[_OFFLINE] = "1"
        elif self._tells:
            self._environ.pop(_OFFLINE, None)
        self._tells = self.now.offline

    def close(self) -> None:
        """Leave the environment as it was."""
        if self._tells:
            self._environ.pop(_OFFLINE, None)

    def _applied(self, kept: Mapping[str, Any]) -> Settings:
        return replace(self._start, **{name: value for name, value in kept.items() if name not in self._given})

    def _read(self) -> dict[str, Any]:
        hint = "mend it, or remove it to have the defaults"
        try:
            with open(self._file, "rb") as file:
                found = json.loads(file.read(_MOST_BYTES))
        except (FileNotFoundError, NotADirectoryError):  # whoever claims the data folder says what is wrong with it
            return {}
        except OSError as error:
            raise SettingsError(
                f"the settings in the data folder, {self._file}, cannot be read: {error.strerror}"
            ) from error
        except ValueError as error:
            raise SettingsError(f"the settings in {self._file} are no JSON: {hint}") from error
        if not isinstance(found, dict) or not set(found) <= set(LIVE):
            raise SettingsError(f"the file {self._file} is not as miStudio writes it: {hint}")
        try:
            return {name: check(name, value, f"{name} in {self._file}") for name, value in found.items()}
        except SettingsError as error:
            raise SettingsError(f"{error}; {hint}") from None


def _checked(name: str, value: object) -> Any:
    try:
        return check(name, value, name)
    except SettingsError as error:
        message = str(error)
        raise Invalid(message, {name: message.removeprefix(name).removeprefix(":").strip()}) from None


def _agree(settings: Settings) -> None:
    """Raises Invalid when the endpoint that labels begin with is none of the endpoints."""
    if settings.label_endpoint not in (KEYLESS, *settings.known_endpoints):
        there = ", ".join(sorted(settings.known_endpoints)) or "none"
        message = f"the endpoint for labels is {settings.label_endpoint}, which there is not ({there}): choose another"
        raise Invalid(message, {"label_endpoint": message})


def _guard(before: Settings, after: Settings, secrets: Collection[str]) -> None:
    """Raises Conflict when a key that is not known by its host would be sent to another: no key is to be had so."""
    openai = tuple(settings.known_endpoints.get("openai") for settings in (before, after))
    neuronpedia = (before.neuronpedia, after.neuronpedia)
    for secret, setting, (was, now) in (
        ("openai", "endpoints", openai),
        ("neuronpedia", "neuronpedia_url", neuronpedia),
    ):
        if secret in secrets and now is not None and (was is None or was.host != now.host):
            why = f"the key for {secret} is set, and would be sent to {now.host}: forget it first, then set it anew"
            raise Conflict(why, {setting: why})
