"""``mistudiod serve | migrate | reindex``."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from pathlib import Path

from mistudiod import __version__
from mistudiod.errors import StoreError
from mistudiod.settings import Settings, SettingsError, default_of, load, table

log = logging.getLogger("mistudiod")
EXIT_CONFIG = 78


def main() -> int:
    options = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    flags = {setting.name: getattr(options, setting.name, None) for setting in table()}
    try:
        settings, warnings = load(flags, os.environ, getattr(options, "config", None))
        for warning in warnings:
            log.warning(warning)
        return asyncio.run(_COMMANDS[options.command](settings))
    except (SettingsError, StoreError) as error:
        log.error(str(error))
        return EXIT_CONFIG


def _parser() -> argparse.ArgumentParser:
    # The settings may stand before or after the command: after it they win, and leave no default behind.
    options = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    options.add_argument("--config", type=Path, help="settings file (TOML)")
    for setting in table():
        text = f"{setting.metadata['help']} (default {default_of(setting)!s})"
        options.add_argument(f"--{setting.name.replace('_', '-')}", metavar="VALUE", help=text)
    parser = argparse.ArgumentParser(prog="mistudiod", description="The miStudio daemon.", parents=[options])
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("serve", "run the daemon until SIGTERM"),
        ("migrate", "bring the database up to date and leave"),
        ("reindex", "rebuild the index of models, datasets, SAEs and features from their folders"),
    ):
        commands.add_parser(name, help=text, description=text, parents=[options])
    return parser


async def serve(settings: Settings) -> int:
    from aiohttp import web

    from mistudiod.app import make_app

    try:  # before anything else: a daemon that cannot be reached must not start a job
        listener = _listen(settings)
    except OSError as error:
        log.error(
            "cannot listen on %s port %s: %s; another program has it, or choose one with MISTUDIO_PORT",
            settings.listen, settings.port, error.strerror,
        )  # fmt: skip
        return EXIT_CONFIG
    # handler_cancellation: an event stream whose reader has gone must not wait for its next message to find out.
    app_runner = web.AppRunner(make_app(settings), handler_cancellation=True, shutdown_timeout=5.0, access_log=None)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    try:
        await app_runner.setup()
        await web.SockSite(app_runner, listener).start()
        address = app_runner.addresses[0]
        log.info("miStudio %s is at http://%s:%s, data in %s", __version__, address[0], address[1], settings.data)
        await ended.wait()
        log.info("stopping")
    finally:
        await app_runner.cleanup()
    return 0


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.listen else socket.AF_INET
    return socket.create_server((settings.listen, settings.port), family=family, backlog=128)


async def migrate(settings: Settings) -> int:
    async with _opened(settings):
        log.info("the database in %s is up to date", settings.data)
    return 0


async def reindex(settings: Settings) -> int:
    from mistudiod.index import Index
    from mistudiod.paths import Paths

    async with _opened(settings) as database:
        count = await Index(database, Paths(settings.data)).rebuild()
        log.info("the index of %s holds %d artifacts", settings.data, count)
    return 0


@contextlib.asynccontextmanager
async def _opened(settings: Settings):  # type: ignore[no-untyped-def]
    from mistudiod.app import claim
    from mistudiod.database import Database
    from mistudiod.paths import Paths

    paths = Paths(settings.data)
    with claim(paths):
        database = Database(paths.database, paths.backups)
        await database.open()
        try:
            yield database
        finally:
            await database.close()


_COMMANDS = {"serve": serve, "migrate": migrate, "reindex": reindex}


def run() -> None:
    sys.exit(main())


if __name__ == "__main__":
    run()
