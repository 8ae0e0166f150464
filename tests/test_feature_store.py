"""What writes a feature store: the same bytes as written the plain way, nothing wrong, nothing half."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from feature_records import (
    CONTEXT,
    ROWS,
    VOCABULARY,
    WINDOWS,
    page,
    record,
    windows,
    write_read,
    write_store,
    write_vocabulary,
)
from plain_store import write_store as write_plain_store

from mistudiod.engine import feature_store
from mistudiod.engine.feature_store import StoreWriter


def some(count: int, seed: int = 0, **options: Any) -> tuple[np.ndarray, list[Any]]:
    rng = np.random.default_rng(seed)
    read = windows(rng)
    return read, [record(rng, read, count, dead=n % 4 == 3, **options) for n in range(count)]


@pytest.mark.parametrize(("logits", "together"), [(True, 1 << 14), (False, 7), (True, 1)])
def test_the_bytes_are_those_of_the_plain_way(
    tmp_path: Path, logits: bool, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_store, "SLICE", together)
    read, records = some(120, logits=logits)
    postings = [{n * 7: 0.5, n: 1.0} for n in range(120)]
    about = {"sae": "s", "id": "1", "job": 1}
    found = write_store(tmp_path / "a", records, read, postings=postings, **about)
    expected = write_plain_store(
        tmp_path / "b", [page(n, one) for n, one in enumerate(records)], vocabulary=VOCABULARY,
        windows=read.tolist(), numbers=WINDOWS.tolist(), postings=postings, **about,
    )  # fmt: skip
    assert found == expected == json.loads((tmp_path / "a" / "manifest.json").read_text())
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_the_manifest_has_the_hash_of_every_file_and_leads_a_stranger_to_the_columns(tmp_path: Path) -> None:
    read, records = some(50)
    manifest = write_store(tmp_path / "s", records, read, hook="blocks.0.hook_resid_post")
    assert manifest["hook"] == "blocks.0.hook_resid_post"
    files = {path.name: path.read_bytes() for path in (tmp_path / "s").iterdir() if path.name != "manifest.json"}
    hashes = {n: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for n, data in files.items()}
    assert manifest["files"] == hashes
    assert (manifest["dead"], manifest["alive"], manifest["features"]) == (12, 38 / 50, 50)
    for name, expected in (("fired", [one.fired for one in records]), ("max", [one.maximum for one in records])):
        where = manifest["columns"][name]
        column = np.frombuffer(files["columns.bin"], where["type"], 50, where["offset"])
        assert column.tolist() == expected


@pytest.mark.parametrize(
    "change",
    [
        {"maximum": float("inf")},
        {"total": float("nan")},
        {"squares": float("inf")},
        {"tokens_fired": np.zeros(1, np.uint32)},
        {"decoder_cosine": np.zeros(7, np.float32)},
    ],
)
def test_what_is_no_number_or_does_not_fit_together_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    _, records = some(1)
    writer = StoreWriter(tmp_path, 1, CONTEXT, ROWS, 1000, 2)
    with pytest.raises(ValueError, match=r"no finite numbers|equally long"):
        writer.add(dataclasses.replace(records[0], **change))
    examples = dataclasses.replace(records[0].examples, tokens=records[0].examples.tokens + np.uint32(1 << 16))
    with pytest.raises(ValueError, match="does not fit 2 bytes"):
        writer.add(dataclasses.replace(records[0], examples=examples))


def test_records_go_to_the_disk_as_they_come(tmp_path: Path) -> None:
    _, records = some(1)
    writer = StoreWriter(tmp_path, 20_000, CONTEXT, ROWS, 1000, 2)
    tracemalloc.start()
    for _ in range(20_000):
        writer.add(records[0])
    kept, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (tmp_path / "pages.bin").stat().st_size > 20e6
    assert kept < 10e6 and most < 15e6


def test_a_store_is_finished_in_little_memory_and_says_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_store, "SLICE", 500)
    read, records = some(4)
    writer, heard = StoreWriter(tmp_path, 20_000, CONTEXT, ROWS, 1000, 2), []
    for n in range(20_000):
        writer.add(records[n % 4])
    write_vocabulary(tmp_path, VOCABULARY)
    write_read(tmp_path, read, WINDOWS, 2)
    tracemalloc.start()
    manifest = writer.finish({}, lambda *numbers: heard.append(numbers))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 3e6 + 150 * 20_000  # what is read at once, and so much of each feature
    hashed = sum(file["bytes"] for name, file in manifest["files"].items() if name != "pages.bin")
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)
    assert len(heard) > 8 and hashed < heard[-1][0] == heard[-1][1] == sum(
        file["bytes"] for file in manifest["files"].values()
    )


def test_a_store_that_is_not_whole_is_not_finished(tmp_path: Path) -> None:
    _, records = some(2)
    writer = StoreWriter(tmp_path, 2, CONTEXT, ROWS, 1000, 2)
    writer.add(records[0])
    with pytest.raises(ValueError, match="1 features were added, and the SAE has 2"):
        writer.finish({})
    assert not (tmp_path / "manifest.json").exists()
