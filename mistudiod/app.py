"""The application: what it is made of, its route table, how it starts and how it stops."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
from collections.abc import AsyncIterator, Iterator, Sequence

from aiohttp import web

from mistudiod import runner
from mistudiod.api import artifacts, jobs, stream, system
from mistudiod.api.keys import BUS, COMMAND, INDEX, JOBS, MONITOR, PATHS, SCHEDULER, SETTINGS
from mistudiod.api.security import allowed_hosts, doors, errors
from mistudiod.bus import Bus
from mistudiod.database import Database
from mistudiod.errors import StoreError
from mistudiod.index import Index
from mistudiod.monitor import Monitor
from mistudiod.paths import Paths
from mistudiod.scheduler import Scheduler
from mistudiod.settings import Settings
from mistudiod.store import Jobs

_NOUNS = ("model", "dataset", "tokenization", "sae")


def routes() -> list[web.RouteDef]:
    table = [
        web.get("/api/status", system.status),
        web.get("/api/system", system.now),
        web.get("/api/system/history", system.history),
        web.get("/api/events", stream.events),
        web.get("/api/jobs", jobs.list_jobs),
        web.post("/api/jobs", jobs.submit),
        web.get("/api/jobs/{id}", jobs.show),
        web.delete("/api/jobs/{id}", jobs.remove),
        web.post("/api/jobs/{id}/stop", jobs.stop),
        web.post("/api/jobs/{id}/pause", jobs.pause),
        web.post("/api/jobs/{id}/resume", jobs.resume),
        web.post("/api/jobs/{id}/retry", jobs.retry),
        web.get("/api/jobs/{id}/log", jobs.logs),
        web.get("/api/jobs/{id}/metrics", jobs.metrics),
        web.get("/api/datasets/{ref}/sample", artifacts.sample),
        web.get("/api/saes/{ref}/features", artifacts.features),
        web.get("/api/saes/{ref}/features/{index}", artifacts.feature),
    ]
    for noun in _NOUNS:
        table += [
            web.get(f"/api/{noun}s", artifacts.lister(noun)),
            web.get(f"/api/{noun}s/{{ref}}", artifacts.shower(noun)),
            web.delete(f"/api/{noun}s/{{ref}}", artifacts.remover(noun)),
        ]
    return table


def make_app(settings: Settings, command: Sequence[str] = runner.WORKER) -> web.Application:
    """The daemon as an application. ``command`` starts a worker; tests give their own."""
    app = web.Application(middlewares=[errors(), doors(allowed_hosts(settings.listen, settings.allowed_hosts))])
    paths, bus = Paths(settings.data), Bus()
    database = Database(paths.database, paths.backups)
    app[SETTINGS], app[PATHS], app[BUS], app[COMMAND] = settings, paths, bus, command
    app[JOBS], app[INDEX], app[MONITOR] = Jobs(database), Index(database, paths), Monitor(paths.data)
    app[SCHEDULER] = Scheduler(settings, paths, app[JOBS], app[INDEX], bus, command)
    app.add_routes(routes())

    async def storage(_app: web.Application) -> AsyncIterator[None]:
        with claim(paths):
            await database.open()
            yield
            await database.close()

    app.cleanup_ctx.extend([storage, _scheduling, _monitoring])
    app.on_shutdown.append(_close_streams)
    return app


@contextlib.contextmanager
def claim(paths: Paths) -> Iterator[None]:
    """Make the data folder ours alone. Raises StoreError when it cannot be used or another daemon has it."""
    try:
        paths.data.mkdir(parents=True, exist_ok=True)
        lock = os.open(paths.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"the data folder {paths.data} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for noun in (*_NOUNS, "features"):
            paths.folder(noun).mkdir(exist_ok=True)
        (paths.data / "runs").mkdir(exist_ok=True)
        yield
    except OSError as error:
        if error.errno == errno.EWOULDBLOCK:
            raise StoreError(f"another daemon uses the data folder {paths.data}; stop it, or choose another") from None
        raise
    finally:
        os.close(lock)


async def _scheduling(app: web.Application) -> AsyncIterator[None]:
    scheduler = app[SCHEDULER]
    await scheduler.recover()
    loop = asyncio.create_task(scheduler.run())
    yield
    await scheduler.close(loop)


async def _monitoring(app: web.Application) -> AsyncIterator[None]:
    bus = app[BUS]
    loop = asyncio.create_task(app[MONITOR].run(lambda sample: bus.publish("system", dict(sample))))
    yield
    await _end(loop)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _close_streams(app: web.Application) -> None:
    app[BUS].close()
