"""Sources that cannot be read: one sentence that names what is wrong, and nothing left behind."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from run_job import folders
from text_sources import add, lines, table

from mistudiod.worker.link import Refused
from mistudiod.worker.source_files import IN_WORDS


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def refusal(data: Path, source: Path | str, field: str = "source", **fields: Any) -> str:
    """The sentence, after a look that nothing at all was left behind."""
    with pytest.raises(Refused) as caught:
        add(data, source, **fields)
    assert caught.value.field == field
    assert folders(data, "datasets") == []
    return str(caught.value)


def test_a_missing_path_is_refused(data: Path, source: Path) -> None:
    assert refusal(data, source / "nothing") == (
        f"there is no file or folder {source}/nothing; a dataset of the Hub is named as owner/name"
    )
    assert "no file or folder" in refusal(data, "wikitext")
    assert "no file or folder" in refusal(data, source / "a\0b")
    assert "no file or folder" in refusal(data, "texts/a.txt")


def test_a_relative_path_is_refused(data: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(source.parent)
    assert refusal(data, "source") == "source is a relative path: give the absolute path"


def test_an_unknown_builtin_is_refused(data: Path) -> None:
    assert "the only one is 'builtin:python'" in refusal(data, "builtin:wikipedia")


def test_a_folder_without_text_files_is_refused(data: Path, source: Path) -> None:
    (source / "a.png").write_bytes(b"x")
    assert refusal(data, source) == f"the folder {source} has no {IN_WORDS} file"


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
    assert "has no text: every document is blank (1 read)" in refusal(data, source)
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
    sentence = refusal(data, path, "text_column", text_column="text")
    assert sentence == f"{path} has no column 'text'; there are: 'body', 'name'"
    path = lines(source / "a.jsonl", {"body": "x", "\ud800": 1})
    sentence = refusal(data, path, "text_column", text_column="text")
    assert sentence == f"{path} has no column 'text'; there are: 'body', '\\ud800'"
    path = lines(source / "b.jsonl", {"text": "x"}, {"body": "x"})
    assert f"{path}, line 2 has no column 'text'" in refusal(data, path, "text_column")
    (source / "c.csv").write_text("a,b\n1,x\n")
    assert "there are: 'a', 'b'" in refusal(data, source / "c.csv", "text_column", text_column="text")


def test_a_column_of_numbers_is_refused(data: Path, source: Path) -> None:
    path = table(source / "a.parquet", text=[1, 2])
    sentence = refusal(data, path, "text_column", text_column="text")
    assert sentence == f"the column 'text' of {path} holds no text but int64"
    path = lines(source / "a.jsonl", {"text": "x"}, {"text": ["y"]})
    assert refusal(data, path, "text_column") == f"{path}, line 2: 'text' holds no text but [\"y\"]"


def test_no_column_of_text_is_refused_with_all_columns(data: Path, source: Path) -> None:
    path = table(source / "a.parquet", id=[1], tags=[["x"]])
    sentence = refusal(data, path, "text_column")
    assert sentence == f"{path} has no column of text; there are: 'id' (int64), 'tags' (list<element: string>)"
    path = lines(source / "a.jsonl", {"id": 1, "tags": ["x"], "meta": {}, "ok": True})
    assert "there are: 'id' (number), 'tags' (list), 'meta' (object), 'ok' (bool)" in refusal(data, path, "text_column")
    (source / "a.csv").write_text("a,b\n1,2.5\n,1e9\n")
    assert "a.csv has no column of text" in refusal(data, source / "a.csv", "text_column")


def test_two_columns_that_could_be_the_text_are_refused_with_their_names(data: Path, source: Path) -> None:
    path = table(source / "a.parquet", question=["x"], answer=["y"], id=[1])
    sentence = refusal(data, path, "text_column")
    assert sentence == f"the text of {path} could be in any of 'question', 'answer': say in which"
    path = lines(source / "a.jsonl", {"text": "x", "content": "y", "more": "z"})
    assert "could be in any of 'text', 'content': say" in refusal(data, path, "text_column")


def test_a_text_column_for_files_without_columns_is_refused(data: Path, source: Path) -> None:
    (source / "a.txt").write_text("x")
    assert "have no columns: leave text_column out" in refusal(data, source, "text_column", text_column="text")
    assert "have no columns" in refusal(data, "builtin:python", "text_column", text_column="text")


@pytest.mark.parametrize("field", ["split", "config"])
def test_what_only_the_hub_has_is_refused(data: Path, source: Path, field: str) -> None:
    (source / "a.txt").write_text("x")
    for where in (source, "builtin:python"):
        assert f"is no dataset of the Hub and has no {field}s" in refusal(data, where, field, **{field: "train"})


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("a.json", b'{"text": "x"', "item 1 is not JSON"),
        ("a.json", b'[{"text": "x"}', "ends in the middle of a list"),
        ("a.json", b'["x"]', "item 1 is not a JSON object"),
        ("a.json", b'[{"text": "x"}, 7]', "item 2 is not a JSON object"),
        ("a.json", b'{"text": "x\0"}', "is not text: byte 11 is NUL"),
        ("a.csv", b"a,b\nx\n", "line 2 has 1 cells, where line 1 names 2 columns"),
        ("a.csv", b"a,a\nx,y\n", "line 1 names a column twice"),
        ("a.csv", b"a\n\xff\n", "line 2 is not text: byte 0 is not UTF-8"),
        ("a.csv", b"a\nx\0\n", "line 2 is not text: byte 1 is NUL"),
        ("a.csv", b'a\n"x', "line 2 is not CSV"),
        ("a.arrow", b"ARROW1\0\0no batch at all", "is no undamaged arrow file"),
        ("a.arrow", b"nor this, which has no end", "is no undamaged arrow file"),
        ("a.jsonl.gz", b"not packed", "is no undamaged gz file"),
        ("a.txt.zst", b"not packed", "is no undamaged zst file"),
        ("a.txt.gz", gzip.compress(b"some text " * 1000, mtime=0)[:-30], "is no undamaged gz file: Truncated"),
        ("a.parquet.gz", b"", "is packed twice, for parquet files are packed inside: unpack it first"),
    ],
)
def test_other_damaged_files_are_refused(data: Path, source: Path, name: str, content: bytes, what: str) -> None:
    (source / name).write_bytes(content)
    sentence = refusal(data, source)
    assert sentence.startswith(f"{source}/{name}") and what in sentence, sentence


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


def test_a_sentence_can_name_a_file_whose_name_is_not_utf8(data: Path, source: Path) -> None:
    path = os.fsencode(source) + b"/caf\xe9.txt"
    Path(os.fsdecode(path)).write_bytes(b"\0")
    assert refusal(data, source) == f"{source}/caf?.txt is not text: byte 0 is NUL"
