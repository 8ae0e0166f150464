"""Looking at a source of text before anything of it is stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from run_job import events, folders, run_job
from text_sources import lines, table

from mistudiod.events import MAX_LINE_BYTES
from mistudiod.worker.link import Refused

NOTHING = dict.fromkeys(("revision", "licence", "config", "configs", "split", "splits"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def preview(source: Path | str, **fields: Any) -> dict[str, Any]:
    """The result, after a look that nothing was stored."""
    data = Path(str(source)).parent / "data"
    found = run_job(data, "preview_dataset", source=str(source), **fields)
    assert folders(data, "datasets") == []
    return found


def test_the_builtin_corpus_can_be_looked_at() -> None:
    found = preview("builtin:python", rows=2)
    assert found.items() >= NOTHING.items()
    assert len(found["rows"]) == 2 and found["documents"] > 400 and found["bytes"] > 1_000_000
    assert found["columns"] == [{"name": "text", "type": "text"}, {"name": "name", "type": "text"}]


def test_a_text_file_is_shown_by_its_beginning(source: Path) -> None:
    (source / "a.txt").write_text("begin " * 1000)
    found = preview(source)
    assert found["rows"] == [{"text": ("begin " * 1000)[:500], "name": "a.txt"}]
    assert (found["files"], found["bytes"], found["documents"], found["text_column"]) == (1, 6000, 1, None)


def test_a_table_is_shown_with_all_its_columns(source: Path) -> None:
    for i in range(2):
        table(source / f"{i}.parquet", title=["t"] * 9, text=[f"{i} {n}" for n in range(9)], tags=[["a"]] * 9)
    found = preview(source, rows=2)
    assert found["rows"] == [{"title": "t", "text": f"0 {n}", "tags": '["a"]'} for n in range(2)]
    assert [column["type"] for column in found["columns"]] == ["text", "text", "list<element: string>"]
    assert (found["text_columns"], found["text_column"]) == (["title", "text"], "text")
    assert (found["files"], found["documents"]) == (2, 18)
    assert found["bytes"] == sum(path.stat().st_size for path in source.iterdir())


def test_what_could_be_the_text_is_listed_when_nothing_decides(source: Path) -> None:
    found = preview(lines(source / "a.jsonl", {"question": "x", "answer": "y", "n": 1.5, "no": None}))
    assert (found["text_columns"], found["text_column"]) == (["question", "answer"], None)
    assert found["rows"] == [{"question": "x", "answer": "y", "n": 1.5, "no": None}]
    assert found["documents"] is None


def test_of_a_large_file_only_the_beginning_is_read(source: Path) -> None:
    with open(source / "a.jsonl", "w") as file:
        file.writelines('{"text": "good"}\n' for _ in range(200))
        file.write("broken\n" * 1000)
    assert preview(source, rows=20)["rows"] == [{"text": "good"}] * 20


def test_a_preview_fits_in_one_line_whatever_it_shows(source: Path, tmp_path: Path) -> None:
    record = {f"column {i} \x01\ud800": "\x02" * 2000 for i in range(100)} | {"nan": float("nan"), "deep": [[["x"]]]}
    lines(source / "a.jsonl", *[record] * 20)
    said = events(tmp_path, "preview_dataset", source=str(source), rows=20)
    assert len(json.dumps(said[-1], allow_nan=False).encode()) < MAX_LINE_BYTES
    assert len(said[-1]["result"]["columns"]) == 60


def test_values_that_are_no_text_are_shown_as_such(source: Path) -> None:
    columns = {"blob": [b"\xff\x00"], "when": pa.array([0], pa.timestamp("s")), "inf": [float("inf")], "ok": [True]}
    pq.write_table(pa.table(columns), source / "a.parquet")
    assert preview(source)["rows"] == [
        {"blob": "2 bytes", "when": '"1970-01-01 00:00:00"', "inf": "Infinity", "ok": True}
    ]


def test_a_source_that_cannot_be_read_is_refused(source: Path, tmp_path: Path) -> None:
    for where, sentence in (
        (tmp_path / "none", "there is no file or folder"),
        (source, "has no .txt"),
        ("builtin:none", "the only one is 'builtin:python'"),
    ):
        with pytest.raises(Refused, match=sentence):
            preview(where)
    with pytest.raises(Refused, match="is no dataset of the Hub and has no splits"):
        preview(source, split="train")
    (source / "a.csv").write_bytes(b"\xff")
    with pytest.raises(Refused, match="byte 0 is not UTF-8"):
        preview(source)
