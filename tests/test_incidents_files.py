"""Rows 5, 12 and 14 of the incident table: files and lines that were made to do harm, or that were damaged.

Headers of safetensors are fuzzed in test_damaged_models and test_hostile_saes, pickles and archives there and in
test_formats_pickles. ``FUZZ_EXAMPLES=20000`` looks for longer.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from mistudiod.events import from_line
from mistudiod.specs import AddDataset
from mistudiod.worker.link import EXIT_MEMORY

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "300"))
ROOMY = 3 << 30  # bytes of addresses: what the libraries take, and little more

# -- what a worker says --------------------------------------------------------------------------------------------

VALID = [
    {"event": "progress", "stage": "read", "done": 1, "total": 2, "unit": "bytes"},
    {"event": "metric", "sae": "s", "step": 1, "values": {"fvu": 0.5}},
    {"event": "result", "result": {"a": [1, {"b": None}]}},
    {"event": "artifact", "noun": "dataset", "name": "d"},
    {"event": "failure", "code": "invalid", "message": "no", "field": "source"},
    {"event": "labels", "provider": "tokens", "labels": [{"feature": 1, "text": "x"}]},
    {"event": "wrote", "request": 1, "tokens": 2, "texts": [{"row": 0, "text": "x"}]},
]
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner))


@st.composite
def spoilt(draw: st.DrawFn) -> bytes:
    """A line of a worker of which one value, one byte or a stretch is another."""
    event = draw(st.sampled_from(VALID))
    how = draw(st.sampled_from(("value", "byte", "cut", "twice")))
    if how == "value":
        return json.dumps({**event, draw(st.sampled_from(sorted(event))): draw(JSON)}).encode()
    line = bytearray(json.dumps(event).encode())
    at = draw(st.integers(0, len(line) - 1))
    if how == "byte":
        line[at] = draw(st.integers(0, 255))
    return bytes(line[:at]) if how == "cut" else bytes(line[:at] + line if how == "twice" else line)


@settings(max_examples=EXAMPLES, deadline=None)
@given(spoilt() | st.binary(max_size=200) | JSON.map(lambda found: json.dumps(found).encode()))
def test_any_line_of_a_worker_is_an_event_or_none(line: bytes) -> None:
    found = from_line(line)
    if found is not None:
        again = json.dumps(found.model_dump(mode="json"), allow_nan=False)
        assert from_line(again.encode()) == found


# -- what is brought in --------------------------------------------------------------------------------------------

# A process of its own: what a damaged file does to a library is not to happen to the tests.
SPOIL = """
import json, os, random, sys, traceback
from pathlib import Path
from mistudiod.paths import Paths
from mistudiod.specs import PreviewDataset
from mistudiod.worker import preview_dataset
from mistudiod.worker.link import Link, Refused
class Silent(Link):
    def _send(self, event): pass
folder, times = Path(sys.argv[1]), int(sys.argv[2])
chance, told = random.Random(0), {"read": 0, "refused": 0}
for path in sorted((folder / "whole").iterdir()):
    whole = path.read_bytes()
    for n in range(times):
        data = bytearray(whole)
        for _ in range(chance.choice((1, 1, 3, 20))):
            at = chance.randrange(len(data))
            how = chance.randrange(4)
            if how == 0: data[at] = chance.randrange(256)
            elif how == 1: del data[at : at + chance.randrange(1, 40)]
            elif how == 2: data[at:at] = chance.randbytes(chance.randrange(1, 40))
            else: data[at : at + 8] = chance.choice((b"\\xff" * 8, b"\\0" * 8, b"\\x7f" + b"\\xff" * 7))
            data = data or bytearray(b"x")
        spoilt = folder / f"spoilt{''.join(path.suffixes)}"
        spoilt.write_bytes(data)
        try:
            preview_dataset.run(PreviewDataset(source=str(spoilt)), Silent(folder, Paths(folder)))
            told["read"] += 1
        except Refused as refused:
            told["refused"] += 1
            assert "\\n" not in str(refused) and len(str(refused)) < 700, refused
        except Exception as error:
            traceback.print_exc()
            raise SystemExit(f"{path.name}, {n}: {type(error).__name__}: {str(error)[:200]}")
