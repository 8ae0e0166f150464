"""How quickly a feature's page comes, cold and warm, and how long sorting and filtering all of them takes, over HTTP:
``python bench/features.py [--features 131072] [--requests 300] [--rounds 3] [--token-bytes 2] [--labels 100000]``.

A store of that many features is written first, of the real sizes: 24 strongest, 10 spread, 6 random and 8 near
examples of 65 tokens, 40 logits, 32 neighbours, 10 tokens. The records are a pool of 200, dealt out with other numbers.
Then a daemon is started on it. Warm: no file is taken out of memory. Cold: before each request what the daemon has
mapped of the store is taken from it (process_madvise PAGEOUT, where the system permits it), and then every file of the
store out of the page cache (posix_fadvise DONTNEED); the pages that are left there are counted (mincore). A process
beside it asks /api/status every 5 ms: how late the answers are is how long the event loop was held up.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import http.client
import json
import mmap
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from daemon import free_port, kilobytes

from mistudiod.engine.feature_record import BAND, NEAR, RANDOM, TOP, Examples, FeatureRecord, Logits
from mistudiod.engine.feature_store import StoreWriter

CONTEXT, ROWS, TOKENS, SHOWN = 128, 7_900, 1_000_000, 65
KINDS = np.repeat(np.array([TOP, BAND, RANDOM, NEAR], np.uint8), (24, 10, 6, 8))
POOL = 200
_PIDFD_OPEN, _PROCESS_MADVISE, _MADV_PAGEOUT = 434, 440, 21
_libc = ctypes.CDLL(None, use_errno=True)
LISTS = (
    *("sort=index", "sort=density", "sort=-density", "sort=max", "sort=-max", "sort=-typical", "sort=token"),
    *("sort=-token", "sort=label", "sort=-score", "filter=dead", "filter=alive", "filter=density%3C0.01"),
    *("filter=density%3E1e-4", "filter=max%3E3", "filter=token:ab", "filter=labelled", "filter=unlabelled"),
    *("filter=starred", "filter=score%3E0.7", "filter=provider:tokens", "q=number"),
    "sort=-max&filter=alive%20density%3C0.01%20max%3E1%20token:a",
    *("filter=alive&example=true&limit=50", "sort=-score&filter=unlabelled%20alive&cursor=100000"),
)  # fmt: skip

SLOWEST = LISTS[-3]


def vocabulary(size: int) -> list[bytes]:
    chance = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    return [(" " * (n % 2) + "".join(chance.choices(letters, k=1 + n % 8))).encode() for n in range(size)]


def make_record(rng: np.random.Generator, features: int, words: int) -> FeatureRecord:
    n = len(KINDS)
    peak = rng.integers(32, CONTEXT - 33, n).astype(np.uint32)
    fires = rng.integers(1, 8, n).astype(np.uint32)
    places = [np.sort(rng.permutation(SHOWN)[:count]) for count in fires]
    examples = Examples(
        kind=KINDS, band=np.where(KINDS == BAND, np.arange(n) % 5, 0).astype(np.uint8),
        row=rng.integers(0, ROWS, n).astype(np.uint32), first=peak - 32, length=np.full(n, SHOWN, np.uint32), peak=peak,
        value=np.sort(rng.exponential(2, n).astype(np.float32))[::-1],
        tokens=rng.integers(0, words, n * SHOWN).astype(np.uint32), fires=fires,
        where=np.concatenate(places).astype(np.uint16), values=rng.exponential(2, fires.sum()).astype(np.float32),
    )  # fmt: skip
    sizes = ((words, 10), (1000, 10), (9000, 10), (features, 16), (features, 16), (words, 20), (words, 20))
    many = [rng.integers(0, limit, count).astype(np.uint32) for limit, count in sizes]
    values = np.sort(rng.standard_normal(40).astype(np.float32))[::-1]
    counts = rng.integers(0, 2000, 50).astype(np.uint32)
    logits = Logits(many[5], values[:20], many[6], values[:19:-1], float(values[-1]), float(values[0]), counts)
    return FeatureRecord(
        fired=1, total=2.0, squares=5.0, maximum=1.0, histogram=rng.integers(0, 500, 64).astype(np.uint32),
        examples=examples, tokens=many[0], tokens_fired=many[1], tokens_read=many[2], cofiring=many[3],
        label_fired=1, label_tokens=many[0], label_tokens_fired=many[1], label_tokens_read=many[2],
        cofiring_share=rng.random(16, np.float32), cofiring_jaccard=rng.random(16, np.float32), decoder=many[4],
        decoder_cosine=rng.random(16, np.float32), logits=logits,
    )  # fmt: skip


def dead(record: FeatureRecord) -> FeatureRecord:
    none = {name: array[:0] for name, array in vars(record.examples).items()}
    nothing = {name: getattr(record, name)[:0] for name in ("tokens", "tokens_fired", "tokens_read", "label_tokens",
                                                            "label_tokens_fired", "label_tokens_read", "cofiring",
                                                            "cofiring_share", "cofiring_jaccard")}  # fmt: skip
    return replace(record, fired=0, total=0.0, squares=0.0, maximum=0.0, examples=Examples(**none), **nothing)


def build(folder: Path, features: int, token_bytes: int) -> None:
    rng, words = np.random.default_rng(0), 50_000 if token_bytes == 2 else 150_000
    pool = [make_record(rng, features, words) for _ in range(POOL)]
    folder.mkdir(parents=True)
    known = vocabulary(words)
    (folder / "vocab.bin").write_bytes(b"".join(known))
    (folder / "vocab.idx").write_bytes(np.cumsum([0, *map(len, known)]).astype("<u4").tobytes())
    (folder / "tokens.bin").write_bytes(rng.integers(0, words, (ROWS, CONTEXT)).astype(f"<u{token_bytes}").tobytes())
    (folder / "windows.bin").write_bytes(np.arange(ROWS, dtype="<u4").tobytes())
    writer = StoreWriter(folder, features, CONTEXT, ROWS, TOKENS, token_bytes)
    fired = np.minimum(rng.lognormal(5, 2, features).astype(int) + 1, TOKENS // 2)
    strongest = rng.exponential(3, features).astype(np.float32) + np.float32(0.01)
    took = 0.0
    for n in range(features):
        one = pool[n % POOL]
        if n % 10 == 9:
            one = dead(one)
        else:
            one = replace(
                one, fired=int(fired[n]), total=2.0 * fired[n], squares=5.0 * fired[n], maximum=float(strongest[n])
            )
        began = time.perf_counter()
        writer.add(one)
        took += time.perf_counter() - began
    began = time.perf_counter()
    writer.finish({"sae": "wide", "id": "1", "job": 1})
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"written: {took / features * 1e6:.0f} µs a record, finished in {time.perf_counter() - began:.1f} s, "
          f"{size / 1e6:,.0f} MB, {size / features / 1e3:.1f} kB a feature")  # fmt: skip
    os.sync()  # pages that are not on the disk yet cannot be given up


class Daemon:
    """A daemon on ``data``, asked over one connection."""

    def __init__(self, data: Path) -> None:
        self.port = free_port()
        command = [sys.executable, "-m", "mistudiod", "serve", "--data", str(data), "--port", str(self.port)]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        for _ in range(3000):
            with contextlib.suppress(OSError):
                self.get("/api/status")
                break
            self.connection.close()
            time.sleep(0.01)

    def get(self, path: str) -> tuple[float, bytes]:
        """Milliseconds until the answer is here whole, and the answer."""
        began = time.perf_counter()
        self.connection.request("GET", path)
        answer = self.connection.getresponse()
        body = answer.read()
        took = (time.perf_counter() - began) * 1e3
        assert answer.status == 200, body
        return took, body

    def post(self, path: str, body: Any) -> int:
        self.connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = self.connection.getresponse()
        answer.read()
        return answer.status

    def memory(self) -> tuple[float, float]:
        """Resident MB: anonymous, and of files."""
        rollup = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        anonymous = kilobytes(rollup, "Anonymous:")
        return anonymous / 1e3, (kilobytes(rollup, "Rss:") - anonymous) / 1e3

    def processor(self) -> tuple[float, float]:
        """Milliseconds that its threads have had a processor, and that they were ready and had none."""
        threads = [path.read_text().split() for path in Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")]
        ran, waited = (sum(int(one[n]) for one in threads) / 1e6 for n in (0, 1))
        return ran, waited

    def end(self) -> None:
        self.process.terminate()
        self.process.wait()


class Evicting:
    """Takes a store's files out of memory."""

    def __init__(self, folder: Path, pid: int) -> None:
        self._files = [path.open("rb") for path in folder.iterdir() if path.stat().st_size]
        self._folder, self._pid = folder, pid
        self._handle = _libc.syscall(_PIDFD_OPEN, pid, 0)
        self.paged_out = True

    def __call__(self) -> None:
        self._page_out()
        for file in self._files:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def _page_out(self) -> None:
        for line in Path(f"/proc/{self._pid}/maps").read_text().splitlines():
            if str(self._folder) in line:
                begin, end = (int(part, 16) for part in line.split()[0].split("-"))
                span = (ctypes.c_size_t * 2)(begin, end - begin)
                done = _libc.syscall(_PROCESS_MADVISE, self._handle, span, ctypes.c_size_t(1), _MADV_PAGEOUT, 0)
                self.paged_out &= done >= 0

    def resident(self) -> dict[str, int]:
        """Pages in the cache, by file."""
        return {Path(file.name).name: _resident(file.fileno(), os.fstat(file.fileno()).st_size) for file in self._files}


