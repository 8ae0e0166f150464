"""The daemon's settings: one table, read by the file, the environment, the command line and the docs.

A flag beats ``MISTUDIO_*``, that beats the TOML file, that beats what a person has the studio keep
(kept_settings.py), that beats the default.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from mistudiod import endpoints as known_endpoints
from mistudiod import keep_alive, kept_backups, proxies

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PREFIX = "MISTUDIO_"
LAN = "lan"  # to listen on every address of this machine
# Variables with our prefix that other parts read: the client, and the daemon's own line to its worker.
_OTHERS = frozenset(
    f"{PREFIX}{name}"
    for name in ("HOST", "TOKEN", "CONTEXT", "CONFIG", "FINGERPRINT", "EVENTS_FD", "SECRETS_FD", "DAEMON_PID")
)
_SERVICE = "/var/lib/mistudio"  # the home of the service's user: systemd/mistudio.sysusers.conf


class SettingsError(ValueError):
    """A setting that cannot be used; the message names it and where it came from."""


class CannotListen(SettingsError):
    """Somebody else has the port, or this machine does not have the address: later that may be otherwise."""


def _default_data() -> Path:
    if state := os.environ.get("STATE_DIRECTORY"):  # systemd's, of a service: /var/lib/mistudio
        return Path(state.split(":")[0])
    if (home := os.path.expanduser("~")) == _SERVICE:  # its user, by hand: sudo -u mistudio mistudiod doctor
        return Path(home)
    base = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return Path(base) / "mistudio"


def _setting(default: Any, help_text: str, live: bool = False) -> Any:
    """``live``: it may be changed while the studio runs."""
    about = {"help": help_text, "live": live}
    return field(default_factory=default if callable(default) else lambda: default, metadata=about)


@dataclass(frozen=True)
class Given:
    """Where a setting was given: ``--offline``, ``MISTUDIO_OFFLINE``, ``offline in /etc/mistudio/mistudio.toml``."""

    source: Literal["flag", "environment", "file"]
    where: str


@dataclass(frozen=True)
class Settings:
    """``given``: which of them were given when the daemon was started; the others have their default."""

    data: Path = _setting(
        _default_data, "folder of the database, models, datasets, SAEs and runs; a service has /var/lib/mistudio"
    )
    port: int = _setting(6478, "TCP port of the API and the page; 0 takes a free one")
    listen: str = _setting(
        "127.0.0.1", "address to listen on; lan: every one of this machine. What others can reach speaks TLS only"
    )
    tls_certificate: str = _setting("", "file of a certificate (PEM) in the place of the one that the studio makes")
    tls_key: str = _setting("", "file of its key (PEM), without a password")
    allow_public: bool = _setting(
        False, "let machines of the internet in, with their tokens; else those of the local network alone"
    )
    allowed_hosts: str = _setting("", "more host names, separated by commas, by which the daemon may be called")
    trusted_proxies: str = _setting(
        "",
        "addresses and networks, separated by commas, of proxies whose X-Forwarded-For, -Host and -Proto are heeded; "
        "unix: one on the UNIX socket",
    )
    allowed_paths: str = _setting("", "folders, separated by commas, of which people elsewhere may name files to read")
    upload_limit_bytes: int = _setting(50_000_000_000, "bytes that one upload may hold")
    offline: bool = _setting(
        False, "fetch nothing: what is in the Hugging Face cache works, the rest says so at once", True
    )
    endpoints: str = _setting(
        known_endpoints.DEFAULT,
        "name=URL of whatever speaks OpenAI's API, separated by commas: those that jobs may ask for labels",
        True,
    )
    label_endpoint: str = _setting(
        known_endpoints.KEYLESS, "whom the page's form for labels names at first: an endpoint, or tokens for none", True
    )
    label_model: str = _setting("", "the model of that endpoint which the form names at first", True)
    neuronpedia_url: str = _setting(
        "https://www.neuronpedia.org",
        "address of the Neuronpedia that features are uploaded to; one's own may be http",
        True,
    )
    io_jobs: int = _setting(3, "downloads, tokenizations and the like that run at once")
    stop_grace_s: float = _setting(10.0, "seconds a worker has to finish its step before it is sent SIGTERM")
    term_grace_s: float = _setting(15.0, "seconds after SIGTERM before SIGKILL")
    progress_limit_s: float = _setting(600.0, "seconds without any sign of life before a worker is ended")
    session_keep_alive: str = _setting(
        "5m", "how long a session stays when nobody uses it: a duration, 0 not at all, -1 for ever", True
    )
    session_grace_s: float = _setting(
        30.0,
        "seconds a session has to finish what it writes when a job needs the GPU, and a job that has waited for one is "
        "at work before it makes room for the next",
    )
    preview_limit_s: float = _setting(20.0, "seconds a preview may take")
    backup_at: str = _setting("03:30", "local time at which a backup is made each night into the data folder, or off")
    backups_kept: int = _setting(7, "nightly backups that stay, the newest")
    given: Mapping[str, Given] = field(default_factory=dict, compare=False, repr=False)

    @property
    def allowed_folders(self) -> list[Path]:
        return [Path(text.strip()).expanduser() for text in self.allowed_paths.split(",") if text.strip()]

    @property
    def neuronpedia(self) -> known_endpoints.Endpoint:
        return known_endpoints.neuronpedia(self.neuronpedia_url)

    @property
    def known_endpoints(self) -> dict[str, known_endpoints.Endpoint]:
        return known_endpoints.parse(self.endpoints)


_DEFAULTS = Settings()


def table() -> list[Field[Any]]:
    return [setting for setting in fields(Settings) if "help" in setting.metadata]


def default_of(setting: Field[Any]) -> Any:
    return getattr(_DEFAULTS, setting.name)


def load(
    flags: Mapping[str, object], environ: Mapping[str, str], file: Path | None = None
) -> tuple[Settings, list[str]]:
    """The settings and the warnings. ``file`` given must exist; otherwise the usual places are tried."""
    known = {setting.name for setting in table()}
    values: dict[str, tuple[object, Given]] = {}
    path = file or usual_file(environ)
    if path is not None:
        values |= _from_file(path, known)
    warnings = []
    for variable, text in environ.items():
        if not variable.startswith(PREFIX) or variable in _OTHERS:
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name in known:
            values[name] = (text, Given("environment", variable))
        else:
            warnings.append(f"{variable} is no setting{_suggestion(name, known, PREFIX)}; it is ignored")
    for name, value in flags.items():
        if value is not None:
            values[name] = (value, Given("flag", f"--{name.replace('_', '-')}"))
    given = {setting.name: values[setting.name] for setting in table() if setting.name in values}
    checked = {name: check(name, value, where.where) for name, (value, where) in given.items()}
    return Settings(**checked, given={name: where for name, (_, where) in given.items()}), warnings


def usual_file(environ: Mapping[str, str]) -> Path | None:
    if environ.get("MISTUDIO_CONFIG"):
        return Path(environ["MISTUDIO_CONFIG"])
    own = Path(environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")) / "mistudio" / "mistudio.toml"
    return next((path for path in (own, Path("/etc/mistudio/mistudio.toml")) if path.is_file()), None)


def _from_file(path: Path, known: set[str]) -> dict[str, tuple[object, Given]]:
    try:
        read = tomllib.loads(path.read_text())
    except OSError as error:
        raise SettingsError(f"the settings file {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"the settings file {path} is not TOML: {error}") from error
    for name in read:
        if name not in known:
            raise SettingsError(f"{path}: there is no setting {name!r}{_suggestion(name, known)}")
    return {name: (value, Given("file", f"{name} in {path}")) for name, value in read.items()}


def _suggestion(name: str, known: set[str], prefix: str = "") -> str:
    near = difflib.get_close_matches(name, known, n=1)
    if not near:
        return ""
    return f"; did you mean {prefix}{near[0].upper() if prefix else near[0]}?"


def check(name: str, value: object, where: str) -> Any:
    """A setting's value as it is used. Raises SettingsError, which begins with ``where``."""
    setting = next(one for one in table() if one.name == name)
    want = type(default_of(setting))
    if want is bool:
        return _switch(value, where)
    if want in (int, float):
        return _number(setting.name, want, value, where)
    if not isinstance(value, str | Path):
        raise SettingsError(f"{where} must be text, not {value!r}")
    if isinstance(default_of(setting), Path):
        if not str(value):
            raise SettingsError(f"{where} is empty: give a folder")
        try:
            return Path(value).expanduser().absolute()
        except RuntimeError:
            raise SettingsError(f"{where} names a user who is not there: {value}") from None
    if setting.name == "listen" and not str(value).strip():
        raise SettingsError(f"{where} is empty: give an address, such as 127.0.0.1")
    if setting.name in _PARSED:
        try:
            _PARSED[setting.name](str(value))
        except ValueError as error:
            raise SettingsError(f"{where}: {error}") from None
    return str(value)


