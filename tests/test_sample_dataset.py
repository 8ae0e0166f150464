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


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def put_dataset(data: Path, records: list[dict[str, Any]]) -> None:
    add(data, lines(data.parent / "source.jsonl", *records))


def sample(data: Path, rows: int) -> dict[str, Any]:
    return run_job(data, "sample_dataset", dataset="d", rows=rows)


def test_a_preview_shows_documents_from_all_over(data: Path) -> None:
    put_dataset(data, [{"text": f"{i} " + "x" * 1000, "name": f"n{i}", "held_out": i > 5} for i in range(40)])
    found = sample(data, 4)
    assert found["dataset"] == "d"
    assert [row["name"] for row in found["rows"]] == ["n0", "n10", "n20", "n30"]
    assert [row["held_out"] for row in found["rows"]] == [False, True, True, True]
    assert found["rows"][1]["text"] == "10 " + "x" * 497


def test_a_preview_of_a_small_dataset_shows_all_of_it(data: Path) -> None:
    put_dataset(data, [{"text": "one"}, {"text": "two"}])
    assert sample(data, 20)["rows"] == [
        {"text": "one", "name": None, "held_out": None},
        {"text": "two", "name": None, "held_out": None},
    ]


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
