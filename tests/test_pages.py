"""A feature store is read as it was written; what is damaged says so in a sentence."""

from __future__ import annotations

import codecs
import json
import re
import shutil
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
    text,
    windows,
    write_store,
    write_vocabulary,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from mistudiod.feature_files import AnotherFormat
from mistudiod.page_record import FILES, POSTINGS
from mistudiod.pages import Pages
from mistudiod.vocabulary import Vocabulary


def made(folder: Path, seed: int, d_sae: int, token_bytes: int = 2, **options: Any) -> tuple[Pages, list[Any]]:
    """A store of random features, some of them dead."""
    rng = np.random.default_rng(seed)
    read = windows(rng)
    records = [record(rng, read, d_sae, dead=bool(rng.random() < 0.3), **options) for _ in range(d_sae)]
    postings = [
        {int(place): float(np.float32(rng.random())) for place in rng.permutation(ROWS * CONTEXT)[: min(one.fired, 50)]}
        for one in records
    ]
    write_store(folder, records, read, token_bytes, postings=postings)
    pages = Pages(folder)
    for index, known in enumerate(postings):
        places, values = pages.postings(index)
        assert dict(zip(places, values, strict=True)) == known and list(places) == sorted(known)
    for row in range(ROWS):
        assert (pages.ids(row), pages.window(row)) == (read[row].tolist(), WINDOWS[row])
    return pages, records


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    d_sae=st.integers(1, 12),
    token_bytes=st.sampled_from((2, 4)),
    logits=st.booleans(),
    counts=st.tuples(*[st.integers(0, 6)] * 4),
    tops=st.integers(0, 5),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, seed: int, d_sae: int, token_bytes: int, **options: Any
) -> None:
    folder = tmp_path_factory.mktemp("stores") / "s"
    pages, records = made(folder, seed, d_sae, token_bytes, **options)
    for index, one in enumerate(records):
        found = json.loads(json.dumps(pages.page(index), allow_nan=False))
        texts = [example.pop("texts") for example in found["examples"]]
        expected = page(index, one)
        assert found == expected
        for example, shown in zip(found["examples"], texts, strict=True):
            whole = b"".join(VOCABULARY[id] for id in example["ids"]).decode(errors="replace")
            assert "".join(shown) == whole and len(shown) == len(example["ids"])
        first = pages.example(index)
        assert first == (pages.page(index)["examples"] or [None])[0]
        shared = ("index", "fired", "density", "max", "mean", "typical", "dead")
        assert pages.row(index) == {name: expected[name] for name in shared} | {
            "tokens": [one["text"] for one in expected["tokens"][:3]]
        }
    shutil.rmtree(folder)


def test_orders_are_as_sorting_says_with_the_dead_at_the_end(tmp_path: Path) -> None:
    pages, records = made(tmp_path / "s", 3, 300)
    everything = [page(index, one) for index, one in enumerate(records)]
    alive = [one for one in everything if not one["dead"]]
    dead = [one["index"] for one in everything if one["dead"]]
    assert dead
    for key in ("density", "max", "typical"):
        assert list(pages.order(key)) == [one["index"] for one in sorted(alive, key=lambda one: -one[key])] + dead
    by_text = [one["index"] for one in sorted(alive, key=lambda one: one["tokens"][0]["text"])]
    assert list(pages.order("token")) == by_text + dead


def test_features_are_found_by_a_part_of_a_top_token(tmp_path: Path) -> None:
    pages, records = made(tmp_path / "s", 5, 200)
    for wanted in ("import", " import", "mp", "m", "�", "", "日", "\xff", "\ud800", "\x00", "nowhere", "\n", "?"):
        expected = {n for n, one in enumerate(records) if any(wanted in text(int(id)) for id in one.tokens)}
        assert pages.with_token(wanted) == expected, wanted


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=4) | st.text(max_size=2).map(str.encode), max_size=12), st.data())
def test_texts_joined_are_the_exact_text(
    tmp_path_factory: pytest.TempPathFactory, tokens: list[bytes], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("vocabulary")
    write_vocabulary(folder, tokens)
    vocabulary = Vocabulary(folder)
    ids = data.draw(st.lists(st.integers(0, len(tokens) + 2), max_size=20))
    parts = [tokens[id] if id < len(tokens) else b"" for id in ids]
    texts = vocabulary.texts(ids)
    assert "".join(texts) == b"".join(parts).decode(errors="replace")
    assert len(texts) == len(ids)
    decoder, at = codecs.getincrementaldecoder("utf-8")(errors="replace"), 0
    for part, shown in zip(parts, texts[:-1], strict=False):
        at += len(part)
        assert shown == decoder.decode(part), "a character comes whole with the last of its tokens"


def test_a_character_over_several_tokens_comes_with_the_last_of_them(tmp_path: Path) -> None:
    write_vocabulary(tmp_path, [b"a", b"\xe6\x97", b"\xa5", b"\xe6", b"z"])
    assert Vocabulary(tmp_path).texts([0, 1, 2, 4]) == ["a", "", "日", "z"]
    assert Vocabulary(tmp_path).texts([2, 0, 3]) == ["�", "a", "�"]


@pytest.mark.parametrize("name", [*FILES, *POSTINGS])
def test_a_file_that_is_missing_or_cut_is_named(tmp_path: Path, name: str) -> None:
    made(tmp_path / "s", 1, 8)
    path = tmp_path / "s" / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=rf"damaged: {name} has .*; extract the features again$"):
        Pages(tmp_path / "s")
    path.unlink()
    with pytest.raises(ValueError, match=rf"damaged: {name} is missing; extract the features again$"):
        Pages(tmp_path / "s")


@pytest.mark.parametrize("field", ["d_sae", "context", "rows", "tokens", "token_bytes", "files", "postings"])
@pytest.mark.parametrize("value", [None, -1, "7", 3.5, True, 10**30, [], {}])
def test_a_manifest_that_says_something_else_is_refused_or_harmless(tmp_path: Path, field: str, value: Any) -> None:
    made(tmp_path / "s", 1, 8)
    path = tmp_path / "s" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    try:
        pages = Pages(tmp_path / "s")
    except ValueError as error:
        assert re.search("is damaged: .*; extract the features again$", str(error))
    else:
        assert field == "postings" or (field == "tokens" and pages.tokens == value > 0)


def test_no_manifest_and_another_format_are_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"manifest\.json cannot be read .*; extract the features again"):
        Pages(tmp_path)
    for text_, by in (("{}", "an older"), ('{"format": 2}', "a newer")):
        (tmp_path / "manifest.json").write_text(text_)
        with pytest.raises(AnotherFormat, match=f"was made by {by} version: extract the features again"):
            Pages(tmp_path)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damage_within_a_file_is_an_error_in_one_sentence_or_another_answer(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("damage") / "s"
    made(folder, 1, 6)
    path = folder / data.draw(st.sampled_from(FILES + POSTINGS))
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole)
    try:
        pages = Pages(folder)
        for index in range(6):
            pages.row(index)
            pages.page(index)
            pages.postings(index)
        pages.with_token("a")
    except ValueError as error:
        assert "extract the features again" in str(error)
    shutil.rmtree(folder)


def test_an_index_that_there_is_not_is_refused_with_the_range(tmp_path: Path) -> None:
    pages, _ = made(tmp_path / "s", 1, 8)
    for read in (pages.page, pages.row, pages.example, pages.postings):
        for index in (-1, 8):
            with pytest.raises(ValueError, match=r"^s has features 0 to 7$"):
                read(index)
