"""What the studio tells a Prometheus server, judged by Prometheus' own parser."""

from __future__ import annotations

import asyncio
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import OpenStudio, Studio, dataset
from prometheus_client.parser import text_string_to_metric_families

from mistudiod.api import metrics
from mistudiod.api.keys import METERS
from mistudiod.gpu import GpuReader, unknown
from mistudiod.meters import Histogram, Meters
from mistudiod.monitor import Monitor
from mistudiod.prometheus import Family, gauge, text
from mistudiod.settings import Settings

Families = dict[str, Any]


def parsed(said: str) -> Families:
    return {family.name: family for family in text_string_to_metric_families(said)}


async def scraped(studio: Studio) -> Families:
    async with studio.session.get(studio.server.make_url("/metrics")) as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        return parsed(await response.text())


def value(families: Families, family: str, sample: str = "", /, **labels: str) -> float | None:
    """The sample of these labels; None when there is none."""
    found = [one for one in families[family].samples if one.name == (sample or family) and one.labels == labels]
    assert len(found) <= 1
    return found[0].value if found else None


def test_what_is_written_is_what_prometheus_reads() -> None:
    seconds = Histogram((0.1, 1.0))
    for one in (0.05, 0.1, 0.5, 30.0):
        seconds.add(one)
    odd = 'a "quoted" \\ back\nslash'
    found = parsed(
        text(
            [
                Family("odd", "gauge", "Two\nlines, \\ and all.", [({"name": odd}, 1.5)]),
                Family("took_seconds", "histogram", "Time.", [({"route": "/x"}, seconds)]),
                gauge("unknown", "Nobody knows.", None),
                gauge("large", "As it is.", 123456789012345),
            ]
        )
    )
    assert set(found) == {"odd", "took_seconds", "large"}
    assert found["odd"].documentation == "Two\nlines, \\ and all."
    assert value(found, "odd", name=odd) == 1.5
    assert value(found, "large") == 123456789012345
    counts = [value(found, "took_seconds", "took_seconds_bucket", route="/x", le=le) for le in ("0.1", "1.0", "+Inf")]
    assert counts == [2, 3, 4]
    assert value(found, "took_seconds", "took_seconds_count", route="/x") == 4
    assert value(found, "took_seconds", "took_seconds_sum", route="/x") == 30.65


async def scraped_unmoved(studio: Studio) -> tuple[Families, tuple[int, int, int]]:
    """A scrape during which the database's bytes, open files and threads stayed what they were: these are counted
    beside it, and a thread that begins meanwhile is no error of either."""

    def counted() -> tuple[int, int, int]:
        size = (studio.data / "mistudio.db").stat().st_size
        return size, len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))

    for _ in range(50):
        before, found = counted(), await scraped(studio)
        if before == counted():
            return found, before
    raise AssertionError("something moved during each of 50 scrapes")


async def test_jobs_queue_writes_and_the_daemons_own_process_are_told(studio: Studio) -> None:
    done = await studio.submit(dataset("ok-1"))
    await studio.until(done["id"], "done")
    first = await studio.submit(dataset("slow-1"))
    await studio.submit(dataset("ok-2"), after=[first["id"]])
    await studio.until(first["id"], "running")
    found, (size, files, threads) = await scraped_unmoved(studio)
    jobs = {tuple(one.labels.values()): one.value for one in found["mistudio_jobs"].samples}
    assert jobs == {("add_dataset", state): 1 for state in ("done", "running", "queued")}
    assert value(found, "mistudio_queue_length", lane="io") == 1
    assert value(found, "mistudio_queue_length", lane="gpu") == 0
    assert value(found, "mistudio_database_write_seconds", "mistudio_database_write_seconds_count") > 3  # type: ignore[operator]
    assert value(found, "mistudio_database_bytes") == size
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert 0.5 < value(found, "process_resident_memory_bytes") / resident < 2  # type: ignore[operator]
    assert 5 < value(found, "process_open_fds") <= files  # type: ignore[operator]
    assert value(found, "process_threads") == threads
    assert 0 < value(found, "process_cpu_seconds", "process_cpu_seconds_total") < 3600  # type: ignore[operator]
    assert 0 < value(found, "mistudio_uptime_seconds") < 3600  # type: ignore[operator]
    assert {"version", "python", "sqlite"} == set(found["mistudio_info"].samples[0].labels)


async def test_requests_are_counted_by_route_and_nobody_can_make_new_ones(studio: Studio) -> None:
    await studio.get("/api/jobs?limit=5")
    await studio.call("GET", "/api/jobs/77")
    await studio.call("GET", "/api/jobs/78")
    for number in range(20):
        await studio.call("GET", f"/nowhere/{number}")
        await studio.call("LOCK", f"/api/strange/{number}")
    await studio.call("GET", "/")
    found = await scraped(studio)

    def count(method: str, route: str, status: str) -> float | None:
        labels = {"method": method, "route": route, "status": status}
        return value(found, "mistudio_http_requests", "mistudio_http_requests_total", **labels)

    assert count("GET", "/api/jobs", "200") == 1
    assert count("GET", "/api/jobs/{id}", "404") == 2
    assert count("GET", "page", "200") == 1
    unknown = [one for one in found["mistudio_http_requests"].samples if one.labels["route"] == "none"]
    assert {one.labels["method"] for one in unknown} == {"GET", "other"} and sum(one.value for one in unknown) == 40
    duration = "mistudio_http_request_duration_seconds"
    assert value(found, duration, f"{duration}_count", route="/api/jobs/{id}") == 2


