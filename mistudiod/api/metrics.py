"""What a Prometheus server asks for; and the count of requests that it is told of."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

from aiohttp import web

from mistudiod import __version__
from mistudiod.api.doors import ROUTE
from mistudiod.api.keys import BUS, DATABASE, JOBS, METERS, MONITOR
from mistudiod.api.route import Asked, Route, route
from mistudiod.gpu import Gpu
from mistudiod.jobs import State
from mistudiod.meters import Meters
from mistudiod.monitor import Sample
from mistudiod.own_process import own_process
from mistudiod.prometheus import MEDIA, Family, Labels, gauge, text
from mistudiod.tokens import Scope

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_GONE = 499  # nginx' number for a caller who did not wait for the answer
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
JobCounts = Mapping[tuple[str, str, str], int]


def counting(meters: Meters) -> Callable[..., Awaitable[web.StreamResponse]]:
    """The outermost middleware: it sees every answer, refusals among them."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        began, status, seconds = time.perf_counter(), _GONE, None
        try:
            response = await handler(request)
            status = response.status
            if response.content_type != "text/event-stream":
                seconds = time.perf_counter() - began
        finally:
            method = request.method if request.method in _METHODS else "other"
            meters.answered(method, _template(request), status, seconds)
        return response

    return middleware


def _template(request: web.Request) -> str:
    """One of a known few: whoever asks must not be able to make new ones."""
    declared: Route | None = getattr(request.match_info.handler, ROUTE, None)
    if declared is None:
        return "none"
    return "page" if declared.name == "show_page" else declared.template


@route("GET", "/metrics", scope=Scope.READ, media="text/plain")
async def show_metrics(asked: Asked[None]) -> Any:
    """Show what the studio and its machine do, in Prometheus' text format (0.0.4)."""
    app = asked.app
    counts = await app[JOBS].counts()
    sizes = await asyncio.to_thread(app[DATABASE].sizes)
    history = app[MONITOR].history
    families = [*_studio(app, counts, sizes), *_requests(app[METERS]), *_process(app[METERS])]
    if history:
        families += _machine(history[-1])
    return web.Response(body=text(families).encode(), headers={"Content-Type": MEDIA})


def _studio(app: web.Application, counts: JobCounts, sizes: tuple[int, int]) -> Iterator[Family]:
    by_kind: dict[tuple[str, str], int] = {}
    waiting = dict.fromkeys(("gpu", "io"), 0)
    for (lane, kind, state), count in counts.items():
        by_kind[kind, state] = by_kind.get((kind, state), 0) + count
        if state == State.QUEUED.value:
            waiting[lane] += count
    versions = {"version": __version__, "python": sys.version.split()[0], "sqlite": sqlite3.sqlite_version}
    yield Family("mistudio_info", "gauge", "Versions; always 1.", [(versions, 1)])
    yield Family(
        "mistudio_jobs", "gauge", "Jobs that there are, by kind and state.",
        [({"kind": kind, "state": state}, count) for (kind, state), count in sorted(by_kind.items())],
    )  # fmt: skip
    yield Family(
        "mistudio_queue_length", "gauge", "Jobs that wait for their turn, by lane.",
        [({"lane": lane}, count) for lane, count in waiting.items()],
    )  # fmt: skip
    yield gauge("mistudio_event_streams", "Event streams that are open.", len(app[BUS]))
    yield Family(
        "mistudio_database_write_seconds", "histogram", "From asking for a transaction until it is committed.",
        [({}, app[DATABASE].writes)],
    )  # fmt: skip
    yield gauge("mistudio_database_bytes", "Size of the database.", sizes[0])
    yield gauge("mistudio_database_wal_bytes", "Size of its write-ahead log.", sizes[1])


def _requests(meters: Meters) -> Iterator[Family]:
    yield Family(
        "mistudio_http_requests_total", "counter",
        "Requests, by the route's template and the status of the answer; 499: the caller has gone.",
        [
            ({"method": method, "route": template, "status": str(status)}, count)
            for (method, template, status), count in sorted(meters.requests.items())
        ],
    )  # fmt: skip
    yield Family(
        "mistudio_http_request_duration_seconds", "histogram", "Until the answer was made; streams are left out.",
        [({"route": template}, found) for template, found in sorted(meters.answers.items())],
    )  # fmt: skip


def _process(meters: Meters) -> Iterator[Family]:
    own = own_process()
    yield Family(
        "mistudio_event_loop_lag_seconds", "histogram", "How much later than asked the event loop went on.",
        [({}, meters.late)],
    )  # fmt: skip
    yield gauge("mistudio_uptime_seconds", "Since the daemon was started.", time.monotonic() - meters.began)
    yield gauge("process_resident_memory_bytes", "The daemon's, without its workers.", own.resident_bytes)
    yield gauge("process_open_fds", "File descriptors of the daemon.", own.open_files)
    yield gauge("process_max_fds", "As many file descriptors may be open.", own.files_limit)
    yield gauge("process_threads", "Threads of the daemon.", own.threads)
    yield Family("process_cpu_seconds_total", "counter", "Processor time of the daemon.", [({}, own.cpu_seconds)])


def _machine(sample: Sample) -> Iterator[Family]:
    memory, cpu, disk = sample["memory"], sample["cpu"], sample["disk"]
    yield gauge("mistudio_cpu_share", "0 to 1, of all cores, in the last second.", cpu["share"])
    yield gauge("mistudio_memory_total_bytes", "Of the machine.", memory["total_bytes"])
    yield gauge("mistudio_memory_available_bytes", "Of the machine or its limit.", memory["available_bytes"])
    yield gauge("mistudio_disk_total_bytes", "Of the data folder's file system.", disk["total_bytes"])
    yield gauge("mistudio_disk_free_bytes", "Of the data folder's file system.", disk["free_bytes"])
    yield Family(
        "mistudio_temperature_celsius", "gauge", "Of the machine's sensors.",
        [
            ({"sensor": f"{number} {one['name']}"}, one["celsius"])
            for number, one in enumerate(sample["temperatures"])
            if one["celsius"] is not None
        ],
    )  # fmt: skip
    gpus = [({"gpu": str(number), "name": gpu["name"]}, gpu) for number, gpu in enumerate(sample["gpus"])]
    readings: tuple[tuple[str, str, Callable[[Gpu], float | None]], ...] = (
        ("memory_total_bytes", "Memory of the GPU.", lambda gpu: gpu["memory_total_bytes"]),
        ("memory_free_bytes", "Free memory of the GPU.", lambda gpu: gpu["memory_free_bytes"]),
        ("utilization_ratio", "0 to 1: part of the time in which it was at work.", lambda gpu: gpu["share"]),
        ("temperature_celsius", "Of the GPU.", lambda gpu: gpu["celsius"]),
        ("power_watts", "What the GPU takes.", lambda gpu: gpu["watts"]),
    )
    for name, help, read in readings:
        found: list[tuple[Labels, float]] = [
            (labels, value) for labels, gpu in gpus if (value := read(gpu)) is not None
        ]
        yield Family(f"mistudio_gpu_{name}", "gauge", help, [*found])