_PARSED: dict[str, Callable[[str], object]] = {
    "trusted_proxies": proxies.parse,
    "backup_at": kept_backups.parse_time,
    "endpoints": known_endpoints.parse,
    "neuronpedia_url": known_endpoints.neuronpedia,
    "label_endpoint": known_endpoints.check_name,
    "label_model": known_endpoints.check_model,
    "session_keep_alive": keep_alive.seconds_of,
}


def _switch(value: object, where: str) -> bool:
    known = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    found = known.get(str(value).lower())
    if found is None:
        raise SettingsError(f"{where} must be true or false, not {value!r}")
    return found


def _number(name: str, want: type, value: object, where: str) -> int | float:
    try:
        number = want(value)
        if isinstance(value, bool) or number != float(value):  # type: ignore[arg-type]
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        kind = "a whole number" if want is int else "a number"
        raise SettingsError(f"{where} must be {kind}, not {value!r}") from None
    low, high = (0, 65535) if name == "port" else (0 if want is float else 1, 1e15 if name.endswith("_bytes") else 1e9)
    if not low <= number <= high:
        raise SettingsError(f"{where} must be between {low} and {high:.0f}, not {value}")
    return number  # type: ignore[no-any-return]


def is_loopback(listen: str) -> bool:
    """Whether only this machine can reach what listens there."""
    try:
        return ipaddress.ip_address(listen).is_loopback
    except ValueError:
        return listen == "localhost"
