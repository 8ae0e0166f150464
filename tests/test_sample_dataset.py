"""Looking at a few documents of a dataset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from run_job import events, run_job
from text_sources import add, lines

from mistudiod.events import MAX_LINE_BYTES
from mistudiod.worker.link import Refused
from mistudiod.worker.text_formats import PIECE_CHARS


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def put_dataset(data: Path, records: list[dict[str, Any]]) -> None:
    add(data, lines(data.parent / "source.jsonl", *records))


def sample(data: Path, rows: int, **fields: Any) -> dict[str, Any]:
    return run_job(data, "sample_dataset", dataset="d", rows=rows, **fields)


def test_a_preview_shows_documents_from_all_over(data: Path) -> None:
    put_dataset(data, [{"text": f"{i} " + "x" * 1000, "name": f"n{i}", "held_out": i > 5} for i in range(40)])
    found = sample(data, 4)
    assert found["dataset"] == "d"
    assert [row["name"] for row in found["rows"]] == ["n0", "n10", "n20", "n30"]
    assert [row["held_out"] for row in found["rows"]] == [False, True, True, True]
    assert found["rows"][1]["text"] == "10 " + "x" * 497


def test_a_document_is_shown_as_far_as_is_asked_for(data: Path) -> None:
    put_dataset(data, [{"text": "é" * 9000}, {"text": "short"}])
    found = [sample(data, 1, offset=0, chars=chars)["rows"][0] for chars in (1, 9000, 20_000)]
    assert [len(row["text"]) for row in found] == [1, 9000, 9000]
    assert {row["characters"] for row in found} == {9000}


def test_a_preview_of_a_small_dataset_shows_all_of_it(data: Path) -> None:
    put_dataset(data, [{"text": "one"}, {"text": "two"}])
    assert sample(data, 20)["rows"] == [
        {"row": 0, "text": "one", "characters": 3, "name": None, "held_out": None, "continues": False},
        {"row": 1, "text": "two", "characters": 3, "name": None, "held_out": None, "continues": False},
    ]


def test_a_dataset_can_be_paged_through(data: Path) -> None:
    put_dataset(data, [{"text": str(i)} for i in range(25)])
    folder = data / "datasets/d"
    whole = pq.read_table(folder / "data-00000.parquet")
    for i in range(3):
        pq.write_table(whole.slice(i * 10, 10), folder / f"data-{i:05}.parquet", row_group_size=4)
    pages = [sample(data, 7, offset=offset) for offset in range(0, 35, 7)]
    assert [len(page["rows"]) for page in pages] == [7, 7, 7, 4, 0]
    assert [row["text"] for page in pages for row in page["rows"]] == [str(i) for i in range(25)]
    assert [row["row"] for page in pages for row in page["rows"]] == list(range(25))
    assert {(page["dataset"], page["total"]) for page in pages} == {("d", 25)}
    assert [page["offset"] for page in pages] == list(range(0, 35, 7))


def test_pieces_of_a_long_document_are_told_apart(data: Path) -> None:
    put_dataset(data, [{"text": "word " * PIECE_CHARS}, {"text": "short"}])
    found = sample(data, 20, offset=0)
    assert [row["continues"] for row in found["rows"]] == [False, *[True] * 5, False]


def test_any_character_can_be_shown(data: Path) -> None:
    text = "\0\x1b[31m\x7f\ufeff\ufffd𝄞\r\n"
    put_dataset(data, [{"text": text}])
    assert sample(data, 1, offset=0)["rows"][0]["text"] == text


def test_a_preview_reads_across_files_and_row_groups(data: Path) -> None:
    put_dataset(data, [{"text": "replaced below"}])
    folder = data / "datasets/d"
    (folder / "data-00000.parquet").unlink()
    for i in range(3):
        table = pa.table({"text": [str(i * 10 + j) for j in range(10)]})
        pq.write_table(table, folder / f"data-{i:05}.parquet", row_group_size=4)
    assert [row["text"] for row in sample(data, 10)["rows"]] == [str(i) for i in range(0, 30, 3)]


def test_a_preview_fits_in_one_line(data: Path) -> None:
    put_dataset(data, [{"text": "\x01" * 600, "name": "\x02" * 4000}] * 20)
    said = events(data, "sample_dataset", dataset="d", rows=20)
    assert len(said[-1]["result"]["rows"]) == 20
    assert len(json.dumps(said[-1]).encode()) < MAX_LINE_BYTES


def test_a_preview_of_a_missing_dataset_is_refused(data: Path) -> None:
    with pytest.raises(Refused, match="there is no dataset called 'other'"):
        run_job(data, "sample_dataset", dataset="other")
