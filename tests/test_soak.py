"""The soak itself: its rules on samples that are made, and a few seconds of the real thing."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.soak import report
from tests.soak.hands import Tally, read, steer, upload
from tests.soak.measure import Sample
from tests.soak.run import Found, soak
from tests.soak.verdict import judge, passed, percentile, stretches
from tests.soak.watchers import Latency

NOW = datetime(2026, 1, 1, 12, 0, 0, 250_000, timezone.utc)
SAMPLE = Sample(0.0, 80_000_000, 60_000_000, 60, 12, 500_000, 4_000_000, 0.0, 0, 20)


def samples(seconds: int, rss: float = 0.0, fds: float = 0.0) -> list[Sample]:
    """One a second; ``rss`` bytes and ``fds`` more each second."""
    return [
        replace(
            SAMPLE, at_s=float(n), rss_bytes=80_000_000 + int(rss * n), fds=60 + int(fds * n), late_s=n * 0.002, looks=n
        )
        for n in range(seconds)
    ]


def found(taken: list[Sample], latencies_ms: list[float] | None = None) -> Found:
    one = Found(len(taken), taken, [3.0] * 200 if latencies_ms is None else latencies_ms, Tally(), "ok", [])
    one.verdicts = judge(one)
    return one


def wrong(one: Found) -> list[str]:
    return [verdict.name for verdict in one.verdicts if not verdict.ok]


def test_a_studio_that_stays_as_it_was_passes() -> None:
    one = found(samples(7200, rss=200.0))
    assert passed(one.verdicts) and wrong(one) == []


def test_what_grows_for_long_does_not_pass() -> None:
    assert wrong(found(samples(7200, rss=2_000.0))) == ["memory (RSS)"]
    assert wrong(found(samples(7200, fds=0.002))) == ["file descriptors"]
    assert wrong(found(samples(90, rss=400_000.0))) == ["memory (RSS)"]


def test_the_first_minutes_of_a_long_soak_do_not_count_and_of_a_short_one_the_first_third() -> None:
    early, late = stretches(samples(7200))
    assert (early[0].at_s, early[-1].at_s, late[0].at_s) == (600, 1199, 6599)
    early, late = stretches(samples(90))
    assert (early[0].at_s, early[-1].at_s, late[0].at_s) == (30, 59, 60)
    assert [len(one) for one in stretches(samples(1))] == [1, 1]


def test_readers_that_hear_late_or_nothing_do_not_pass() -> None:
    assert wrong(found(samples(90), [1.0] * 995 + [500.0] * 5)) == []
    assert wrong(found(samples(90), [1.0] * 980 + [500.0] * 20)) == ["event latency, p99"]
    assert wrong(found(samples(90), [])) == ["event latency, p99"]
    assert [percentile(list(range(1, 101)), share) for share in (0.5, 0.99, 1.0)] == [50, 99, 100]


def test_failures_and_what_is_left_and_a_damaged_database_do_not_pass() -> None:
    one = found(samples(90))
    one.tally.failed("job 7 (train) is failed")
    one.left, one.integrity = ["saes/.partial-x-1"], "row 3 missing"
    assert [verdict.name for verdict in judge(one) if not verdict.ok] == ["failures", "left behind", "database"]


def test_only_a_change_that_a_reader_has_seen_is_measured() -> None:
    latency = Latency()
    job = {"id": 1, "state": "queued", "created_at": "2026-01-01T12:00:00.000Z", "started_at": None, "ended_at": None}
    assert latency.of("job", job, NOW) == 250
    assert latency.of("job", job, NOW) is None
    running = {**job, "state": "running", "started_at": "2026-01-01T12:00:00.240Z"}
    assert latency.of("job", running, NOW) == 10
    assert latency.of("job", {**running, "state": "pausing"}, NOW) is None
    assert latency.of("job", {**running, "state": "queued"}, NOW) is None  # that moment is not kept
    assert latency.of("job", {**running, "id": 2}, NOW) is None  # it may have run for long
    assert latency.of("job", {"id": 1, "removed": True}, NOW) is None
    assert latency.of("system", {"at": "2026-01-01T12:00:00.200Z"}, NOW) == 50
    assert latency.of("progress", {"job": 1}, NOW) is None


def test_the_report_is_for_machines_for_pages_and_for_the_eye(tmp_path: Path) -> None:
    one = found(samples(90))
    one.tally.jobs.update(train=3)
    one.tally.refusals.update(gpu_busy=2)
    report.write(one, tmp_path / "soak.json")
    said = json.loads((tmp_path / "soak.json").read_text())
    assert len(said["samples"]) == 90 and said["loop_late_ms"] == 2.0 and said["latency_ms"]["p99"] == 3.0
    assert {verdict["ok"] for verdict in said["verdicts"]} == {True}
    text = (tmp_path / "soak.md").read_text()
    assert "| memory (RSS) | 80.0 → 80.0 MB (+0.0%) | ±10% | passed |" in text and "3 train" in text
    drawn = ElementTree.parse(tmp_path / "soak.svg").getroot()
    assert len(drawn.findall("{http://www.w3.org/2000/svg}polyline")) == 3


@pytest.mark.timeout(600)
def test_seconds_of_mixed_work_end_without_a_failure(made_data: Path, tmp_path: Path) -> None:
    shutil.copytree(made_data, tmp_path / "data")
    one = soak(tmp_path, 3.0, lambda said: None, hands=(steer, upload, read))
    # How much memory it takes and how fast it is are for the long one, on a machine that does nothing else.
    assert {"failures", "left behind", "database"}.isdisjoint(wrong(one)), (one.tally, one.left, one.integrity)
    assert set(one.tally.rounds) == {"steer", "upload", "read"} and set(one.tally.jobs) == {"add_dataset"}
    assert one.latencies_ms


@pytest.mark.drill
@pytest.mark.timeout(1800)
def test_minutes_of_all_kinds_of_work_are_passed(made_data: Path, tmp_path: Path) -> None:
    shutil.copytree(made_data, tmp_path / "data")
    one = soak(tmp_path, 300.0, print)
    assert passed(one.verdicts), report.markdown(one)
    assert {"train", "extract", "label", "add_model", "add_dataset", "tokenize"} <= set(one.tally.jobs)