print(json.dumps(told))
"""


def write_texts(folder: Path) -> None:
    """The same few rows in each format that there is."""
    import gzip

    import pyarrow.csv

    folder.mkdir()
    rows = pa.table({"text": [f"line {n} é\\u2028 日" for n in range(40)], "name": [f"n{n}" for n in range(40)]})
    lines = "".join(json.dumps({"text": text}) + "\n" for text in rows["text"].to_pylist()).encode()
    pq.write_table(rows, folder / "a.parquet")
    pq.write_table(rows, folder / "b.parquet", use_dictionary=False, compression="zstd")
    with pa.OSFile(str(folder / "c.arrow"), "wb") as file, pa.ipc.new_file(file, rows.schema) as writer:
        writer.write_table(rows)
    with pa.OSFile(str(folder / "d.arrow"), "wb") as file, pa.ipc.new_stream(file, rows.schema) as writer:
        writer.write_table(rows)
    pyarrow.csv.write_csv(rows, folder / "e.csv")
    (folder / "f.jsonl").write_bytes(lines)
    (folder / "g.json").write_text(json.dumps([{"text": "a"}, {"text": "b"}]))
    (folder / "h.txt").write_bytes(lines)
    (folder / "i.jsonl.gz").write_bytes(gzip.compress(lines))
    (folder / "j.jsonl.zst").write_bytes(pa.compress(lines, codec="zstd", asbytes=True))


def test_any_damaged_file_of_text_is_read_or_refused_in_a_sentence(tmp_path: Path) -> None:
    write_texts(tmp_path / "whole")
    command = [sys.executable, "-c", SPOIL, str(tmp_path), str(max(EXAMPLES // 10, 20))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    told: dict[str, int] = json.loads(done.stdout)
    assert told["refused"] > told["read"] / 4, told


def narrow() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (ROOMY, ROOMY))


def end_of(data: Path, source: Path) -> tuple[int, dict[str, Any]]:
    """How a worker of little memory ends that adds the dataset, and its last word."""
    run = data / "runs" / "1"
    run.mkdir(parents=True)
    spec = AddDataset(source=str(source), name="bomb").model_dump()
    (run / "spec.json").write_text(json.dumps({"job": 1, "data": str(data), "spec": spec}))
    with (run / "log.txt").open("wb") as log, subprocess.Popen(
        [sys.executable, "-m", "mistudiod.worker", str(run)],
        stdin=subprocess.PIPE, stdout=log, stderr=log, preexec_fn=narrow,
    ) as worker:  # fmt: skip
        code = worker.wait(120)
    return code, json.loads((run / "log.txt").read_text().strip().rpartition("\n")[2])


def test_a_table_that_unpacks_into_far_more_ends_its_worker_with_a_sentence(tmp_path: Path) -> None:
    """One text of 20 MB, said to be that of each of 16,384 rows: 330 GB out of a file of 1 MB."""
    rows = pa.array(np.zeros(16_384, dtype=np.int32))
    table = pa.table({"text": pa.DictionaryArray.from_arrays(rows, pa.array(["x" * (20 << 20)]))})
    pq.write_table(table, tmp_path / "bomb.parquet", dictionary_pagesize_limit=1 << 30)
    assert (tmp_path / "bomb.parquet").stat().st_size < 3_000_000
    code, last = end_of(tmp_path / "data", tmp_path / "bomb.parquet")
    assert (code, last["code"]) == (EXIT_MEMORY, "out_of_memory")
    assert last["message"].startswith("there was not enough memory") and "()" not in last["message"]
    assert [path.name for path in (tmp_path / "data").glob("datasets/*")] == []


def test_a_line_without_an_end_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    import gzip

    with gzip.open(tmp_path / "bomb.jsonl.gz", "wb", compresslevel=1) as file:
        file.write(b'{"text":"')
        for _ in range(400):
            file.write(b"a" * (1 << 20))
    code, last = end_of(tmp_path / "data", tmp_path / "bomb.jsonl.gz")
    assert (code, last["code"]) == (64, "invalid")
    assert "line 1 is longer than 256 MB" in last["message"]
