"""How fast a tokenization is beside the bare tokenizers library: ``python bench/tokenization.py [--rounds 3]``.

Ours is the whole job as the daemon runs it: a new process, parquet in, windows and statistics on disk out, hashes of
every document and duplicates dropped as well with --filters. Bare is one call of ``encode_batch`` (and of
``encode_batch_fast``) on the same texts, already in memory, whose tokens are thrown away; all cores for both. They take
turns, and medians are compared, of seconds and of the processor's seconds: where others use the machine, the latter say
more. Then the peak of memory of the job's processes (private, and shared parts by their
share) on a text four times as long.

The text is builtin:python, each copy with another number before every line, the tokenizer that of builtin:pico.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

import mistudiod.demo
from mistudiod.demo import corpus

PICO = Path(mistudiod.demo.__file__).parent / "pico"
FILTERS = {"drop_duplicates": True, "max_unprintable": 0.1, "must_not_match": "(?i)do not train on this"}
BARE = """
import sys, time, json
import pyarrow.parquet as pq
from tokenizers import Tokenizer
texts = pq.read_table(sys.argv[1])["text"].to_pylist()
tokenizer = Tokenizer.from_file(sys.argv[2])
began, before = time.perf_counter(), time.process_time()
getattr(tokenizer, sys.argv[3])(texts, add_special_tokens=False)
print(time.perf_counter() - began, time.process_time() - before)
"""


def make(data: Path, name: str, copies: int) -> int:
    """A dataset; returns the bytes of its text."""
    folder = data / "datasets" / name
    folder.mkdir(parents=True)
    rows = text_bytes = 0
    with pq.ParquetWriter(
        folder / "data-00000.parquet", pa.schema([("text", pa.string())]), compression="zstd"
    ) as file:
        for copy in range(copies):
            texts = [document.text.replace("\n", f"\n{copy} " if copy else "\n") for document in corpus.documents()]
            for i in range(0, len(texts), 100):
                file.write_table(pa.table({"text": texts[i : i + 100]}))
            rows, text_bytes = rows + len(texts), text_bytes + sum(len(text.encode()) for text in texts)
    (folder / "dataset.json").write_text(json.dumps({"name": name, "rows": rows, "bytes": text_bytes}))
    return text_bytes


def ours(data: Path, dataset: str, settings: dict[str, Any]) -> tuple[float, float, int]:
    """Seconds, seconds of the processor, and the peak of memory in bytes, looked at every 0.2 s."""
    shutil.rmtree(data / "tokens", ignore_errors=True)
    shutil.rmtree(data / "runs", ignore_errors=True)
    run = data / "runs" / "1"
    run.mkdir(parents=True)
    spec = {"kind": "tokenize", "dataset": dataset, "model": "pico", "name": "t", **settings}
    (run / "spec.json").write_text(json.dumps({"job": 1, "data": str(data), "spec": spec}))
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "true"}
    began, before, peak = time.perf_counter(), processor_s(), 0
    with open(run / "log.txt", "wb") as log:
        job = subprocess.Popen(
            [sys.executable, "-m", "mistudiod.worker", str(run)], stdin=subprocess.PIPE, stderr=log, env=environment
        )
        while job.poll() is None:
            peak = max(peak, memory(psutil.Process(job.pid)))
            time.sleep(0.2)
    took = time.perf_counter() - began
    if job.returncode:
        sys.exit((run / "log.txt").read_text())
    return took, processor_s() - before, peak


def processor_s() -> float:
    """What processes that have ended took."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def memory(process: psutil.Process) -> int:
    total = 0
    for one in (process, *process.children()):
        with contextlib.suppress(psutil.Error, FileNotFoundError):  # it has just ended
            total += one.memory_full_info().pss
    return total


def bare(data: Path, dataset: str, call: str) -> tuple[float, float]:
    """Seconds, and seconds of the processor."""
    file, tokenizer = data / "datasets" / dataset / "data-00000.parquet", PICO / "tokenizer.json"
    command = [sys.executable, "-c", BARE, str(file), str(tokenizer), call]
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "true"}
    said = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.split()
    return float(said[0]), float(said[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--copies", type=int, default=3, help="of some 10 MB each")
    parser.add_argument(
        "--filters", action="store_true", help="with duplicates, unprintable text and a pattern dropped"
    )
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        (data / "models" / "pico").mkdir(parents=True)
        model = {"path": str(PICO), "vocab_size": 4096, "context": 512}
        (data / "models" / "pico" / "model.json").write_text(json.dumps(model))
        text_bytes = make(data, "text", asked.copies)
        settings = FILTERS if asked.filters else {}
        times: dict[str, list[tuple[float, float]]] = {"job": [], "encode_batch": [], "encode_batch_fast": []}
        peaks = []
        for _ in range(asked.rounds):
            *took, peak = ours(data, "text", settings)
            times["job"].append((took[0], took[1])), peaks.append(peak)
            for call in ("encode_batch", "encode_batch_fast"):
                times[call].append(bare(data, "text", call))
        print(
            f"{text_bytes / 1e6:.1f} MB of text, {len(os.sched_getaffinity(0))} cores, {asked.rounds} rounds in turns"
        )
        medians = {
            name: [statistics.median(column) for column in zip(*pairs, strict=True)] for name, pairs in times.items()
        }
        for name, (wall_s, used_s) in medians.items():
            print(
                f"{name:18} {text_bytes / 1e6 / wall_s:6.2f} MB/s, the job at {wall_s / medians['job'][0]:.2f} of it; "
                f"{text_bytes / 1e6 / used_s:6.2f} MB a processor's second, the job at {used_s / medians['job'][1]:.2f}"
            )
        make(data, "long", 4 * asked.copies)
        longer = ours(data, "long", settings)[2]
        print(f"peak memory {max(peaks) / 1e6:.0f} MB; on four times the text {longer / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
