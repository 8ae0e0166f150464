"""Sources of text: what arrives in the dataset, and one clear sentence for all that can be wrong."""

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
import pyarrow.parquet as pq
import pytest
from run_job import events, folders, run_job, start_job

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


def add(data: Path, source: Path | str, **fields: Any) -> dict[str, Any]:
    return run_job(data, "add_dataset", source=str(source), name="d", **fields)


def stored(data: Path) -> list[dict[str, Any]]:
    paths = sorted((data / "datasets" / "d").glob("data-*.parquet"))
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


def refusal(data: Path, source: Path | str, field: str = "source", **fields: Any) -> str:
    """The sentence, after a look that nothing at all was left behind."""
    with pytest.raises(Refused) as caught:
        add(data, source, **fields)
    assert caught.value.field == field
    assert folders(data, "datasets") == []
    return str(caught.value)


def lines(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def table(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


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


# What is refused


def test_a_missing_path_is_refused(data: Path, source: Path) -> None:
    assert refusal(data, source / "nothing") == f"there is no file or folder {source}/nothing"
    assert "no file or folder" in refusal(data, "wikitext")
    assert "no file or folder" in refusal(data, source / "a\0b")
    assert "no file or folder" in refusal(data, "texts/a.txt")


@pytest.mark.parametrize(
    "hub", ["org/name", "datasets/org/name", "hf://org/name", "https://huggingface.co/datasets/o/n"]
)
def test_an_id_of_the_hub_is_refused(data: Path, hub: str) -> None:
    assert "downloading from the Hub is not built yet: give a file or folder" in refusal(data, hub)


def test_a_relative_path_is_refused(data: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(source.parent)
    assert refusal(data, "source") == "source is a relative path: give the absolute path"


def test_an_unknown_builtin_is_refused(data: Path) -> None:
    assert "the only one is 'builtin:python'" in refusal(data, "builtin:wikipedia")


def test_a_folder_without_text_files_is_refused(data: Path, source: Path) -> None:
    (source / "a.png").write_bytes(b"x")
    assert refusal(data, source) == f"the folder {source} has no .txt, .md, .py, .jsonl or .parquet file"


def test_an_unknown_format_is_refused(data: Path, source: Path) -> None:
    (source / "a.docx").write_bytes(b"x")
    assert "is of no known format: give a .txt" in refusal(data, source / "a.docx")


def test_a_pipe_is_refused(data: Path, source: Path) -> None:
    os.mkfifo(source / "a.txt")
    assert "neither a file nor a folder" in refusal(data, source / "a.txt")


def test_no_text_at_all_is_refused(data: Path, source: Path) -> None:
    (source / "a.txt").write_text(" \n")
    (source / "b.jsonl").write_text("\n")
    table(source / "c.parquet", text=pa.array([], pa.string()))
    assert "has no text: 1 documents, all of them blank" in refusal(data, source)
    (source / "d.txt").write_bytes(b"")
    assert "has no text" in refusal(data, source / "d.txt")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"abc\0", "byte 3 is NUL"),
        (b"abc\xff", "byte 3 is not UTF-8"),
        (b"abc\xe2\x82", "byte 3 is not UTF-8"),
        (b"\xff\xfea\0", "byte 3 is NUL"),
        (b"a" * ((1 << 20) - 1) + b"\xe2\x82" + b"a" * 10, f"byte {(1 << 20) - 1} is not UTF-8"),
        (b"a" * (3 << 20) + b"\xfe", f"byte {3 << 20} is not UTF-8"),
    ],
)
def test_a_binary_file_is_refused_with_the_offset(data: Path, source: Path, content: bytes, what: str) -> None:
    (source / "a.txt").write_text("fine")
    (source / "b.txt").write_bytes(content)
    assert refusal(data, source) == f"{source}/b.txt is not text: {what}"


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b"{", "line 3 is not JSON: Expecting property name"),
        (b"\xff", "line 3 is not JSON: 'utf-8' codec can't decode"),
        (b"[" * 100_000, "line 3 is not JSON"),
        (b"[1]", "line 3 is not a JSON object"),
        (b'{"text": "\\ud800"}', "line 3 has a \\u escape that is half a character"),
        (b'{"text": "x", "held_out": "no"}', "line 3: 'held_out' is neither true nor false"),
    ],
)
def test_a_bad_line_is_refused_with_its_number(data: Path, source: Path, line: bytes, what: str) -> None:
    path = source / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "good", "held_out": true}\n\n' + line + b"\n")
    assert f"{path}, {what}" in refusal(data, path)


def test_a_missing_column_is_refused_with_those_there_are(data: Path, source: Path) -> None:
    path = table(source / "a.parquet", body=["x"], name=["y"])
    assert refusal(data, path, "text_column") == f"{path} has no column 'text'; there are: 'body', 'name'"
    path = lines(source / "a.jsonl", {"body": "x", "\ud800": 1})
    sentence = refusal(data, path, "text_column")
    assert sentence == f"{path}, line 1 has no column 'text'; there are: 'body', '\\ud800'"
    path = lines(source / "b.jsonl", {"text": "x"}, {"body": "x"})
    assert f"{path}, line 2 has no column 'text'" in refusal(data, path, "text_column")


def test_a_column_of_numbers_is_refused(data: Path, source: Path) -> None:
    path = table(source / "a.parquet", text=[1, 2])
    assert refusal(data, path, "text_column") == f"the column 'text' of {path} holds no text but int64"
    path = lines(source / "a.jsonl", {"text": "x"}, {"text": ["y"]})
    assert refusal(data, path, "text_column") == f"{path}, line 2: 'text' holds no text but [\"y\"]"


def test_a_damaged_parquet_file_is_refused(data: Path, source: Path) -> None:
    path = source / "a.parquet"
    path.write_bytes(b"PAR1 is all it has")
    assert f"{path} is no undamaged parquet file" in refusal(data, path)
    table(path, text=[f"some text {i * i}" for i in range(10_000)])
    content = bytearray(path.read_bytes())
    content[200:20_000] = bytes(19_800)
    path.write_bytes(content)
    assert str(path) in refusal(data, path)
    not_utf8 = pa.array([b"fine", b"\xff\xfe"]).buffers()
    table(path, text=pa.Array.from_buffers(pa.string(), 2, not_utf8))
    assert f"{path} is no undamaged parquet file" in refusal(data, path)


def test_a_file_that_cannot_be_read_is_refused(data: Path, source: Path) -> None:
    (source / "a.txt").symlink_to("/proc/self/mem")  # reading it fails for everybody, root too
    assert refusal(data, source) == f"cannot read {source}/a.txt: Input/output error"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(data: Path, source: Path) -> None:
    (source / "a.txt").write_text("x")
    (source / "a.txt").chmod(0)
    assert refusal(data, source) == f"cannot read {source}/a.txt: Permission denied"


def test_file_names_need_not_be_utf8(data: Path, source: Path) -> None:
    path = os.fsencode(source) + b"/caf\xe9.txt"
    Path(os.fsdecode(path)).write_text("x")
    add(data, source)
    assert stored(data) == [{"text": "x", "name": "caf\ufffd.txt"}]
    shutil.rmtree(data)
    Path(os.fsdecode(path)).write_bytes(b"\0")
    assert refusal(data, source) == f"{source}/caf?.txt is not text: byte 0 is NUL"


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
