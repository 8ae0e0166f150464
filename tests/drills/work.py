"""The work of a drill: what is submitted, what an undisturbed studio makes of it, and what has become of it."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import threading
import time
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from made_data import SAE

from tests.drills.daemon import Daemon

Spec = dict[str, Any]
Told = tuple[int, str, str]  # of a job: its state, and the code and the sentence of its error
TOKENS = "python-pico"
# What each makes is the same whenever it is made. Nothing is left to be chosen by the memory that is free.
CHOSEN = {"forward_tokens": 1024, "buffer_tokens": 8192, "micro_tokens": 256, "saes_at_once": 2, "whole_model": False,
          "precision": "fp32", "threads": 1, "batch_tokens": 256, "checkpoint_every_s": 0.4,
          "evaluate_every": 100_000}  # fmt: skip
STEER = {"sae": SAE, "prompt": "def read(", "steering": [{"feature": 3, "strength": 1.0}], "max_tokens": 12}
SPECS: dict[str, Spec] = {
    "one": {"kind": "train", "tokenization": TOKENS, "hook": "blocks.0.hook_resid_post", "width": 512, "k": 8,
            "tokens": 30_000, **CHOSEN},
    "grid": {"kind": "train", "tokenization": TOKENS, "hook": "blocks.1.hook_resid_post", "width": [256, 512],
             "architecture": "topk", "k": 8, "tokens": 20_000, **CHOSEN},
    "long": {"kind": "train", "tokenization": TOKENS, "hook": "blocks.2.hook_resid_post", "width": 384, "k": 8,
             "tokens": 120_000, **CHOSEN},
    "tokens": {"kind": "tokenize", "dataset": "python", "model": "pico", "context": 64, "tokens": 60_000},
    "features": {"kind": "extract", "sae": SAE, "tokens": 4_000, "examples": 4},
    "labels": {"kind": "label", "sae": SAE, "endpoint": "tokens", "top": 60, "again": True},
    "text": {"kind": "steer", **STEER},
}  # fmt: skip
UNNAMED = ("features", "labels", "text")  # what they make is not called by a name of the spec's
ALL = tuple(SPECS)
RETRIES = 5  # of one job by the person who looks after the studio


class Lost(Exception):
    """Something was lost, doubled or half made: what."""


class Work:
    """What has been asked of a studio, and how it must come out. ``plain`` holds the digests of undisturbed runs."""

    def __init__(self, daemon: Callable[[], Daemon], plain: dict[str, str] | None = None) -> None:
        self._daemon, self.plain = daemon, plain or {}
        self.jobs: dict[int, str] = {}  # the variant that each is of
        self.told: list[Told] = []  # what a person has been told
        self._retried: dict[int, int] = {}
        self._numbers = itertools.count(1)

    def submit(self, *variants: str) -> list[int]:
        return [self.add(variant, SPECS[variant]) for variant in variants]

    def add(self, variant: str, spec: Spec) -> int:
        named = {} if variant in UNNAMED else {"name": f"{variant}-{next(self._numbers)}"}
        job: int = self._daemon().call("/api/jobs", {"spec": {**spec, **named}})["id"]
        self.jobs[job] = variant
        return job

    def show(self, job: int) -> dict[str, Any]:
        found: dict[str, Any] = self._daemon().call(f"/api/jobs/{job}")
        return found

    def unfinished(self) -> list[dict[str, Any]]:
        return [found for job in self.jobs if (found := self.show(job))["state"] != "done"]

    def settle(self, limit_s: float) -> None:
        """Wait until every job is done, as a person would who resumes what was held and retries what has failed.

        Raises Lost for one that is gone, or that does not come to its end.
        """
        end = time.monotonic() + limit_s
        while left := self._left():
            for job in left:
                self._see_to(job)
            if time.monotonic() > end:
                raise Lost(f"not done after {limit_s:.0f} s: {[_short(job) for job in left]}")
            time.sleep(0.3)

    def _left(self) -> list[dict[str, Any]]:
        try:
            return self.unfinished()
        except urllib.error.HTTPError as error:
            with error:
                raise Lost(f"{error.url}: {error.code} {error.read().decode()}") from error

    def _see_to(self, found: dict[str, Any]) -> None:
        job, state = found["id"], found["state"]
        act = {"paused": "resume", "failed": "retry", "stopped": "retry", "partial": "retry"}.get(state)
        if act is None or found["yielded"]:  # one that made room for a text goes on by itself
            return
        error = found["error"] or {"code": "", "message": ""}
        self.told.append((job, error["code"], error["message"]))
        last = "".join(error.get("log", "").strip().splitlines()[-1:])
        print(f"  told: job {job} ({found['kind']}) {state}: {error['message']} {last and f'[{last}]'}", flush=True)
        self._retried[job] = self._retried.get(job, 0) + 1
        if self._retried[job] > RETRIES:
            raise Lost(f"retried {RETRIES} times in vain: {_short(found)}")
        with contextlib.suppress(urllib.error.HTTPError):  # what it waits for must be retried first
            self._daemon().call(f"/api/jobs/{job}/{act}", {})

    def compare(self, data: Path) -> None:
        """Raise Lost unless everything is, bit for bit, what an undisturbed studio has made."""
        for job, variant in self.jobs.items():
            found = self.show(job)
            for name, digest in digests(data, found).items():
                if self.plain.setdefault(f"{variant}{name}", digest) != digest:
                    raise Lost(f"job {job} ({variant}): {name or 'what it made'} is not as in an undisturbed run")

    def forget(self) -> None:
        """Remove the jobs, and what they made."""
        for job in list(self.jobs):
            found = self.show(job)
            for noun, name in made(found):
                self._daemon().call(f"/api/{noun}s/{name}", method="DELETE")
            self._daemon().call(f"/api/jobs/{job}", method="DELETE")
        self.jobs.clear()
        self._retried.clear()
        self.told.clear()


def made(job: dict[str, Any]) -> list[tuple[str, str]]:
    makes = job["makes"] or {"noun": "", "names": []}
    return [(makes["noun"], name) for name in makes["names"]]


def digests(data: Path, job: dict[str, Any]) -> dict[str, str]:
    """Of what a job has made: by the end of its name, the sha256 of what does not tell times."""
    if job["kind"] == "train":
        files = {name.removeprefix(job["spec"]["name"]): data / "saes" / name / "sae_weights.safetensors"
                 for _, name in made(job)}  # fmt: skip
    elif job["kind"] == "tokenize":
        files = {"": data / "tokens" / job["spec"]["name"] / "tokens.bin"}
    elif job["kind"] == "extract":
        folder = data / "features" / job["spec"]["sae"] / str(job["id"])
        files = {f"/{name}": folder / name for name in ("pages.bin", "postings.val", "windows.bin")}
    elif job["kind"] == "steer":
        texts = json.dumps(job["result"]["steered"][0]["text"])
        return {"": hashlib.sha256(texts.encode()).hexdigest()}
    else:
        return {}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}


def _short(job: dict[str, Any]) -> str:
    return f"{job['id']} {job['kind']} {job['state']} {(job['error'] or {}).get('message', '')}".strip()


@contextlib.contextmanager
def asking(daemon: Callable[[], Daemon], pause_s: float = 3.0) -> Iterator[dict[str, int]]:
    """Somebody who steers all the while, and looks on: how often which answer came, and with an odd one its words."""
    over, answers = threading.Event(), dict[str, int]()
    ways = itertools.cycle(["refuse"] * 19 + ["pause"])  # seldom: a training that is paused begins with its model again

    def ask() -> None:
        while not over.wait(pause_s):
            body = {**STEER, "stream": False, "if_busy": next(ways), "keep_alive": "0"}
            try:
                daemon().call("/api/steer", body)
                came = "answered"
            except urllib.error.HTTPError as refused:
                with refused:
                    came = json.load(refused)["error"]["code"]
            except (OSError, ValueError):  # the daemon was killed, or is frozen
                came = "cut off"
            answers[came] = answers.get(came, 0) + 1

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield answers
    finally:
        over.set()
        thread.join()
