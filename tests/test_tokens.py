"""Packing: the windows on disk hold exactly the kept documents' tokens, in order, as a plain reference does it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mistudiod.engine.documents import Filters, Pieces, Seen, digest_of, held_out_by_hash
from mistudiod.engine.packing import Layout, NoFiller, TooLittleText, UnknownToken, pack
from mistudiod.engine.tokens import TokenWindows, Vocabulary

BOS, EOS, PAD = 1, 2, 0
NAMES = {"name": "t", "dataset": "d", "model": "m"}
Document = list[str]  # its pieces


def encode(text: str) -> list[int]:
    """One token per letter, none for a space or a bell."""
    return [3 + ord(letter) - ord("a") for letter in text if letter not in " \a"]


def vocabulary(bos: int | None = BOS, eos: int | None = EOS, size: int = 64, **more: Any) -> Vocabulary:
    return Vocabulary(size, bos, eos, None, special_ids=tuple(i for i in (bos, eos) if i is not None), **more)


def pieces(
    documents: Iterable[Document], held_out: Iterable[bool | None] | None = None, batch: int = 7
) -> list[Pieces]:
    """What comes from the tokenizers, ``batch`` pieces at a time."""
    documents = list(documents)
    sides = [None] * len(documents) if held_out is None else list(held_out)
    rows = [
        (text, i > 0, side) for document, side in zip(documents, sides, strict=True) for i, text in enumerate(document)
    ]
    return [_pieces(rows[i : i + batch]) for i in range(0, len(rows), batch)]


def _pieces(rows: list[tuple[str, bool, bool | None]]) -> Pieces:
    texts = [text for text, _, _ in rows]
    tokens = [encode(text) for text in texts]
    return Pieces(
        np.array([token for piece in tokens for token in piece], dtype=np.uint32),
        [len(piece) for piece in tokens],
        [continues for _, continues, _ in rows],
        [side for _, _, side in rows],
        [digest_of(text.encode()) for text in texts],
        [len(text.encode()) for text in texts],
        [len(text) for text in texts],
        [text.count("\a") for text in texts],
        ["a" in text for text in texts],
        ["zz" in text for text in texts],
    )


def packed(
    folder: Path, documents: Iterable[Document], context: int = 8, known: Vocabulary | None = None, **more: Any
) -> dict[str, Any]:
    held_out = more.pop("sides", None)
    batches = pieces(documents, held_out)
    return pack(batches, 1000, known or vocabulary(), Layout(context, **more), folder, NAMES)


# The reference


def kept(documents: list[Document], filters: Filters, dropped: dict[str, int]) -> list[int]:
    """Indices of the documents that the filters leave; counts the others by why."""
    found, seen = [], set()
    for i, document in enumerate(documents):
        text, tokens = "".join(document), encode("".join(document))
        share = text.count("\a") / len(text) if text else 0
        why = (
            "max_unprintable" if filters.max_unprintable is not None and share > filters.max_unprintable
            else "must_match" if filters.must_match and "a" not in text
            else "must_not_match" if any("zz" in piece for piece in document)
            else "empty" if not tokens
            else "shortest" if filters.shortest is not None and len(tokens) < filters.shortest
            else "longest" if filters.longest is not None and len(tokens) > filters.longest
            else "drop_duplicates" if filters.duplicates and tuple(document) in seen
            else None
        )  # fmt: skip
        seen.add(tuple(document))
        if why is None:
            found.append(i)
        else:
            dropped[why] = dropped.get(why, 0) + 1
    return found


def capped(texts: list[list[int]], cap: int | None) -> list[list[int]]:
    """The documents' tokens up to ``cap`` in all; those beyond it are not read."""
    found, left = [], cap
    for tokens in texts:
        if left is None:
            found.append(tokens)
        elif left:
            found.append(tokens[:left])
            left -= len(found[-1])
    return found


def windows_of(texts: list[list[int]], layout: Layout, body: int, separator: int | None, filler: int | None):
    """Windows without their BOS."""
    if not layout.packing:
        found = []
        for tokens in texts:
            for start in range(0, max(1, len(tokens) - layout.stride), body - layout.stride):
                part = tokens[start : start + body]
                found.append(part + [filler] * (body - len(part)))
        return found
    stream: list[int] = []
    for tokens in texts:
        stream += [separator] if stream and separator is not None else []
        stream += tokens
    return [stream[i : i + body] for i in range(0, len(stream) - body + 1, body)]


