"""A soak from its beginning to its end."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from hub import Hub
from made_data import STAGES
from mistudio import Client
from served_studio import Served, served

import mistudiod.demo
from tests.soak.hands import HANDS, Hand, Tally, work
from tests.soak.measure import Sample, measure
from tests.soak.verdict import Verdict, judge
from tests.soak.watchers import Watchers

_SAY_EVERY_S = 60.0
_END_S = 300.0  # for each hand to end what it has begun
MODEL, TEXT = "soak/pico", "soak/text"  # on the tests' Hub


@dataclass
class Found:
    """What came of a soak. ``latencies_ms``: of every event of which it is known when it happened."""

    seconds: float
    samples: list[Sample]
    latencies_ms: list[float]
    tally: Tally
    integrity: str
    left: list[str]
    verdicts: list[Verdict] = field(default_factory=list)


def soak(home: Path, seconds: float, say: Callable[[str], None], hands: Sequence[Hand] = HANDS) -> Found:
    """``home`` keeps the data folder ``data`` and the daemon's log; an SAE that is there already is used."""
    with _hub(home) as hub, served(home, hub) as studio:
        with Client(studio.url) as client:
            say(f"{studio.url}, process {studio.pid}: preparing")
            _prepare(client)
        tally, ended = Tally(), threading.Event()
        at_work = [
            threading.Thread(target=work, args=(hand, studio.url, home, tally, ended), daemon=True) for hand in hands
        ]
        with Watchers(studio.url, studio.environ) as watchers:
            for hand in at_work:
                hand.start()
            began = time.monotonic()
            try:
                samples = _watched(studio, watchers, seconds, tally, say)
            finally:
                ended.set()
            for hand in at_work:
                hand.join(_END_S)
                if hand.is_alive():
                    tally.failed("a hand has not come to its end")
        with Client(studio.url) as client:
            left = [f"job {job['id']} is {job['state']}" for job in client.jobs()["jobs"] if job["state"] != "done"]
        found = Found(time.monotonic() - began, samples, watchers.latencies_ms, tally, "", left)
    found.integrity = _integrity(studio.data)
    found.left += [str(path.relative_to(studio.data)) for path in studio.data.rglob(".partial-*")]
    found.verdicts = judge(found)
    return found


@contextlib.contextmanager
def _hub(home: Path) -> Iterator[Hub]:
    """With the bundled model and a text."""
    texts = home / "hub-text"
    texts.mkdir(exist_ok=True)
    lines = [json.dumps({"text": f"def number_{n}():\n    return {n} * {n % 7}\n" * 4}) for n in range(2000)]
    (texts / "train.jsonl").write_text("\n".join(lines))
    with Hub() as hub:
        hub.add_model(MODEL, Path(mistudiod.demo.__file__).parent / "pico")
        hub.add_dataset(TEXT, texts)
        yield hub


def _prepare(client: Client) -> None:
    if client.artifacts("sae")["saes"]:
        return
    for spec in STAGES:
        job = client.wait(client.submit(spec)["id"], timeout=600)
        assert job["state"] == "done", job


def _watched(
    studio: Served, watchers: Watchers, seconds: float, tally: Tally, say: Callable[[str], None]
) -> list[Sample]:
    """A sample each second."""
    samples: list[Sample] = []
    began = time.monotonic()
    said = began
    with httpx.Client(trust_env=False, timeout=30) as http:
        while (at := time.monotonic()) - began < seconds:
            samples.append(measure(studio, http, at - began, watchers.open))
            if at - said >= _SAY_EVERY_S:
                said = at
                now = samples[-1]
                say(
                    f"{(at - began) / 60:5.1f} min: {now.rss_bytes / 1e6:.1f} MB, {now.fds} files, "
                    f"{sum(tally.jobs.values())} jobs, {len(tally.failures)} failures"
                )
            time.sleep(max(0.0, 1.0 - (time.monotonic() - at)))
    return samples


def _integrity(data: Path) -> str:
    with contextlib.closing(sqlite3.connect(data / "mistudio.db")) as db:
        return str(db.execute("pragma integrity_check").fetchone()[0])