def _resident(file: int, size: int) -> int:
    mapped = mmap.mmap(file, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    pages = -(-size // mmap.PAGESIZE)
    found = (ctypes.c_ubyte * pages)()
    at = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
    assert _libc.mincore(ctypes.c_void_p(at), ctypes.c_size_t(size), found) == 0
    return sum(one & 1 for one in found)


@contextlib.contextmanager
def watched(port: int, what: str) -> Iterator[None]:
    """A process that asks /api/status without pause, as long as the block runs; its latencies are printed."""
    command = [sys.executable, __file__, "--watch", str(port)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    process.stdout.readline()  # it has begun
    yield
    found, _ = process.communicate("")
    print(f"  /api/status meanwhile ({what}): {spread(json.loads(found))}")


def watch(port: int) -> None:
    connection, found = http.client.HTTPConnection("127.0.0.1", port, timeout=60), []
    os.set_blocking(0, False)
    print(flush=True)
    while sys.stdin.buffer.read(1) != b"":  # None as long as the other end is open
        began = time.perf_counter()
        connection.request("GET", "/api/status")
        connection.getresponse().read()
        found.append((time.perf_counter() - began) * 1e3)
        time.sleep(0.005)
    print(json.dumps(found))


def spread(times: list[float]) -> str:
    ordered = sorted(times)
    at = lambda share: ordered[min(len(ordered) - 1, int(share * len(ordered)))]  # noqa: E731
    return f"p50 {statistics.median(ordered):6.1f}  p99 {at(0.99):6.1f}  max {ordered[-1]:6.1f} ms ({len(ordered)})"


def pages(daemon: Daemon, features: int, requests: int, before: Callable[[], object], chance: random.Random) -> str:
    found, begun = [], daemon.processor()
    for _ in range(requests):
        index = chance.randrange(features)
        index -= index % 10 == 9  # a dead one has no examples
        before()
        took, body = daemon.get(f"/api/saes/wide/features/{index}")
        assert len(json.loads(body)["examples"]) >= 20
        found.append(took)
    ran, waited = ((now - then) / requests for now, then in zip(daemon.processor(), begun, strict=True))
    return f"{spread(found)}; of each the daemon's threads ran {ran:.2f} ms and waited {waited:.2f} ms for a processor"


def measure(daemon: Daemon, folder: Path, features: int, requests: int, rounds: int) -> None:
    begun = daemon.memory()
    print(f"first request, which opens the store: {daemon.get('/api/saes/wide/features/0')[0]:.0f} ms")
    evict, chance = Evicting(folder, daemon.process.pid), random.Random(0)
    left: list[int] = []

    def cold() -> None:
        evict()
        left.append(sum(evict.resident().values()) if len(left) % 50 == 0 else 0)

    for _ in range(rounds):
        print(f"page, cold: {pages(daemon, features, requests, cold, chance)}")
        print(f"page, warm: {pages(daemon, features, requests, lambda: None, chance)}")
    with watched(daemon.port, "pages, warm"):
        pages(daemon, features, requests, lambda: None, chance)
    print(f"  pages of the store in the cache before a cold request: {max(left)}; "
          f"the daemon's mappings were {'' if evict.paged_out else 'NOT '}paged out")  # fmt: skip
    for what in LISTS:
        with contextlib.ExitStack() as beside:
            if what == SLOWEST:
                beside.enter_context(watched(daemon.port, "the list above"))
            before, count = daemon.processor()[0], max(20, requests // 10)
            times = [daemon.get(f"/api/saes/wide/features?{what}")[0] for _ in range(count)]
            print(f"list {what:62} {spread(times)}; ran {(daemon.processor()[0] - before) / count:.1f} ms")
    ended = daemon.memory()
    print(f"memory: anonymous {begun[0]:.1f} → {ended[0]:.1f} MB, of files {begun[1]:.1f} → {ended[1]:.1f} MB, "
          f"grown by {sum(ended) - sum(begun):.1f} MB")  # fmt: skip


def add_labels(daemon: Daemon, features: int, count: int) -> None:
    """To so many of the features, each with a score."""
    chance, words = random.Random(1), ("number", "name", "line", "end", "of", "a", "module", "in", "code", "quote")
    nothing = dict.fromkeys(("tp", "fp", "tn", "fn", "failed", "examples"), 0)
    began, labelled = time.perf_counter(), chance.sample(range(features), min(count, features))
    for begin in range(0, len(labelled), 2000):
        labels = []
        for feature in labelled[begin : begin + 2000]:
            score = {"label": 1, "method": "tokens", "balanced_accuracy": chance.random(), **nothing}
            text = " ".join(chance.choices(words, k=4))
            labels.append({"feature": feature, "text": text, "provider": "tokens", "scores": [score]})
        assert daemon.post("/api/saes/wide/labels/import", {"labels": labels}) == 200
    print(f"labels: {len(labelled):,}, taken in within {time.perf_counter() - began:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", type=int, default=131_072)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--token-bytes", type=int, default=2, choices=(2, 4))
    parser.add_argument("--labels", type=int, default=100_000)
    parser.add_argument("--watch", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.watch:
        return watch(asked.watch)
    with tempfile.TemporaryDirectory() as data:
        folder = Path(data) / "features" / "wide" / "1"
        build(folder, asked.features, asked.token_bytes)
        sae = Path(data) / "saes" / "wide"
        sae.mkdir(parents=True)
        (sae / "recipe.json").write_text(json.dumps({"width": asked.features}))
        daemon = Daemon(Path(data))
        try:
            if asked.labels:
                add_labels(daemon, asked.features, asked.labels)
            measure(daemon, folder, asked.features, asked.requests, asked.rounds)
        finally:
            daemon.end()


if __name__ == "__main__":
    main()
