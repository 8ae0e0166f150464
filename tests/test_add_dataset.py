"""Sources of text: what arrives in the dataset, in bounded memory, and what is left when the job ends early."""

from __future__ import annotations

import csv
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from run_job import events, folders, start_job
from text_sources import add, lines, stored, table

from mistudiod.paths import DiskFull, Paths
from mistudiod.specs import AddDataset
from mistudiod.worker import add_dataset, mixed
from mistudiod.worker.link import Asked, Link, Refused
from mistudiod.worker.text_formats import PIECE_CHARS
from mistudiod.worker.texts import open_source


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
    assert peak_bytes(lambda: add(data, source)) < 20 << 20
    assert len(stored(data)) == 20_000


@pytest.mark.parametrize("format_", ["parquet", "arrow"])
def test_a_row_group_of_any_size_is_read_in_parts(data: Path, source: Path, format_: str) -> None:
    text = "a sentence that is told again and again. " * 50
    table_ = pa.table({"text": [f"{i} {text}" for i in range(40_000)]})  # 80 MB, in one group
    if format_ == "parquet":
        pq.write_table(table_, source / "a.parquet", compression="none", use_dictionary=False)
    else:
        with pa.ipc.new_file(source / "a.arrow", table_.schema) as file:
            file.write_table(table_)
    del table_
    before = pa.total_allocated_bytes()
    pool = pa.default_memory_pool()
    peaks: list[int] = []

    def watched() -> None:
        for row in open_source(AddDataset(source=str(source), name="d"), Link(data, Paths(data))).rows:
            peaks.append(pool.bytes_allocated() - before)
            assert row.text

    assert peak_bytes(watched) < 20 << 20
    assert len(peaks) == 40_000 and max(peaks) < 20 << 20


