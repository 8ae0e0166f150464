"""Sources of text: what arrives in the dataset, in bounded memory, and what is left when the job ends early."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from run_job import events, folders, start_job
from text_sources import add, lines, stored, table

from mistudiod.paths import DiskFull, Paths
from mistudiod.specs import AddDataset
from mistudiod.worker import add_dataset
from mistudiod.worker.link import Asked, Link, Refused
from mistudiod.worker.text_formats import PIECE_CHARS


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def test_the_builtin_corpus_has_names_and_held_out_modules(data: Path) -> None:
    found = add(data, "builtin:python")
    assert found["columns"] == ["text", "name", "held_out"]
    assert json.loads((data / "datasets/d/dataset.json").read_text()) == found
    rows = stored(data)
    assert len(rows) == found["rows"] > 400
    assert sum(row["held_out"] for row in rows) == found["held_out_rows"] > 5
    assert sum(len(row["text"].encode()) for row in rows) == found["bytes"]
    assert [row["held_out"] for row in rows if row["name"] == "csv.py"] == [True]


def test_a_text_file_is_one_document(data: Path, source: Path) -> None:
    (source / "a.txt").write_bytes("\ufeffone\r\n\r\n\r\ntwø\n".encode())
    found = add(data, source / "a.txt")
    assert stored(data) == [{"text": "one\r\n\r\n\r\ntwø\n", "name": "a.txt"}]
    assert (found["rows"], found["bytes"], found["held_out_rows"]) == (1, 14, None)


def test_a_folder_is_read_in_order_with_all_its_formats(data: Path, source: Path) -> None:
    (source / "b").mkdir()
    (source / ".hidden").mkdir()
    (source / "b" / "x.py").write_text("x")
    (source / "b.md").write_text("b")
    (source / "a.TXT").write_text("a")
    (source / "blank.txt").write_text(" \n\t")
    (source / "z.png").write_bytes(b"\0\xff")
    (source / ".secret.txt").write_text("no")
    (source / ".hidden" / "y.txt").write_text("no")
    lines(source / "c.jsonl", {"text": "c", "name": "see", "held_out": True}, {"text": None, "held_out": None})
    table(source / "d.parquet", text=["d", " "], held_out=[False, True])
    found = add(data, source)
    assert [(row["name"], row["text"], row["held_out"]) for row in stored(data)] == [
        ("a.TXT", "a", False),
        ("b/x.py", "x", False),
        ("b.md", "b", False),
        ("see", "c", True),
        (None, "d", False),
    ]
    assert (found["rows"], found["blank_rows"], found["held_out_rows"]) == (5, 3, 1)


def test_another_column_can_hold_the_text(data: Path, source: Path) -> None:
    kinds = [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
    for i, kind in enumerate(kinds):
        table(source / f"{i}.parquet", body=pa.array([f"text {i}", None], kind), text=[1, 2], name=["n", "m"])
    found = add(data, source, text_column="body")
    assert stored(data) == [{"text": f"text {i}", "name": "n"} for i in range(4)]
    assert found["blank_rows"] == 4


def test_the_name_column_can_be_the_text(data: Path, source: Path) -> None:
    add(data, lines(source / "a.jsonl", {"name": "Ada"}), text_column="name")
    assert stored(data) == [{"text": "Ada"}]


@pytest.mark.parametrize("format_", ["txt", "jsonl", "parquet"])
def test_a_long_document_goes_on_in_further_rows(data: Path, source: Path, format_: str) -> None:
    text = "".join(f"line {i} of a long text, wörd\n" for i in range(3 * PIECE_CHARS // 25))
    path = source / f"a.{format_}"
    if format_ == "txt":
        path.write_text(text, encoding="utf-8")
    elif format_ == "jsonl":
        lines(path, {"text": text}, {"text": "short"})
    else:
        table(path, text=[text, "short"])
    found = add(data, path)
    rows = [row for row in stored(data) if row["text"] != "short"]
    assert "".join(row["text"] for row in rows) == text
    assert [row["continues"] for row in rows] == [False] + [True] * (len(rows) - 1)
    assert len(rows) >= 3
    assert all(row["text"].endswith("\n") and len(row["text"]) <= PIECE_CHARS for row in rows)
    assert found["rows"] == (1 if format_ == "txt" else 2)


def test_text_without_lines_or_spaces_is_cut_as_well(data: Path, source: Path) -> None:
    (source / "a.txt").write_text("é" * (2 * PIECE_CHARS + 5))
    (source / "b.txt").write_text("one two " * PIECE_CHARS)
    add(data, source)
    rows = stored(data)
    assert [len(row["text"]) for row in rows if row["name"] == "a.txt"] == [PIECE_CHARS, PIECE_CHARS, 5]
    pieces = [row["text"] for row in rows if row["name"] == "b.txt"]
    assert "".join(pieces) == "one two " * PIECE_CHARS
    assert all(piece.startswith(" ") for piece in pieces[1:])


def test_long_blank_beginnings_and_blank_documents_are_dropped(data: Path, source: Path) -> None:
    (source / "a.txt").write_text(" " * (3 * PIECE_CHARS) + "x")
    (source / "b.txt").write_text("\n" * (3 * PIECE_CHARS))
    lines(source / "c.jsonl", {"text": "\n" * (3 * PIECE_CHARS)})
    found = add(data, source)
    assert [(row["text"].strip(), row["continues"]) for row in stored(data)] == [("x", False)]
    assert (found["rows"], found["blank_rows"]) == (1, 2)


def test_a_source_larger_than_memory_is_streamed(data: Path, source: Path) -> None:
    line = json.dumps({"text": "a sentence that is told again and again. " * 50}) + "\n"
    (source / "a.jsonl").write_text(line * 20_000)  # 40 MB
    tracemalloc.start()
    try:
        found = add(data, source)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found["rows"] == 20_000
    assert peak < 20 << 20


def test_large_datasets_have_several_files(data: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(add_dataset, "_FILE_BYTES", 1000)
    monkeypatch.setattr(add_dataset, "_GROUP_ROWS", 100)
    add(data, lines(source / "a.jsonl", *({"text": str(i)} for i in range(1050))))
    names = folders(data / "datasets", "d")
    assert len(names) > 3 and names[:2] == ["data-00000.parquet", "data-00001.parquet"]
    assert [row["text"] for row in stored(data)] == [str(i) for i in range(1050)]


def test_progress_counts_the_bytes_of_the_source(data: Path, source: Path) -> None:
    path = table(source / "a.parquet", text=["some words"] * 10)
    said = [e for e in events(data, "add_dataset", source=str(path), name="d") if e["event"] == "progress"]
    size = path.stat().st_size
    assert (said[-1]["done"], said[-1]["total"], said[-1]["unit"]) == (pytest.approx(size), size, "bytes")


def test_a_job_that_died_after_the_rename_says_its_result_again(data: Path, source: Path) -> None:
    (source / "a.txt").write_text("text")
    first = add(data, source)
    shutil.rmtree(source)
    said = events(data, "add_dataset", source=str(source), name="d")
    assert said == [
        {"event": "artifact", "noun": "dataset", "name": "d"},
        {"event": "result", "result": first},
    ]


def test_a_name_that_is_taken_is_refused(data: Path, source: Path) -> None:
    (source / "a.txt").write_text("text")
    add(data, source)
    with pytest.raises(Refused, match="there is already a dataset called d") as caught:
        add(data, "builtin:python")
    assert caught.value.field == "name"


def test_file_names_need_not_be_utf8(data: Path, source: Path) -> None:
    path = os.fsencode(source) + b"/caf\xe9.txt"
    Path(os.fsdecode(path)).write_text("x")
    add(data, source)
    assert stored(data) == [{"text": "x", "name": "caf\ufffd.txt"}]


# What is left behind


def test_a_full_disk_is_said_before_anything_is_written(data: Path, source: Path) -> None:
    with open(source / "a.txt", "wb") as file:
        file.truncate(shutil.disk_usage(source).total)
    with pytest.raises(DiskFull, match="the disk is full"):
        add(data, source / "a.txt")
    assert folders(data, "datasets") == []


def test_a_stopped_job_leaves_nothing(data: Path, source: Path) -> None:
    (source / "a.txt").write_text("x")
    link = Link(data, Paths(data))
    link.asked = "stop"
    with pytest.raises(Asked):
        add_dataset.run(AddDataset(source=str(source), name="d"), link)
    assert folders(data, "datasets") == []


def test_a_killed_job_leaves_only_what_the_next_start_sweeps(data: Path, source: Path) -> None:
    row = json.dumps({"text": "a sentence that is told again and again. " * 500}) + "\n"
    with open(source / "a.jsonl", "w") as file:
        file.writelines(row for _ in range(10_000))  # 200 MB: seconds of work
    with start_job(data, "add_dataset", source=str(source), name="d") as worker:
        until(lambda: list((data / "datasets").glob(".partial-d-*/data-*")), worker)
        worker.send_signal(signal.SIGKILL)
    assert worker.returncode == -signal.SIGKILL
    assert folders(data, "datasets") == [f".partial-d-{worker.pid}"]
    Paths(data).sweep()
    assert folders(data, "datasets") == []


def until(happened: Any, worker: subprocess.Popen[bytes]) -> None:
    for _ in range(2000):
        if happened():
            return
        assert worker.poll() is None
        time.sleep(0.01)
    raise AssertionError("it took too long")


def test_adding_a_dataset_needs_no_torch() -> None:
    code = "import sys, mistudiod.worker.add_dataset, mistudiod.worker.tokenize, mistudiod.worker.sample_dataset\n"
    code += "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
