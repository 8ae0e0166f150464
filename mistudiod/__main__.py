"""``mistudiod serve | migrate | reindex | restore | token | certificate | doctor``."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import pwd
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mistudiod import __version__, journal
from mistudiod.errors import StudioError
from mistudiod.paths import Paths
from mistudiod.redact import PROCESS, Filter
from mistudiod.settings import CannotListen, Settings, SettingsError, default_of, load, table

if TYPE_CHECKING:
    from mistudiod.database import Database

log = logging.getLogger("mistudiod")
EXIT_CONFIG, EXIT_LATER = 78, 75  # of sysexits.h; the unit starts the daemon again after the second


def main() -> int:
    options = _parser().parse_args()
    _open_streams()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    for handler in logging.getLogger().handlers:
        if journal.goes_there(sys.stderr, os.environ):
            handler.setFormatter(journal.Lines())
        handler.addFilter(Filter(PROCESS))
    flags = {setting.name: getattr(options, setting.name, None) for setting in table()}
    try:
        settings, warnings = load(flags, os.environ, getattr(options, "config", None))
        for warning in warnings:
            log.warning(warning)
        if options.command not in _AS_ROOT:
            _check_owner(settings.data)
        return asyncio.run(_COMMANDS[options.command](settings, options))
    except (SettingsError, StudioError) as error:
        log.error(str(error))
        return EXIT_LATER if isinstance(error, CannotListen) else EXIT_CONFIG


def _check_owner(data: Path) -> None:
    """That root leaves nothing of its own among another user's files: that one's studio could not write it any more."""
    if os.geteuid() != 0 or not data.is_dir() or (owner := data.stat().st_uid) == 0:
        return
    try:
        name = pwd.getpwuid(owner).pw_name
    except KeyError:
        name = f"#{owner}"
    raise SettingsError(
        f"the data folder {data} belongs to {name}: say this as that user, with sudo -u {name} in front"
    )


def _open_streams() -> None:
    """Each that was closed: its number, to which libraries write, would go to the next file, say the database."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r+"))  # noqa: SIM115 - as long as this process


def _parser() -> argparse.ArgumentParser:
    # The settings may stand before or after the command: after it they win, and leave no default behind.
    options = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    options.add_argument("--config", type=Path, help="settings file (TOML)")
    for setting in table():
        text = f"{setting.metadata['help']} (default {default_of(setting)!s})".replace("%", "%%")
        options.add_argument(f"--{setting.name.replace('_', '-')}", metavar="VALUE", help=text)
    parser = argparse.ArgumentParser(prog="mistudiod", description="The miStudio daemon.", parents=[options])
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text, parents=[options])

    add("serve", "run the daemon until SIGTERM")
    add("migrate", "bring the database up to date and leave")
    add("reindex", "rebuild the database's index of models, datasets, SAEs, features and jobs from their folders")
    certificate = add("certificate", "show the certificate by which other machines know the studio")
    certificate.add_argument("--renew", action="store_true", help="make a new one, and a new key")
    restore = add("restore", "make an empty data folder of a backup; the studio must be down")
    restore.add_argument("file", type=Path, nargs="?", help="what mistudio backup wrote, or one of the folder backups")
    restore.add_argument("--database", action="store_true", help="only put its database in the place of the one there "
                         "is; without FILE the newest copy of the folder backups")  # fmt: skip
    add("doctor", "say what is wrong here, and how to mend it").add_argument("--json", action="store_true")
    token = add("token", "make a token while the daemon is down; when it is up: mistudio token create")
    token.add_argument("name", help="what to call it, as the machine or program that will use it")
    token.add_argument("--scope", choices=("read", "write", "admin"), default="admin", help="default: admin")
    return parser


async def serve(settings: Settings, _options: argparse.Namespace) -> int:
    from mistudiod import serving

    return await serving.serve(settings)


async def migrate(settings: Settings, _options: argparse.Namespace) -> int:
    async with _opened(settings):
        log.info("the database in %s is up to date", settings.data)
    return 0