async def test_an_event_stream_is_counted_while_it_is_open_and_is_no_slow_answer(studio: Studio) -> None:
    async with studio.session.get(studio.server.make_url("/api/events")) as stream:
        await stream.content.readline()
        assert value(await scraped(studio), "mistudio_event_streams") == 1
    for _ in range(500):
        found = await scraped(studio)
        if value(found, "mistudio_event_streams") == 0:
            break
        await asyncio.sleep(0.01)
    else:
        raise AssertionError("the stream is still counted")
    duration = found["mistudio_http_request_duration_seconds"].samples
    assert "/api/events" not in {one.labels["route"] for one in duration}
    assert "/api/events" in {one.labels["route"] for one in found["mistudio_http_requests"].samples}


async def test_a_loop_that_stood_still_was_late() -> None:
    meters = Meters()
    watching = asyncio.create_task(meters.watch_loop())
    await asyncio.sleep(0)
    time.sleep(0.8)  # noqa: ASYNC251 - that is what is measured
    for _ in range(500):
        if sum(meters.late.counts):
            break
        await asyncio.sleep(0.01)
    watching.cancel()
    assert meters.late.sum > 0.4 and sum(meters.late.counts[-4:]) >= 1


def test_the_gpus_are_told_and_what_is_not_known_is_left_out(tmp_path: Path) -> None:
    card = {**unknown('RTX "9"', False), "memory_total_bytes": 24 << 30, "share": 0.25}
    monitor = Monitor(tmp_path, gpus=GpuReader(lambda: [card]))  # type: ignore[list-item]
    found = parsed(text(metrics._machine(monitor.read())))
    labels = {"gpu": "0", "name": 'RTX "9"'}
    assert value(found, "mistudio_gpu_memory_total_bytes", **labels) == 24 << 30
    assert value(found, "mistudio_gpu_utilization_ratio", **labels) == 0.25
    assert "mistudio_gpu_temperature_celsius" not in found
    assert value(found, "mistudio_memory_available_bytes") > 0  # type: ignore[operator]
    assert value(found, "mistudio_disk_free_bytes") > 0  # type: ignore[operator]


async def test_a_scrape_needs_the_scope_read_where_tokens_are_needed(open_studio: OpenStudio) -> None:
    studio = await open_studio()
    _, made = await studio.call("POST", "/api/tokens", json={"name": "scraper", "scope": "read"})
    url = studio.server.make_url("/metrics")
    async with studio.session.get(url, headers={"Authorization": f"Bearer {made['token']}"}) as answer:
        assert answer.status == 200
    async with studio.session.get(url, headers={"Authorization": "Bearer mis_wrong"}) as answer:
        assert answer.status == 401


async def test_counts_are_the_daemons_own_and_begin_with_it(open_studio: OpenStudio) -> None:
    studio = await open_studio()
    await studio.get("/api/status")
    assert sum(studio.app[METERS].requests.values()) == 1


async def test_the_documentation_names_every_metric_and_its_labels(studio: Studio, tmp_path: Path) -> None:
    done = await studio.submit(dataset("ok-1"))
    await studio.until(done["id"], "done")
    card = {**unknown("RTX", False), "memory_total_bytes": 1, "memory_free_bytes": 1, "share": 0.5, "celsius": 40.0,
            "watts": 100.0}  # fmt: skip
    sample = Monitor(tmp_path, gpus=GpuReader(lambda: [card])).read()  # type: ignore[list-item]
    sample["cpu"]["share"], sample["temperatures"] = 0.5, [{"name": "cpu", "celsius": 40.0}]
    await scraped(studio)  # of the first answer the count is there in the second
    families = await scraped(studio) | parsed(text(metrics._machine(sample)))
    told = {
        one + ("_total" if family.type == "counter" else ""): {
            name for name in family.samples[0].labels if name != "le"
        }
        for one, family in families.items()
    }
    page = (Path(__file__).parent.parent / "docs" / "operations.md").read_text().partition("## Watch")[2]
    written = {}
    for row in re.findall(r"^\| (`.*`.*?) \| .* \|$", page, re.MULTILINE):
        shared = re.search(r"each with `\{(.+?)\}`", row)
        for name, labels in re.findall(r"`([a-z_]+)(?:\{([a-z_,]+)\})?`", row):
            written[name] = {one for one in (labels or (shared[1] if shared else "")).split(",") if one}
    assert told.pop("mistudio_info") == {"version", "python", "sqlite"}
    assert written.pop("mistudio_info") == set()
    assert written == told


def test_the_scrape_that_the_documentation_shows_is_yaml_and_names_our_port() -> None:
    yaml = pytest.importorskip("yaml")
    page = (Path(__file__).parent.parent / "docs" / "operations.md").read_text()
    (scrape,) = yaml.safe_load(page.partition("```yaml\n")[2].partition("```")[0])["scrape_configs"]
    assert scrape["static_configs"] == [{"targets": [f"jetson.local:{Settings().port}"]}]
    assert scrape.get("metrics_path", "/metrics") == "/metrics"  # Prometheus' own default
