"""``mistudiod serve | migrate | reindex | token | certificate | doctor``."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TYPE_CHECKING

from mistudiod import __version__
from mistudiod.errors import StudioError
from mistudiod.paths import Paths
from mistudiod.redact import PROCESS, Filter
from mistudiod.settings import Settings, SettingsError, default_of, load, table

if TYPE_CHECKING:
    from mistudiod.database import Database

log = logging.getLogger("mistudiod")
EXIT_CONFIG = 78
_FILES = 65_536  # open at once, if the system lets us
_LOG_BYTES = 5_000_000  # then it is begun anew, and the old one kept beside it


def main() -> int:
    options = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    for handler in logging.getLogger().handlers:
        handler.addFilter(Filter(PROCESS))
    flags = {setting.name: getattr(options, setting.name, None) for setting in table()}
    try:
        settings, warnings = load(flags, os.environ, getattr(options, "config", None))
        for warning in warnings:
            log.warning(warning)
        return asyncio.run(_COMMANDS[options.command](settings, options))
    except (SettingsError, StudioError) as error:
        log.error(str(error))
        return EXIT_CONFIG


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
    add("doctor", "say what is wrong here, and how to mend it").add_argument("--json", action="store_true")
    token = add("token", "make a token while the daemon is down; when it is up: mistudio token create")
    token.add_argument("name", help="what to call it, as the machine or program that will use it")
    token.add_argument("--scope", choices=("read", "write", "admin"), default="admin", help="default: admin")
    return parser


def keep_log(data: Path) -> None:
    """Have the log in the data folder too, unless it goes there already: the page shows its end."""
    path = Paths(data).log
    with contextlib.suppress(OSError):  # whoever claims the folder says what is wrong with it
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists() and os.path.samestat(os.fstat(sys.stderr.fileno()), path.stat()):
            return
        kept = RotatingFileHandler(path, maxBytes=_LOG_BYTES, backupCount=1, encoding="utf-8")
        kept.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        kept.addFilter(Filter(PROCESS))
        logging.getLogger().addHandler(kept)


async def serve(settings: Settings, _options: argparse.Namespace) -> int:
    from aiohttp import web

    from mistudiod import listen
    from mistudiod.api.keys import PATHS
    from mistudiod.app import make_app
    from mistudiod.reception import Reception

    keep_log(settings.data)
    try:  # before anything else: a daemon that cannot be reached must not start a job
        listeners = listen.tcp(settings)
    except OSError as error:
        log.error(
            "cannot listen on %s port %s: %s; another program has it, or choose one with MISTUDIO_PORT",
            settings.listen, settings.port, error.strerror,
        )  # fmt: skip
        return EXIT_CONFIG
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)  # connections that say nothing must not use them all up
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, _FILES)), hard))
    # handler_cancellation: an event stream whose reader has gone must not wait for its next message to find out.
    app = make_app(settings)
    app_runner = web.AppRunner(
        app,
        handler_cancellation=True,
        shutdown_timeout=5.0,
        access_log=None,
        keepalive_timeout=30.0,
        auto_decompress=False,
    )  # fmt: skip
    logging.getLogger("aiohttp.server").addFilter(_no_strangers_noise)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    reception = Reception(app_runner, listeners)
    reception.check(settings)
    with contextlib.ExitStack() as sockets:
        try:
            await app_runner.setup()
            if own := sockets.enter_context(listen.unix(app[PATHS].socket)):
                await web.SockSite(app_runner, own).start()
            log.info("miStudio %s is at %s, data in %s", __version__, await reception.open(app), settings.data)
            await ended.wait()
            log.info("stopping")
        finally:
            await reception.close()
            await app_runner.cleanup()
    return 0


def _no_strangers_noise(record: logging.LogRecord) -> bool:
    """Anybody can send what is no HTTP; it is answered, and is no error of ours."""
    from aiohttp.http_exceptions import BadHttpMessage

    return not (record.exc_info and isinstance(record.exc_info[1], BadHttpMessage))


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
    "token": token,
    "certificate": certificate,
    "doctor": doctor,
}


def run() -> None:
    sys.exit(main())


if __name__ == "__main__":
    run()
