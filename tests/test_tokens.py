"""Packing: the windows on disk hold exactly the documents' tokens, in order, but for the end that fills no window."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mistudiod.engine.tokens import HELD_OUT_EVERY, Text, TokenWindows, TooLittleText, UnknownToken, Vocabulary, pack

BOS, EOS = 1, 2
NAMES = {"name": "t", "dataset": "d", "model": "m"}


def encode(texts: list[str]) -> list[list[int]]:
    """One token per letter, none for a space."""
    return [[3 + ord(letter) - ord("a") for letter in text if letter != " "] for text in texts]


def vocabulary(bos: int | None = BOS, eos: int | None = EOS, size: int = 64) -> Vocabulary:
    return Vocabulary(encode, size, bos, eos, None, tuple(i for i in (bos, eos) if i is not None))


def running(documents: list[list[Text]], separator: int | None) -> list[int]:
    """The tokens of whole documents one after another, the separator between any two that have a token."""
    found: list[int] = []
    for document in documents:
        tokens = encode(["".join(part.text for part in document)])[0]
        if found and tokens and separator is not None:
            found.append(separator)
        found += tokens
    return found


def whole_windows(stream: list[int], body: int) -> list[list[int]]:
    return [stream[i : i + body] for i in range(0, len(stream) - body + 1, body)]


def expected(documents: list[list[Text]], body: int, separator: int | None) -> tuple[list[list[int]], list[list[int]]]:
    """Windows without their BOS, to train on and held out, worked out the plain way."""
    flagged = [
        document[0].held_out if document[0].held_out is not None else i % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
        for i, document in enumerate(documents)
    ]
    train, held_out = (
        whole_windows(running([d for d, out in zip(documents, flagged, strict=True) if out == side], separator), body)
        for side in (False, True)
    )
    if not held_out and len(train) >= 2:
        last = max(1, len(train) // 50)
        train, held_out = train[:-last], train[-last:]
    return train, held_out


texts = st.text("abc ", max_size=30)


@st.composite
def corpora(draw: st.DrawFn) -> list[list[Text]]:
    """Documents of one to three parts; all of them say whether they are held out, or none."""
    says = draw(st.booleans())
    count = draw(st.integers(0, 120) if draw(st.booleans()) else st.integers(0, 8))
    documents = []
    for _ in range(count):
        held_out = draw(st.booleans()) if says else None
        parts = draw(st.lists(texts, min_size=1, max_size=3))
        documents.append([Text(part, held_out, continues=i > 0) for i, part in enumerate(parts)])
    return documents


@settings(deadline=None, max_examples=150)
@given(corpora(), st.integers(2, 40), st.sampled_from([None, BOS]), st.sampled_from([None, EOS]))
def test_windows_hold_the_documents_in_order(
    documents: list[list[Text]], context: int, bos: int | None, eos: int | None
) -> None:
    known = vocabulary(bos, eos)
    lead = [] if known.leading is None else [known.leading]
    train, held_out = expected(documents, context - len(lead), known.separator)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not train or not held_out:
            with pytest.raises(TooLittleText):
                pack((text for document in documents for text in document), known, context, folder, NAMES)
            return
        facts = pack((text for document in documents for text in document), known, context, folder, NAMES)
        windows = TokenWindows(folder)
        rows = windows.rows(np.arange(windows.train + windows.held_out)).tolist()
        assert rows[: windows.train] == [lead + window for window in train]
        assert rows[windows.train :] == [lead + window for window in held_out]
        assert [path.name for path in sorted(folder.iterdir())] == ["tokenization.json", "tokens.bin"]
    assert facts["documents"] == len(documents)
    assert facts["tokens"] == sum(len(encode([part.text])[0]) for document in documents for part in document)


def test_held_out_documents_share_no_window_with_others(tmp_path: Path) -> None:
    documents = [Text("a" * 50, False), Text("b" * 50, True), Text("c" * 50, False)]
    facts = pack(documents, vocabulary(), 8, tmp_path, NAMES)
    windows = TokenWindows(tmp_path)
    held_out = windows.rows(range(windows.train, windows.train + windows.held_out))
    assert set(held_out[:, 1:].flatten().tolist()) == {4}
    assert 4 not in windows.rows(range(windows.train))
    assert facts["held_out_by"] == "document"


def test_without_a_column_every_50th_document_is_held_out(tmp_path: Path) -> None:
    documents = [Text("b" * 20 if i % 50 == 49 else "a" * 20) for i in range(100)]
    facts = pack(documents, vocabulary(), 8, tmp_path, NAMES)
    windows = TokenWindows(tmp_path)
    assert (facts["held_out_by"], facts["held_out_windows"]) == ("every 50th document", 41 // 7)
    assert 4 not in windows.rows(range(windows.train))


def test_one_large_document_holds_out_its_last_windows(tmp_path: Path) -> None:
    facts = pack([Text("a" * 5000)], vocabulary(), 11, tmp_path, NAMES)
    assert (facts["train_windows"], facts["held_out_windows"], facts["held_out_by"]) == (490, 10, "last windows")


def test_windows_begin_with_bos_and_mask_what_is_no_text(tmp_path: Path) -> None:
    pack([Text("ab"), Text("cd")] * 20, vocabulary(), 8, tmp_path, NAMES)
    windows = TokenWindows(tmp_path)
    rows = windows.rows([0])
    assert rows.dtype == np.int64
    assert rows.tolist() == [[BOS, 3, 4, EOS, 5, 6, EOS, 3]]
    assert windows.special_mask(rows).tolist() == [[True, False, False, True, False, False, True, False]]


@pytest.mark.parametrize(("size", "itemsize"), [(65536, 2), (65537, 4)])
def test_ids_take_two_bytes_as_long_as_they_fit(tmp_path: Path, size: int, itemsize: int) -> None:
    top = Vocabulary(lambda texts: [[size - 1] * len(text) for text in texts], size)
    facts = pack([Text("a" * 16)], top, 8, tmp_path, NAMES)
    assert (tmp_path / "tokens.bin").stat().st_size == 16 * itemsize
    assert TokenWindows(tmp_path).rows([0, 1]).tolist() == [[size - 1] * 8] * 2
    assert facts["policy"] == {"bos": None, "separator": None, "packed": True}


def test_statistics_count_the_text_alone(tmp_path: Path) -> None:
    known = Vocabulary(lambda texts: [[3 if c == "é" else 4 for c in text] for text in texts], 8, BOS, EOS, unknown=4)
    facts = pack([Text("é" * 10 + "a" * 30), Text("b" * 20)], known, 8, tmp_path, NAMES)
    assert facts["bytes_per_token"] == 70 / 60
    assert facts["mean_document_tokens"] == 30
    assert facts["unused_share"] == 6 / 8
    assert facts["unknown_share"] == 50 / 60
    assert facts["dropped_tokens"] == 61 % 7
    assert json.loads((tmp_path / "tokenization.json").read_text()) == facts


def test_too_little_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TooLittleText, match="do not fill two windows of 8 tokens"):
        pack([Text("a" * 13)], vocabulary(), 8, tmp_path, NAMES)


def test_text_that_is_all_held_out_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TooLittleText, match="nothing is left to train on"):
        pack([Text("a" * 50, held_out=True)], vocabulary(), 8, tmp_path, NAMES)


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownToken, match="token 28, but the model's embedding has only 20 rows"):
        pack([Text("z" * 50)], vocabulary(size=20), 8, tmp_path, NAMES)


def test_a_separator_beyond_the_embedding_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownToken, match="token 70"):
        pack([Text("a" * 50)], vocabulary(eos=70), 8, tmp_path, NAMES)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    pack([Text("a" * 50)], vocabulary(), 8, tmp_path, NAMES)
    with open(tmp_path / "tokens.bin", "r+b") as file:
        file.truncate(90)
    with pytest.raises(ValueError, match="has 90 bytes, not those of 7 windows of 8 tokens"):
        TokenWindows(tmp_path)


def test_a_folder_without_windows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a tokenization"):
        TokenWindows(tmp_path)


def test_progress_is_told_and_may_end_it(tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []

    def told(documents: int, text_bytes: int) -> None:
        heard.append((documents, text_bytes))
        if len(heard) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack((Text("a" * 100) for _ in range(10_000)), vocabulary(), 8, tmp_path, NAMES, told)
    assert heard == [(2048, 204_800), (4096, 409_600)]


def test_more_tokens_than_are_held_in_memory_keep_their_order(tmp_path: Path) -> None:
    letters = np.random.default_rng(0).choice(list("abcdefgh"), size=(7, 100_003))
    documents = [[Text("".join(row), held_out=i == 3)] for i, row in enumerate(letters)]
    train, held_out = expected(documents, 12, EOS)
    pack((text for document in documents for text in document), vocabulary(), 13, tmp_path, NAMES)
    windows = TokenWindows(tmp_path)
    assert windows.rows(range(windows.train + windows.held_out))[:, 1:].tolist() == train + held_out