async def reindex(settings: Settings, _options: argparse.Namespace) -> int:
    from mistudiod.index import Index
    from mistudiod.library import Library
    from mistudiod.records import Records

    async with _opened(settings) as database:
        paths = Paths(settings.data)
        index, records = Index(database, paths), Records(database, paths)
        await Library(database, paths, index).mend()
        await index.rebuild()
        jobs = await records.rebuild()
        await records.flush()
        counts = ", ".join(f"{noun} {count}" for noun, count in (await index.counts()).items())
        log.info("the index of %s: %s; jobs brought back: %d", settings.data, counts, jobs)
    return 0


async def restore(settings: Settings, options: argparse.Namespace) -> int:
    from mistudiod import put_back
    from mistudiod.app import claim, locked

    paths = Paths(settings.data)
    if options.database:
        with claim(paths):
            source, aside = put_back.restore_database(options.file, paths, _told())
        log.info(
            "the database is that of %s; jobs and artifacts since are read from their folders at the start", source
        )
        log.info("what was there: %s", ", ".join(map(str, aside)) or "nothing")
        return 0
    if options.file is None:
        raise SettingsError("name the backup: mistudiod restore FILE; or say --database for the newest copy's database")
    with locked(paths):
        found = put_back.restore(options.file, paths, _told())
    log.info(
        "%s has the %d files of the backup of %s, made on %s", settings.data, found.files, found.host, found.made_at
    )
    if found.stopped:
        log.info("%d jobs had not come to their end and are stopped: mistudio job retry", found.stopped)
    for line in found.missing:
        log.info("not in the backup: %s", line)
    log.info("secrets are never in a backup: set them again with mistudio secret set")
    return 0


def _told() -> Callable[[int, int], None]:
    """Says each tenth of the way."""
    said = 0

    def told(done: int, total: int) -> None:
        nonlocal said
        if total and done * 10 // total > said:
            said = done * 10 // total
            log.info("%d %% of %.1f MB", said * 10, total / 1e6)

    return told


async def token(settings: Settings, options: argparse.Namespace) -> int:
    from mistudiod.tokens import Scope, Tokens

    async with _opened(settings) as database:
        _, text = await Tokens(database).create(options.name, Scope(options.scope))
    log.info("this is the token; it is shown this once")
    sys.stdout.write(text + "\n")
    return 0


async def certificate(settings: Settings, options: argparse.Namespace) -> int:
    from mistudiod import tls

    pair = tls.pair(settings)
    if options.renew:
        pair.renew()
        log.info(
            "made anew; a daemon that runs takes it when it is started again, and devices then have to be paired again"
        )
    elif not pair.exists():
        pair.renew()
    names, ends = pair.about()
    about = {
        "certificate": str(pair.certificate), "fingerprint": pair.fingerprint(),
        "names": ", ".join(names), "expires": ends.date().isoformat(),
    }  # fmt: skip
    sys.stdout.write("".join(f"{name:<15}{value}\n" for name, value in about.items()))
    return 0


async def doctor(settings: Settings, options: argparse.Namespace) -> int:
    from mistudiod.doctor import as_json, as_text, examine

    findings = await examine(settings, getattr(options, "config", None))
    sys.stdout.write((json.dumps(as_json(findings), indent=2) if options.json else as_text(findings)) + "\n")
    return int(any(finding.level == "problem" for finding in findings))


@contextlib.asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[Database]:
    from mistudiod.app import claim
    from mistudiod.database import Database

    paths = Paths(settings.data)
    with claim(paths):
        database = Database(paths.database, paths.backups)
        await database.open()
        try:
            yield database
        finally:
            await database.close()


_COMMANDS = {
    "serve": serve,
    "migrate": migrate,
    "reindex": reindex,
    "restore": restore,
    "token": token,
    "certificate": certificate,
    "doctor": doctor,
}


_AS_ROOT = ("serve", "doctor")  # the one may be meant to run so, the other writes nothing


def have_standard_files() -> None:
    """Some who start programs close stdin, stdout and stderr: nothing else may get their numbers, and be written to."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
            os.set_inheritable(number, True)
    sys.stdout, sys.stderr = sys.stdout or open(1, "w"), sys.stderr or open(2, "w")  # noqa: SIM115 - for good


def run() -> None:
    have_standard_files()
    sys.exit(main())


if __name__ == "__main__":
    run()
