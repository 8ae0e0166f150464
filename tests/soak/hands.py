"""Those who work with the studio during a soak: each does its own over and over, as a person with the client does."""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from made_data import HOOK, SAE
from mistudio import Client
from mistudio.errors import ApiError
from mistudio.upload import send

JOB_S = 600.0
_PATIENCE = 60  # refusals in a row, a second or more apart: others are at work no longer
_BUSY = frozenset({"gpu_busy", "session_busy", "too_many", "conflict", "cancelled"})  # others are at work


@dataclass
class Tally:
    """What was done: jobs by kind, calls by hand, refusals that are no fault by code; and what went wrong."""

    jobs: Counter[str] = field(default_factory=Counter)
    rounds: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def failed(self, said: str) -> None:
        self.failures.append(said)


@dataclass
class At:
    """One hand at its work."""

    client: Client
    home: Path
    tally: Tally
    ended: threading.Event
    random: random.Random

    def job(self, spec: dict[str, Any]) -> None:
        """Submit, wait until it is done, and remove it."""
        self.done(self.client.submit(spec))

    def done(self, job: dict[str, Any]) -> None:
        found = self.client.wait(job["id"], timeout=JOB_S)
        self.tally.jobs[found["kind"]] += 1
        if found["state"] != "done":
            self.tally.failed(f"job {found['id']} ({found['kind']}) is {found['state']}: {found['error']}")
        self.client.remove_job(found["id"])

    def rest(self, seconds: float) -> None:
        self.ended.wait(seconds * self.random.uniform(0.5, 1.5))


def train(at: At, n: int) -> None:
    """A training with a pause in it, what fires, what it is called; then all of it goes."""
    name = f"soak-{n}"
    spec = {"kind": "train", "tokenization": "python-pico", "name": name, "hook": HOOK, "width": 256, "k": 8,
            "tokens": 100_000, "batch_tokens": 1024, "checkpoint_every_s": 1.0}  # fmt: skip
    job = at.client.submit(spec)
    at.rest(4.0)
    with contextlib.suppress(ApiError):  # it may have come to its end, or make room for a session
        at.client.pause(job["id"])
        at.client.wait(job["id"], timeout=JOB_S, state="paused")
    for _ in range(100):
        with contextlib.suppress(ApiError):
            at.client.resume(job["id"])
        if at.client.job(job["id"])["state"] != "paused":
            break
        time.sleep(0.1)
    at.done(job)
    at.job({"kind": "extract", "sae": name, "tokens": 30_000})
    at.job({"kind": "label", "sae": name, "endpoint": "tokens"})
    at.client.remove("sae", name)
    at.client.empty_trash()


def steer(at: At, n: int) -> None:
    """A text as it is written; a training makes room for it."""
    found = at.client.steer(
        SAE, "def main", {n % 512: 2.0}, on_text=lambda row, text: None, max_tokens=40, if_busy="pause", keep_alive="2s"
    )
    at.client.remove_steering(found["id"])
    at.rest(8.0)  # too short for a training, which is let get ahead all the same


def hub(at: At, n: int) -> None:
    """From the Hub, and gone again."""
    at.job({"kind": "add_model", "source": "soak/pico", "name": f"hub-{n}"})
    at.client.remove("model", f"hub-{n}")
    at.job({"kind": "add_dataset", "source": "soak/text", "name": f"hub-{n}", "rows": 500})
    at.client.remove("dataset", f"hub-{n}")
    at.rest(3.0)


def tokenize(at: At, n: int) -> None:
    at.job({"kind": "tokenize", "dataset": "python", "model": "pico", "name": f"tokens-{n}", "context": 64,
            "tokens": 100_000})  # fmt: skip
    at.client.remove("tokenization", f"tokens-{n}")
    at.rest(5.0)


def upload(at: At, n: int) -> None:
    file = at.home / "upload.txt"
    file.write_text("".join(f"A line of upload {n}, number {line}.\n" for line in range(20_000)))
    source = send(at.client, file, f"upload-{n}")
    at.job({"kind": "add_dataset", "source": source, "name": f"upload-{n}"})
    at.client.remove("dataset", f"upload-{n}")
    at.rest(5.0)


def read(at: At, n: int) -> None:
    """What a page asks for."""
    client, feature = at.client, at.random.randrange(512)
    for noun in ("model", "dataset", "tokenization", "sae"):
        client.artifacts(noun)
    client.features(SAE, limit=50)
    client.feature(SAE, feature)
    client.label(SAE, feature)
    for job in client.jobs()["jobs"][:3]:
        with contextlib.suppress(ApiError):  # it has just been removed
            client.log(job["id"])
            client.metrics(job["id"])
    client.status(), client.running(), client.system_history()
    if n % 20 == 0:
        client.disk(), client.doctor(), client.label_summary(SAE), client.trash(), client.openapi()
    client.mark(SAE, feature, starred=n % 2 == 0)
    at.rest(0.4)


Hand = Callable[[At, int], None]
HANDS: tuple[Hand, ...] = (train, steer, hub, tokenize, upload, read, read)


def work(hand: Hand, url: str, home: Path, tally: Tally, ended: threading.Event) -> None:
    """Until it has ended, each round to its own end."""
    with Client(url) as client:
        at = At(client, home, tally, ended, random.Random(hand.__name__))
        in_vain = 0
        for n in itertools.count():
            if ended.is_set():
                return
            try:
                hand(at, n)
                in_vain = 0
            except ApiError as refused:
                if refused.code in _BUSY:
                    tally.refusals[refused.code] += 1
                    in_vain += 1
                    if in_vain == _PATIENCE:
                        tally.failed(f"{hand.__name__}: refused {_PATIENCE} times in a row, at last as: {refused}")
                else:
                    tally.failed(f"{hand.__name__}: {refused.status} {refused}")
                at.rest(1.0)
            except Exception:  # noqa: BLE001 - a soak goes on, and tells of it
                tally.failed(f"{hand.__name__}: {traceback.format_exc()}")
                at.rest(1.0)
            tally.rounds[hand.__name__] += 1