def reference(documents: list[Document], sides: list[bool | None] | None, layout: Layout, known: Vocabulary):
    """Windows to train on and held out, without BOS, or None where there are too few; documents; dropped by why."""
    dropped: dict[str, int] = {}
    which = kept(documents, layout.filters, dropped)
    texts = capped([encode("".join(documents[i])) for i in which], layout.tokens)
    which = which[: len(texts)]
    if sides is None:
        flags = [held_out_by_hash(digest_of(documents[i][0].encode()), layout.held_out) for i in which]
    else:
        flags = [bool(sides[i]) for i in which]
    body = layout.context - (known.leading(layout.bos) is not None)
    train, held_out = (
        windows_of(
            [t for t, flag in zip(texts, flags, strict=True) if flag == side],
            layout, body, known.separator, known.filler,
        )
        for side in (False, True)
    )  # fmt: skip
    if (
        len(train) + len(held_out) < 2
        or (not train and sides is not None)
        or (layout.stride and not (train and held_out))
    ):
        return None, which, dropped
    if not (train and held_out):
        both = train + held_out
        last = max(1, int(len(both) * layout.held_out + 1e-9))
        train, held_out = both[:-last], both[-last:]
    return (train, held_out), which, dropped


texts = st.text("abz \a", max_size=30)
filters = st.builds(
    Filters,
    st.none() | st.integers(1, 10),
    st.none() | st.integers(10, 40),
    st.booleans(),
    st.none() | st.sampled_from([0.0, 0.2, 0.5]),
    st.booleans(),
)


