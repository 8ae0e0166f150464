"""The application: what it is made of, how it starts and how it stops."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import logging
import os
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from typing import Any

from aiohttp import web

from mistudiod import page, put_back, runner
from mistudiod.abilities import Abilities
from mistudiod.api import keys
from mistudiod.api.caller import TRUST, trust_of
from mistudiod.api.doors import allowed_hosts, doors
from mistudiod.api.metrics import counting
from mistudiod.api.refusals import refusals, safe_headers
from mistudiod.api.route import Route
from mistudiod.api.slowed import Slowed
from mistudiod.api.table import ROUTES, add
from mistudiod.backups import Backups
from mistudiod.bus import Bus
from mistudiod.cleaning import Cleaning
from mistudiod.database import Database
from mistudiod.errors import StoreError
from mistudiod.giving import Giving
from mistudiod.index import NOUNS, Index
from mistudiod.kept_settings import KeptSettings
from mistudiod.labels import Labels
from mistudiod.leases import Leases
from mistudiod.library import Library
from mistudiod.listen import Reach
from mistudiod.measurements import Measurements
from mistudiod.meters import Meters
from mistudiod.monitor import Monitor
from mistudiod.open_stores import OpenStores
from mistudiod.pairing import Pairings
from mistudiod.paths import Paths
from mistudiod.planning import Planning
from mistudiod.preview import preview
from mistudiod.profiles import Profiles
from mistudiod.ranges import Ranges
from mistudiod.records import Records
from mistudiod.scheduler import Scheduler
from mistudiod.secret import Secrets
from mistudiod.session import Sessions
from mistudiod.settings import Settings
from mistudiod.sources import sweeping
from mistudiod.specs import ProbeDevice
from mistudiod.steerings import Steerings
from mistudiod.store import Jobs
from mistudiod.templates import Templates
from mistudiod.tokens import Tokens
from mistudiod.trash import Trash
from mistudiod.turn import Turn
from mistudiod.uploads import Uploads

log = logging.getLogger("mistudiod")
_PROBE_LIMIT_S = 120.0  # a small board takes half a minute to import torch


def make_app(settings: Settings, command: Sequence[str] = runner.WORKER) -> web.Application:
    """The daemon as an application. ``command`` starts a worker; tests give their own."""
    shown, meters, turn = page.load(), Meters(), Turn(settings.session_grace_s)
    hosts = allowed_hosts(settings.listen, settings.allowed_hosts)
    app = web.Application(middlewares=[counting(meters), refusals(), doors(hosts)])
    paths, bus = Paths(settings.data), Bus()
    database = Database(paths.database, paths.backups)
    app[keys.SETTINGS], app[keys.PATHS], app[keys.BUS], app[keys.COMMAND] = settings, paths, bus, command
    app[keys.KEPT] = kept = KeptSettings(settings, paths.settings, os.environ)
    app[keys.DATABASE], app[keys.JOBS] = database, Jobs(database, turn)
    app[keys.INDEX] = index = Index(database, paths)
    app[keys.LIBRARY] = Library(database, paths, index, lambda name: app[keys.SESSION].has_sae(name))
    app[keys.TRASH] = Trash(database, paths)
    app[keys.CLEANING] = Cleaning(database, paths, index, app[keys.TRASH])
    app[keys.BACKUPS] = Backups(paths, settings.backup_at, settings.backups_kept)
    app[keys.LABELS], app[keys.RANGES] = Labels(database), Ranges(database)
    app[keys.STEERINGS], app[keys.PROFILES] = Steerings(database), Profiles(database)
    app[keys.TOKENS], app[keys.SECRETS] = Tokens(database), Secrets(paths.data / "secrets.json", os.environ)
    app[keys.PAIRINGS], app[keys.SLOWED] = Pairings(app[keys.TOKENS]), Slowed()
    app[TRUST], app[keys.REACH] = trust_of(settings), Reach()
    app[keys.UPLOADS], app[keys.STORES] = Uploads(paths.uploads, settings.upload_limit_bytes), OpenStores(paths)
    app[keys.RECORDS], app[keys.MONITOR], app[keys.METERS] = Records(database, paths), Monitor(paths.data), meters
    probe = functools.partial(preview, ProbeDevice(), paths, _PROBE_LIMIT_S, command)
    app[keys.ABILITIES] = Abilities(paths.data / "abilities.json", probe)
    app[keys.PLANNING] = Planning(paths, index, Measurements(database), app[keys.MONITOR], app[keys.ABILITIES])
    app[keys.TEMPLATES] = Templates(paths.data / "templates")
    app[keys.GIVING] = Giving(database, index, app[keys.LABELS], app[keys.TEMPLATES], lambda: kept.now)
    app[keys.LEASES] = Leases(database, turn)
    app[keys.SESSION] = Sessions(
        settings,
        paths,
        index,
        app[keys.LEASES],
        bus,
        app[keys.PLANNING],
        command,
        lambda: app[keys.SCHEDULER].wake(),
        lambda: kept.now.session_keep_alive,
    )
    app[keys.SCHEDULER] = Scheduler(
        settings,
        paths,
        app[keys.JOBS],
        index,
        bus,
        app[keys.SECRETS],
        app[keys.PLANNING],
        app[keys.GIVING],
        app[keys.LEASES],
        command,
        app[keys.STEERINGS].keep,
    )
    app[page.PAGE] = shown
    database.told = functools.partial(_tell, app)
    add(app.router, ROUTES)
    add(app.router, page_routes(shown))
    app.cleanup_ctx.extend([_environment, _storage, _recording, _scheduling, _sweeping, _monitoring])
    app.on_response_prepare.append(safe_headers(shown.csp))
    app.on_shutdown.append(_close_streams)
    return app


def page_routes(shown: page.Page) -> Iterator[Route]:
    """Anybody may have them: they are the same everywhere, and a browser needs them to log in."""
    for path in shown.paths:
        yield Route("GET", path, lambda asked: page.serve(asked.request), None, "show_page", media="text/html")


def _tell(app: web.Application, id: int, topic: str, data: dict[str, Any]) -> None:
    app[keys.BUS].state(id, topic, data)
    app[keys.RECORDS].heard(topic, data)
    app[keys.STORES].heard(topic, data)
    app[keys.SCHEDULER].heard(topic, data)
    app[keys.SESSION].heard(topic, data)


@contextlib.contextmanager
def claim(paths: Paths) -> Iterator[None]:
    """Make the data folder ours alone, with its folders. Raises StoreError when it cannot be used."""
    with locked(paths):
        if paths.restoring.exists():
            raise StoreError(
                f"a backup was being restored into {paths.data} and that was cut short: "
                f"run mistudiod restore FILE --data {paths.data} again"
            )
        try:
            if aside := put_back.replace_database(paths):
                log.warning("a restored database takes its place; what was there: %s", ", ".join(map(str, aside)))
            for folder in (*map(paths.folder, NOUNS), paths.data / "runs", paths.uploads, paths.incoming):
                folder.mkdir(exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise StoreError(f"in the data folder {paths.data} {error.filename} is no folder: move it away") from error
        yield


@contextlib.contextmanager
def locked(paths: Paths) -> Iterator[None]:
    """Nobody else has the data folder. Raises StoreError when it cannot be used or another daemon has it."""
    try:
        paths.data.mkdir(mode=0o700, parents=True, exist_ok=True)  # texts and logs are their owner's
        lock = os.open(paths.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"the data folder {paths.data} cannot be used: {error.strerror}") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(f"another daemon uses the data folder {paths.data}; stop it, or choose another") from None
        yield
    finally:
        os.close(lock)


async def _environment(app: web.Application) -> AsyncIterator[None]:
    app[keys.KEPT].tell_workers()
    yield
    app[keys.KEPT].close()


async def _storage(app: web.Application) -> AsyncIterator[None]:
    with claim(app[keys.PATHS]):
        database = app[keys.DATABASE]
        await database.open()
        try:
            app[keys.BUS].newest = database.newest_event
            yield
        finally:
            await app[keys.TOKENS].close()
            await database.close()


async def _recording(app: web.Application) -> AsyncIterator[None]:
    records = app[keys.RECORDS]
    async with running(records.run()):
        yield
    await records.flush()


async def _scheduling(app: web.Application) -> AsyncIterator[None]:
    scheduler = app[keys.SCHEDULER]
    await asyncio.to_thread(app[keys.SECRETS].learn)
    await app[keys.LIBRARY].mend()
    await app[keys.INDEX].rebuild()
    await app[keys.RECORDS].rebuild()
    await scheduler.recover()
    loop = asyncio.create_task(scheduler.run())
    yield
    app[keys.ABILITIES].close()
    # Side by side: a job that makes room for a session, and the session that waits for it, need each other's end.
    await asyncio.gather(scheduler.close(loop), app[keys.SESSION].close())


async def _sweeping(app: web.Application) -> AsyncIterator[None]:
    async with (
        running(sweeping(app[keys.UPLOADS], app[keys.JOBS])),
        running(app[keys.TRASH].sweeping()),
        running(app[keys.BACKUPS].run()),
    ):
        yield


async def _monitoring(app: web.Application) -> AsyncIterator[None]:
    bus = app[keys.BUS]
    watching = app[keys.MONITOR].run(lambda sample: bus.reading("system", dict(sample)))
    async with running(watching), running(bus.ping()), running(app[keys.METERS].watch_loop()):
        yield


@contextlib.asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Beside the block, and no longer than it."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _close_streams(app: web.Application) -> None:
    app[keys.SESSION].shut()  # before the server waits for those who read what it writes
    app[keys.BUS].close()
