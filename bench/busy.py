"""A training beside other programs: ``python bench/busy.py``; some 10 minutes, on a machine that is quiet but for it.

The train job in its own worker, on builtin:pico with its text, as the studio starts it, and with the spinning that
OpenMP has of its own accord (GOMP_SPINCOUNT=300000, libgomp's default). With nobody beside it, and with one program and
then one for each core that compute all the time. They take turns; medians of tokens/s without the first quarter.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREPARED = (
    {"kind": "add_model", "source": "builtin:pico", "name": "pico"},
    {"kind": "add_dataset", "source": "builtin:python", "name": "python"},
    {"kind": "tokenize", "dataset": "python", "model": "pico", "name": "text"},
)
TRAIN = {"kind": "train", "name": "s", "tokenization": "text", "hook": "blocks.3.hook_resid_post", "batch_tokens": 2048}
WAYS = {"as it is": {}, "spinning": {"GOMP_SPINCOUNT": "300000"}}


def work(data: Path, spec: dict[str, object], environ: dict[str, str]) -> Iterator[tuple[float, dict[str, object]]]:
    """What a worker tells at this job, and when. Raises SystemExit when it fails."""
    run = data / "runs" / "1"
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir(parents=True)
    (run / "spec.json").write_text(json.dumps({"job": 1, "data": str(data), "spec": spec}))
    command = [sys.executable, "-m", "mistudiod.worker", str(run)]
    own = {name: value for name, value in os.environ.items() if not name.startswith(("GOMP_", "OMP_", "KMP_"))}
    with subprocess.Popen(
        command, env=own | environ, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if line.startswith('{"event"'):
                yield time.perf_counter(), json.loads(line)
        if process.wait():
            raise SystemExit("".join(said[-20:]))


def speed(data: Path, tokens: int, environ: dict[str, str]) -> float:
    """Tokens/s of a training, without its first quarter."""
    shutil.rmtree(data / "saes", ignore_errors=True)
    came = [
        (at, float(str(event["done"])))
        for at, event in work(data, TRAIN | {"tokens": tokens}, environ)
        if event["event"] == "progress" and event["stage"] == "train"
    ]
    (began, first), (ended, last) = came[len(came) // 4], came[-1]
    return (last - first) / (ended - began)


@contextmanager
def beside(programs: int) -> Iterator[None]:
    """Programs that compute all the time, each in a session of its own, as those of somebody else are."""
    running = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True) for _ in range(programs)
    ]
    try:
        yield
    finally:
        for one in running:
            one.kill()
            one.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    cores, found = len(os.sched_getaffinity(0)), {}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        for spec in PREPARED:
            list(work(data, spec, {}))
        for programs in (0, 1, cores):
            runs: dict[str, list[float]] = {way: [] for way in WAYS}
            with beside(programs):
                for _ in range(asked.rounds):
                    for way, environ in WAYS.items():
                        runs[way].append(speed(data, 50_000 if programs else 250_000, environ))
                        print(
                            f"{programs} beside it, {way}: {runs[way][-1]:,.0f} tokens/s", file=sys.stderr, flush=True
                        )
            found[programs] = {way: statistics.median(each) for way, each in runs.items()}
    if asked.json:
        print(json.dumps({"cores": cores, "tokens_per_s": found}, indent=1))
        return
    print(f"{cores} cores; tokens/s\n")
    print("| programs beside it | as it is | spinning | times as fast |\n|---:|---:|---:|---:|")
    for programs, ways in found.items():
        ours, theirs = ways["as it is"], ways["spinning"]
        print(f"| {programs} | {ours:,.0f} | {theirs:,.0f} | {ours / theirs:.2f} |")


if __name__ == "__main__":
    main()
