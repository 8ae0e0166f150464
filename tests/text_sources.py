"""Short ways to write sources of text, to add them, and to read what was stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from run_job import run_job


def add(data: Path, source: Path | str, **fields: Any) -> dict[str, Any]:
    return run_job(data, "add_dataset", source=str(source), name="d", **fields)


def stored(data: Path) -> list[dict[str, Any]]:
    paths = sorted((data / "datasets" / "d").glob("data-*.parquet"))
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


def lines(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def table(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path