def peak_bytes(work: Callable[[], Any]) -> int:
    """Of Python's own objects."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_every_format_and_packing_gives_the_same_rows(data: Path, source: Path) -> None:
    records = [{"text": f'a text, of \u2028 words\nand "quotes" {i}', "id": i} for i in range(500)]
    columns = pa.table({name: [record[name] for record in records] for name in ("text", "id")})
    lines(source / "a.jsonl", *records)
    (source / "b.json").write_text(json.dumps(records), encoding="utf-8")
    (source / "c.json").write_text("\n".join(json.dumps(record, indent=1) for record in records), encoding="utf-8")
    with open(source / "d.csv", "w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, ["id", "text"])
        writer.writeheader()
        writer.writerows(records)
    pq.write_table(columns, source / "e.parquet", row_group_size=100)
    with pa.ipc.new_stream(source / "f.arrow", columns.schema) as stream:
        stream.write_table(columns, max_chunksize=100)
    with pa.ipc.new_file(source / "g.arrow", columns.schema) as stream:
        stream.write_table(columns, max_chunksize=100)
    for path in sorted(source.iterdir()):
        if path.suffix != ".parquet":
            (source / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
            with pa.CompressedOutputStream(source / f"{path.name}.zst", "zstd") as packed:
                packed.write(path.read_bytes())
    for path in sorted(source.iterdir()):
        found = add(data, path, text_column="text")
        assert [row["text"] for row in stored(data)] == [record["text"] for record in records], path.name
        assert (found["text_column"], found["rows"], found["is_cut"]) == ("text", 500, False)
        shutil.rmtree(data)


def test_packed_files_may_be_several_put_together(data: Path, source: Path) -> None:
    (source / "a.txt.gz").write_bytes(gzip.compress(b"one ") + gzip.compress(b"two"))
    zstd = pa.Codec("zstd")
    (source / "b.txt.ZST").write_bytes(b"".join(zstd.compress(part).to_pybytes() for part in (b"three ", b"four")))
    add(data, source)
    assert [(row["name"], row["text"]) for row in stored(data)] == [
        ("a.txt.gz", "one two"),
        ("b.txt.ZST", "three four"),
    ]


@pytest.mark.parametrize(
    ("record", "column"),
    [
        ({"id": 1, "body": "x"}, "body"),
        ({"title": "t", "text": "x"}, "text"),
        ({"title": "t", "content": "x"}, "content"),
        ({"text": None, "content": "x"}, "content"),
    ],
)
def test_the_column_of_text_is_found(data: Path, source: Path, record: dict[str, Any], column: str) -> None:
    assert add(data, lines(source / "a.jsonl", record))["text_column"] == column
    assert [row["text"] for row in stored(data)] == ["x"]


def test_in_a_csv_file_numbers_are_no_text(data: Path, source: Path) -> None:
    (source / "a.csv").write_text("id,score,said,note\n1,2.5,some words,\n2,1e9,42,\n")
    assert add(data, source)["text_column"] == "said"
    assert [row["text"] for row in stored(data)] == ["some words", "42"]


def test_a_list_in_json_is_read_an_item_at_a_time(data: Path, source: Path) -> None:
    record = json.dumps({"text": "a sentence that is told again and again. " * 50})
    (source / "a.json").write_text(f"[{','.join([record] * 10_000)}]")  # 20 MB
    assert peak_bytes(lambda: add(data, source)) < 20 << 20
    assert len(stored(data)) == 10_000


# Cut short, and mixed


def test_no_more_rows_than_asked_for_are_taken(data: Path, source: Path) -> None:
    path = lines(source / "a.jsonl", *({"text": f"text {i}"} for i in range(100)))
    found = add(data, path, rows=10)
    assert [row["text"] for row in stored(data)] == [f"text {i}" for i in range(10)]
    assert (found["rows"], found["is_cut"], found["asked"]["rows"]) == (10, True, 10)
    shutil.rmtree(data)
    assert add(data, path, rows=100)["is_cut"] is False


def test_a_document_that_is_the_last_comes_whole(data: Path, source: Path) -> None:
    lines(source / "a.jsonl", {"text": "line\n" * PIECE_CHARS}, {"text": "next"})
    assert add(data, source, rows=1)["bytes"] == 5 * PIECE_CHARS


def test_no_more_bytes_than_asked_for_are_taken(data: Path, source: Path) -> None:
    lines(source / "a.jsonl", *({"text": "x" * 99} for _ in range(100)))
    found = add(data, source, bytes=1000)
    assert (found["rows"], found["bytes"], found["is_cut"]) == (11, 1089, True)
    shutil.rmtree(data)
    (source / "a.jsonl").unlink()
    (source / "a.txt").write_text("line\n" * PIECE_CHARS)
    found = add(data, source, bytes=1000)
    assert found["rows"] == 1 and found["bytes"] <= PIECE_CHARS and found["is_cut"]


def test_text_for_about_as_many_tokens_as_asked_for_is_taken(data: Path, source: Path) -> None:
    lines(source / "a.jsonl", *({"text": "x" * 100} for _ in range(100)))
    found = add(data, source, tokens=201)
    assert (found["rows"], found["bytes"], found["is_cut"], found["asked"]["tokens"]) == (11, 1100, True, 201)
    shutil.rmtree(data)
    said = events(data, "add_dataset", source=str(source), name="d", tokens=201)
    last = [event for event in said if event["event"] == "progress"][-1]
    assert (last["done"], last["total"], last["unit"]) == (1005, 1005, "bytes")


@pytest.mark.parametrize(
    ("asked", "rows"),
    [
        ({"rows": 3, "tokens": 100, "bytes": 1000}, 3),
        ({"rows": 50, "tokens": 100, "bytes": 1000}, 5),
        ({"rows": 50, "tokens": 1000, "bytes": 700}, 7),
    ],
)
def test_whatever_is_reached_first_ends_it(data: Path, source: Path, asked: dict[str, int], rows: int) -> None:
    lines(source / "a.jsonl", *({"text": "x" * 100} for _ in range(100)))
    said = events(data, "add_dataset", source=str(source), name="d", **asked)
    assert (said[-1]["result"]["rows"], said[-1]["result"]["is_cut"]) == (rows, True)
    steps = [event for event in said if event["event"] == "progress" and event["stage"] == "read"]
    assert {event["unit"] for event in steps} == {"rows"}
    assert (steps[-1]["done"], steps[-1]["total"]) == (rows, rows), "what has ended is complete"


def test_what_is_not_needed_of_a_large_file_is_not_read(data: Path, source: Path) -> None:
    with open(source / "a.jsonl", "w") as file:
        file.writelines('{"text": "good"}\n' for _ in range(300))
        file.write("broken\n")
    assert add(data, source, rows=300 - 1)["rows"] == 299


@pytest.mark.parametrize("format_", ["jsonl", "parquet"])
def test_a_seed_mixes_the_documents_always_the_same_way(data: Path, source: Path, format_: str) -> None:
    texts = [str(i) for i in range(5000)]
    for part in range(2):
        own = texts[part * 2500 :][:2500]
        if format_ == "jsonl":
            lines(source / f"{part}.jsonl", *({"text": text} for text in own))
        else:
            pq.write_table(pa.table({"text": own}), source / f"{part}.parquet", row_group_size=100)
    orders = []
    for seed in (1, 1, 2):
        assert add(data, source, shuffle_seed=seed)["asked"]["shuffle_seed"] == seed
        orders.append([row["text"] for row in stored(data)])
        shutil.rmtree(data)
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(texts) and orders[0] != texts


def test_pieces_of_a_document_stay_together_when_mixed(
    data: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mixed, "HELD_CHARS", 3 * PIECE_CHARS)
    texts = {f"{i:02}": f"{i:02} " + "word " * (i % 7 * PIECE_CHARS // 10) for i in range(60)}
    texts["60"] = "60 " + "word " * (2 * PIECE_CHARS)  # more than is held
    lines(source / "a.jsonl", *({"text": text} for text in texts.values()))
    add(data, source, shuffle_seed=0)
    documents: list[str] = []
    for row in stored(data):
        if row["continues"]:
            documents[-1] += row["text"]
        else:
            documents.append(row["text"])
    assert {text[:2]: text for text in documents} == texts
    assert documents != list(texts.values())


def test_progress_counts_rows_when_rows_are_asked_for(data: Path, source: Path) -> None:
    path = table(source / "a.parquet", text=["some words"] * 10)
    said = [e for e in events(data, "add_dataset", source=str(path), name="d", rows=4) if e["event"] == "progress"]
    assert (said[-1]["done"], said[-1]["total"], said[-1]["unit"]) == (4, 4, "rows")
    shutil.rmtree(data)
    said = [e for e in events(data, "add_dataset", source=str(path), name="d", bytes=25) if e["event"] == "progress"]
    assert (said[-1]["done"], said[-1]["total"], said[-1]["unit"]) == (25, 25, "bytes")


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


def test_only_what_is_asked_for_needs_space(data: Path, source: Path) -> None:
    with open(source / "a.txt", "wb") as file:
        file.write(b"line\n" * PIECE_CHARS)
        file.truncate(shutil.disk_usage(source).total)
    with pytest.raises(Refused, match="is NUL"):  # not that the disk is full
        add(data, source / "a.txt", bytes=5 * PIECE_CHARS + 1)
    assert folders(data, "datasets") == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_disk_that_fills_up_meanwhile_is_survived(source: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        with open(source / "a.jsonl", "w") as file:
            file.writelines(json.dumps({"text": os.urandom(5000).hex()}) + "\n" for _ in range(6000))  # 60 MB
        with pytest.raises(DiskFull, match=r"the disk is full: .* MB and a reserve of 17 MB"):
            add(disk, source, rows=5999)  # how many bytes these are nobody knows beforehand
        assert folders(disk, "datasets") == []
        assert add(disk, source, rows=100)["rows"] == 100
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


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
    for _ in range(10):
        with start_job(data, "add_dataset", source=str(source), name="d") as worker:
            begun = data / "datasets" / f".partial-d-{worker.pid}" / "data-00000.parquet"
            while worker.poll() is None and not begun.exists():
                time.sleep(0.01)
            worker.send_signal(signal.SIGKILL)
        if not (data / "datasets" / "d").exists():
            break
        shutil.rmtree(data)  # it was done before it was killed
    assert worker.returncode == -signal.SIGKILL
    assert folders(data, "datasets") == [f".partial-d-{worker.pid}"]
    Paths(data).sweep()
    assert folders(data, "datasets") == []


def test_adding_a_dataset_needs_no_torch() -> None:
    modules = ("add_dataset", "preview_dataset", "sample_dataset", "hub_dataset")
    code = f"import sys, {', '.join(f'mistudiod.worker.{module}' for module in modules)}\n"
    code += "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
