"""Trying the filters of a tokenization on some documents, before it is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from run_job import folders, run_job
from text_sources import add, lines
from tiny_models import tiny_model

from mistudiod.worker.link import Refused
from mistudiod.worker.text_formats import PIECE_CHARS


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a model and a dataset ``d``."""
    data = tmp_path_factory.mktemp("filters") / "data"
    run_job(data, "add_model", source=str(tiny_model("llama", data.parent / "model")), name="m")
    texts = [f"{n} short" for n in range(10)] + ["long " * 200 + str(n) for n in range(5)] + ["the same"] * 4
    add(data, lines(data.parent / "source.jsonl", *({"text": text} for text in [*texts, "bad \x00\x01\x02\x03"])))
    return data


def filtered(data: Path, **fields: Any) -> dict[str, Any]:
    found = run_job(data, "preview_filters", dataset="d", model="m", **fields)
    assert folders(data, "tokens") == []
    assert found["kept"] + sum(found["dropped"].values()) == found["documents"]
    return found


def test_each_filter_says_how_many_documents_it_leaves_out(made: Path) -> None:
    assert filtered(made) == {"dataset": "d", "documents": 20, "kept": 20, "dropped": {}}
    for fields, dropped in (
        ({"shortest": 100}, {"shortest": 15}),
        ({"longest": 100}, {"longest": 5}),
        ({"drop_duplicates": True}, {"drop_duplicates": 3}),
        ({"must_match": "short|same"}, {"must_match": 6}),
        ({"must_not_match": "^long"}, {"must_not_match": 5}),
        ({"max_unprintable": 0.1, "must_not_match": "^long"}, {"must_not_match": 5, "max_unprintable": 1}),
    ):
        assert filtered(made, **fields)["dropped"] == dropped


def test_the_same_documents_are_dropped_when_it_is_tokenized(made: Path, tmp_path: Path) -> None:
    fields: dict[str, Any] = {"longest": 500, "drop_duplicates": True, "must_not_match": "[0-4] short"}
    looked = filtered(made, **fields)
    found = run_job(made, "tokenize", dataset="d", model="m", name="t", context=8, **fields)
    for path in (made / "tokens" / "t").iterdir():
        path.unlink()
    (made / "tokens" / "t").rmdir()
    assert (looked["kept"], looked["dropped"]) == (found["documents"], found["dropped"])


def test_a_pattern_that_is_none_and_a_model_that_is_not_there_are_refused(made: Path) -> None:
    with pytest.raises(Refused, match="must_match is no regular expression") as caught:
        filtered(made, must_match="(")
    assert caught.value.field == "must_match"
    with pytest.raises(Refused, match="there is no model called 'none'"):
        run_job(made, "preview_filters", dataset="d", model="none")


def test_a_document_of_several_rows_is_one_and_a_long_one_does_not_go_on_for_ever(tmp_path: Path) -> None:
    data = tmp_path / "data"
    run_job(data, "add_model", source=str(tiny_model("llama", tmp_path / "model")), name="m")
    texts = [{"text": "word " * (PIECE_CHARS // 2)}, {"text": "a"}, {"text": "b"}]
    add(data, lines(tmp_path / "source.jsonl", *texts))
    assert filtered(data, shortest=1000) == {"dataset": "d", "documents": 3, "kept": 1, "dropped": {"shortest": 2}}
