"""The daemon at work: from its first breath, as systemd hears of it, to its last."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import faulthandler
import logging
import os
import resource
import signal
import sys
from collections.abc import Coroutine
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage

from mistudiod import __version__, activation, heartbeat, listen
from mistudiod.api.keys import DATABASE, JOBS, PATHS
from mistudiod.app import make_app, running
from mistudiod.notify import Notify
from mistudiod.paths import Paths
from mistudiod.reception import Reception
from mistudiod.redact import PROCESS, Filter
from mistudiod.settings import CannotListen, Settings, SettingsError

log = logging.getLogger("mistudiod")
_FILES = 65_536  # open at once, if the system lets us
# What systemd is asked for at most: an old board migrates a large database, a training saves what it has.
START_LIMIT_S, STOP_LIMIT_S = 1800.0, 600.0
_LOG_BYTES = 5_000_000  # then it is begun anew, and the old one kept beside it


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


async def serve(settings: Settings) -> int:
    """Until SIGTERM or SIGINT. The exit code. Raises SettingsError and StudioError when it cannot start."""
    faulthandler.enable()  # systemd's watchdog ends us with SIGABRT: where we hung is in the log then
    notify, given = Notify.take(os.environ), activation.take(os.environ)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    keep_log(settings.data)
    try:  # before anything else: a daemon that cannot be reached must not start a job
        settings, listeners = listen.on(settings, given)
    except OSError as error:
        raise _unheard(settings, error) from error
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
    reception = Reception(app_runner, listeners)
    reception.check(settings)
    with contextlib.ExitStack() as sockets:
        try:
            async with heartbeat.patience(notify, "starting", START_LIMIT_S):
                if not await _unless(ended, app_runner.setup()):
                    return 0
            for own in listen.local(app[PATHS].socket, given, os.environ, sockets):
                await web.SockSite(app_runner, own).start()
            log.info("miStudio %s is at %s, data in %s", __version__, await reception.open(app), settings.data)
            notify.say(READY=1, STATUS=heartbeat.at_work([]))
            async with running(heartbeat.beat(notify, app[DATABASE], app[JOBS])):
                await ended.wait()
            log.info("stopping")
        finally:
            notify.say(STOPPING=1)
            async with heartbeat.patience(notify, "stopping: what is at work saves what it has", STOP_LIMIT_S):
                await reception.close()
                await app_runner.cleanup()
    return 0


def _unheard(settings: Settings, error: OSError) -> SettingsError:
    """Whoever has the port may leave it, and an address may come after the boot; a right to a port does not."""
    said = f"cannot listen on {settings.listen} port {settings.port}: {error.strerror}; "
    if isinstance(error, PermissionError):
        return SettingsError(f"{said}choose a port from 1024 on with MISTUDIO_PORT")
    if error.errno == errno.EADDRINUSE:
        return CannotListen(f"{said}another program has it, or choose one with MISTUDIO_PORT")
    return CannotListen(f"{said}give an address of this machine with MISTUDIO_LISTEN")


async def _unless(ended: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Whether the work was done before it was to end; else it has been cancelled."""
    doing, waiting = asyncio.create_task(work), asyncio.create_task(ended.wait())
    await asyncio.wait({doing, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if doing.done():
        await doing
        return True
    doing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await doing
    return False


def _no_strangers_noise(record: logging.LogRecord) -> bool:
    """Anybody can send what is no HTTP; it is answered, and is no error of ours."""
    return not (record.exc_info and isinstance(record.exc_info[1], BadHttpMessage))