@st.composite
def corpora(draw: st.DrawFn) -> tuple[list[Document], list[bool | None] | None]:
    """Documents of one to three pieces; all of them say whether they are held out, or none."""
    count = draw(st.integers(0, 100) if draw(st.booleans()) else st.integers(0, 8))
    documents = [draw(st.lists(texts, min_size=1, max_size=3)) for _ in range(count)]
    return documents, draw(st.lists(st.booleans(), min_size=count, max_size=count)) if draw(st.booleans()) else None


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    context, packing = draw(st.integers(2, 40)), draw(st.booleans())
    stride = 0 if packing or context < 6 else draw(st.integers(0, context // 2))
    cap = draw(st.none() | st.integers(1, 400))
    bos = draw(st.sampled_from(["auto", "always", "never"]))
    held_out = draw(st.sampled_from([0.02, 0.3, 0.5]))
    return Layout(
        context, packing, stride, bos, cap, held_out, draw(filters if draw(st.booleans()) else st.just(Filters()))
    )


@settings(deadline=None, max_examples=150)
@given(corpora(), layouts(), st.sampled_from([None, BOS]), st.sampled_from([None, EOS]), st.integers(1, 9))
def test_windows_are_those_of_a_plain_reference(
    corpus: tuple[list[Document], list[bool | None] | None],
    layout: Layout,
    bos: int | None,
    eos: int | None,
    batch: int,
) -> None:
    documents, sides = corpus
    known = vocabulary(bos, eos, padding=PAD)
    lead = [] if known.leading(layout.bos) is None else [known.leading(layout.bos)]
    expected, which, dropped = reference(documents, sides, layout, known)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        batches = pieces(documents, sides, batch)
        if expected is None:
            with pytest.raises(TooLittleText):
                pack(batches, len(documents) * 3, known, layout, folder, NAMES)
            return
        train, held_out = expected
        facts: dict[str, Any] = pack(batches, len(documents) * 3, known, layout, folder, NAMES)
        windows = TokenWindows(folder)
        rows = windows.rows(np.arange(windows.train + windows.held_out)).tolist()
        assert rows[: windows.train] == [lead + window for window in train]
        assert rows[windows.train :] == [lead + window for window in held_out]
        assert sorted(path.name for path in folder.iterdir()) == ["tokenization.json", "tokens.bin"]
        assert facts["size_bytes"] == (folder / "tokens.bin").stat().st_size
    all_tokens = capped([encode("".join(documents[i])) for i in which], layout.tokens)
    counts = np.bincount([token for tokens in all_tokens for token in tokens], minlength=known.size)
    assert facts["documents"] == len(which) == sum(one["documents"] for one in facts["length_histogram"])
    assert facts["tokens"] == sum(map(len, all_tokens))
    assert {one["id"]: one["count"] for one in facts["most_frequent"]} == {i: n for i, n in enumerate(counts) if n}
    if layout.tokens is None or facts["tokens"] < layout.tokens:
        assert facts["dropped"] == dropped
        assert facts["documents_read"] == len(documents)
    if layout.packing:
        body = layout.context - len(lead)
        in_windows = facts["tokens"] + facts["separator_tokens"] - facts["dropped_tokens"]
        assert facts["windows"] * body == in_windows
    elif not layout.stride:
        assert facts["windows"] * (layout.context - len(lead)) == facts["tokens"] + facts["padding_tokens"]


# Held out


def test_held_out_documents_share_no_window_with_others(tmp_path: Path) -> None:
    facts = packed(tmp_path, [["a" * 50], ["b" * 50], ["c" * 50]], sides=[False, True, False])
    windows = TokenWindows(tmp_path)
    held_out = windows.rows(range(windows.train, windows.train + windows.held_out))
    assert set(held_out[:, 1:].flatten().tolist()) == {4}
    assert 4 not in windows.rows(range(windows.train))
    assert facts["held_out_by"] == "document"


def test_the_same_text_is_always_on_the_same_side_and_stays_held_out_in_a_larger_share() -> None:
    digests = [digest_of(str(i).encode()) for i in range(20_000)]
    some = {d for d in digests if held_out_by_hash(d, 0.02)}
    more = {d for d in digests if held_out_by_hash(d, 0.1)}
    assert some < more
    assert 320 < len(some) < 480
    assert 1800 < len(more) < 2200


def test_without_a_column_whole_documents_are_held_out_by_their_text(tmp_path: Path) -> None:
    documents = [["abcdefghijklmnopqrstuvwxyz"[i % 26] * (20 + i)] for i in range(200)]
    facts = packed(tmp_path, documents, held_out=0.1)
    windows = TokenWindows(tmp_path)
    rows = windows.rows(range(windows.train, windows.train + windows.held_out))[:, 1:]
    stream = "".join(" " if token == EOS else chr(token - 3 + ord("a")) for token in rows.flatten())
    texts = [text for (text,) in documents if held_out_by_hash(digest_of(text.encode()), 0.1)]
    assert 5 < len(texts) < 40
    assert " ".join(texts).startswith(stream)
    assert facts["held_out_by"] == "text"


def test_one_large_document_holds_out_its_last_windows(tmp_path: Path) -> None:
    facts = packed(tmp_path, [["a" * 5000]], 11)
    assert (facts["train_windows"], facts["held_out_windows"], facts["held_out_by"]) == (490, 10, "last windows")


def test_one_large_document_that_its_hash_would_hold_out_is_trained_on_too(tmp_path: Path) -> None:
    text = next(t for n in range(500, 9000) if held_out_by_hash(digest_of((t := "a" * n).encode()), 0.02))
    facts = packed(tmp_path, [[text]], 11)
    assert facts["held_out_by"] == "last windows"
    assert facts["train_windows"] > facts["held_out_windows"] > 0


def test_overlapping_windows_of_one_document_are_not_held_out_from_each_other(tmp_path: Path) -> None:
    with pytest.raises(TooLittleText, match="1 documents are too few for some to be held out"):
        packed(tmp_path, [["a" * 500]], packing=False, stride=3)


# Windows


def test_windows_begin_with_bos_and_mask_what_is_no_text(tmp_path: Path) -> None:
    packed(tmp_path, [["ab"], ["cd"]] * 20)
    windows = TokenWindows(tmp_path)
    rows = windows.rows([0])
    assert rows.dtype == np.int64
    assert rows.tolist() == [[BOS, 3, 4, EOS, 5, 6, EOS, 3]]
    assert windows.special_mask(rows).tolist() == [[True, False, False, True, False, False, True, False]]


def test_unpacked_windows_hold_one_document_each_and_padding_is_no_text(tmp_path: Path) -> None:
    facts = packed(tmp_path, [["abc"], ["abcdefghi"], ["z"]] * 20, packing=False, sides=[True, False, False] * 20)
    windows = TokenWindows(tmp_path)
    rows = windows.rows([0, 1, 2])
    assert rows.tolist() == [
        [BOS, 3, 4, 5, 6, 7, 8, 9],
        [BOS, 10, 11, EOS, EOS, EOS, EOS, EOS],
        [BOS, 28, EOS, EOS, EOS, EOS, EOS, EOS],
    ]
    assert windows.special_mask(rows).sum() == 1 + 6 + 7
    assert facts["policy"] == {"bos": BOS, "separator": None, "packed": False, "padding": EOS, "stride": 0}
    assert facts["padding_tokens"] == 20 * (4 + 5 + 6)


def test_with_a_stride_a_window_begins_with_the_end_of_the_one_before(tmp_path: Path) -> None:
    documents = [["abcdefghijk"], ["abcdefg"], ["q" * 9]]
    packed(tmp_path, documents, packing=False, stride=2, sides=[False, False, True])
    rows = TokenWindows(tmp_path).rows([0, 1, 2])
    shown = ["".join(chr(token - 3 + ord("a")) for token in row if token > EOS) for row in rows]
    assert shown == ["abcdefg", "fghijk", "abcdefg"]


def test_a_tokenizers_own_padding_is_used_and_is_special(tmp_path: Path) -> None:
    facts = packed(tmp_path, [["abc"]] * 4, packing=False, known=vocabulary(padding=5), sides=[True, False] * 2)
    assert TokenWindows(tmp_path).rows([0]).tolist() == [[BOS, 3, 4, 5, 5, 5, 5, 5]]
    assert facts["special_ids"] == [1, 2, 5]


def test_a_padding_token_without_an_embedding_is_not_used(tmp_path: Path) -> None:
    facts = packed(tmp_path, [["abc"]] * 4, packing=False, known=vocabulary(padding=64), sides=[True, False] * 2)
    assert facts["policy"]["padding"] == EOS


def test_padding_without_any_special_token_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoFiller, match="no special token to fill windows up with: turn packing on"):
        packed(tmp_path, [["abc"]] * 4, packing=False, known=vocabulary(None, None))


@pytest.mark.parametrize(
    ("bos", "trained_with_bos", "leading"),
    [("auto", True, BOS), ("auto", False, None), ("always", False, BOS), ("never", True, None)],
)
def test_windows_begin_as_the_policy_says(
    tmp_path: Path, bos: str, trained_with_bos: bool, leading: int | None
) -> None:
    facts = packed(tmp_path, [["abcdefgh" * 9]], known=vocabulary(trained_with_bos=trained_with_bos), bos=bos)
    assert facts["policy"]["bos"] == leading
    assert TokenWindows(tmp_path).rows([0])[0, 0] == (leading or 3)


@pytest.mark.parametrize(("size", "itemsize"), [(65536, 2), (65537, 4)])
def test_ids_take_two_bytes_as_long_as_they_fit(tmp_path: Path, size: int, itemsize: int) -> None:
    (batch,) = pieces([["a" * 16]])
    top = replace(batch, tokens=np.full(16, size - 1, dtype=np.uint32))
    facts = pack([top], 1, Vocabulary(size), Layout(8), tmp_path, NAMES)
    assert (tmp_path / "tokens.bin").stat().st_size == facts["size_bytes"] == 16 * itemsize
    assert TokenWindows(tmp_path).rows([0, 1]).tolist() == [[size - 1] * 8] * 2


def test_a_long_document_that_is_dropped_at_its_end_leaves_no_trace(tmp_path: Path) -> None:
    long = [["b" * 140_000], ["c" * 140_000, "c" * 140_000, "zz"], ["d" * 140_000]]
    for name, documents in (("with", long), ("without", [long[0], long[2]])):
        (tmp_path / name).mkdir()
        packed(tmp_path / name, documents)
    assert (tmp_path / "with/tokens.bin").read_bytes() == (tmp_path / "without/tokens.bin").read_bytes()


def test_more_tokens_than_are_held_in_memory_keep_their_order(tmp_path: Path) -> None:
    letters = np.random.default_rng(0).choice(list("abcdefgh"), size=(7, 50_003))
    documents = [["".join(row)] for row in letters]
    sides: list[bool | None] = [i == 3 for i in range(7)]
    for name, layout in (("packed", Layout(13)), ("padded", Layout(13, packing=False, stride=5))):
        expected, _, _ = reference(documents, sides, layout, vocabulary())
        assert expected is not None
        (tmp_path / name).mkdir()
        pack(pieces(documents, sides), 7, vocabulary(), layout, tmp_path / name, NAMES)
        windows = TokenWindows(tmp_path / name)
        rows = windows.rows(range(windows.train + windows.held_out))
        assert rows[:, 1:].tolist() == expected[0] + expected[1]


# Statistics and filters


def test_statistics_count_the_text_alone(tmp_path: Path) -> None:
    known = vocabulary(size=8)
    documents = [["é" * 10 + "a" * 30], ["b" * 20]]
    (batch,) = pieces([["a" * 40], ["b" * 20]])
    batch = replace(batch, text_bytes=[len("".join(document).encode()) for document in documents])
    facts = pack([batch], 2, replace(known, unknown=4), Layout(8), tmp_path, NAMES)
    assert facts["bytes_per_token"] == 70 / 60
    assert facts["mean_document_tokens"] == 30
    assert facts["unused_share"] == 6 / 8
    assert facts["vocabulary_covered"] == 2 / 8
    assert facts["unknown_share"] == 20 / 60
    assert facts["dropped_tokens"] == 61 % 7
    assert facts["length_histogram"] == [
        *({"from_tokens": 1 << i, "documents": 0} for i in range(4)),
        *({"from_tokens": 1 << i, "documents": 1} for i in (4, 5)),
    ]
    assert facts["most_frequent"] == [{"id": 3, "text": "3", "count": 40}, {"id": 4, "text": "4", "count": 20}]
    assert facts["least_frequent"] == facts["most_frequent"][::-1]
    assert json.loads((tmp_path / "tokenization.json").read_text()) == facts


def test_hashes_that_come_again_are_known(tmp_path: Path) -> None:
    digests = [digest_of(str(i % 3000).encode()) for i in range(4000)]
    with Seen(tmp_path / "seen", 3000) as seen:
        assert sum(seen.add(digest) for digest in digests) == 3000
        assert seen.add(bytes(16))
        assert not seen.add(bytes(16))
    assert list(tmp_path.iterdir()) == []


def test_nothing_left_names_the_filters_that_dropped_the_documents(tmp_path: Path) -> None:
    with pytest.raises(
        TooLittleText, match="no document is left of 4: 3 for shortest and 1 for must_match were dropped"
    ) as caught:
        packed(tmp_path, [["a"], ["ab"], ["ac"], ["b" * 90]], filters=Filters(shortest=9, must_match=True))
    assert caught.value.reason == "shortest"


def test_too_little_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TooLittleText, match="13 tokens of text do not fill two windows of 8 tokens") as caught:
        packed(tmp_path, [["a" * 13]])
    assert caught.value.reason is None
    with pytest.raises(TooLittleText, match=r"13 tokens .* \(of 2 documents 1 for longest were dropped\)"):
        packed(tmp_path, [["a" * 13], ["b" * 99]], filters=Filters(longest=50))


def test_text_that_is_all_held_out_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TooLittleText, match="nothing is left to train on"):
        packed(tmp_path, [["a" * 50]], sides=[True])


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownToken, match="token 28, but the model's embedding has only 20 rows"):
        packed(tmp_path, [["z" * 50]], known=vocabulary(size=20))


def test_a_separator_beyond_the_embedding_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownToken, match="token 70"):
        packed(tmp_path, [["a" * 50]], known=vocabulary(eos=70))


# Reading


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    packed(tmp_path, [["a" * 50]])
    with open(tmp_path / "tokens.bin", "r+b") as file:
        file.truncate(90)
    with pytest.raises(ValueError, match="has 90 bytes, not those of 7 windows of 8 tokens"):
        TokenWindows(tmp_path)


def test_a_folder_without_windows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a tokenization"):
        TokenWindows(tmp_path)


def test_windows_of_version_0_1_are_read() -> None:
    windows = TokenWindows(Path(__file__).parent / "data/v0.1.0/data/tokens/t")
    assert (windows.context, windows.train, windows.held_out) == (16, 177, 3)
    assert windows.special_mask(windows.rows([0]))[0].tolist() == [True] + [False] * 15


def test_progress_is_told_and_may_end_it(tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []

    def told(text_bytes: int, tokens: int) -> None:
        heard.append((text_bytes, tokens))
        if len(heard) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(pieces([["a" * 10]] * 50, batch=10), 50, vocabulary(), Layout(8), tmp_path, NAMES, told)
    assert heard == [(100, 90), (200, 190)]  # the last document may go on in the next batch
