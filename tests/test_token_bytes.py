"""The bytes of every token, of tokenizers of each kind that language models come with."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

import mistudiod.demo
from mistudiod.engine.token_bytes import BYTE_OF, token_bytes, tokens_of, write_vocabulary
from tests.tiny_models import LINES, VOCABULARY, tiny_tokenizer

TEXTS = [
    *LINES,
    "naïve café, déjà vu\n",
    "  indented   spaces\t\n\n",
    "你好，世界 🙂👩‍👩‍👧 مرحبا",
    "1234567890",
    "don't",
]
SPLIT = r"(?i:'s|'t|'re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"


def _gpt2() -> Tokenizer:
    return tiny_tokenizer().backend_tokenizer


def _llama3() -> Tokenizer:
    """Splits by a pattern before it goes to bytes, and takes what is a token whole; Qwen does as much, behind NFC."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    _train(tokenizer, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    # Spaces as one token, as in Pythia, and a special token whose letters are no byte's.
    tokenizer.add_tokens([AddedToken("        ", normalized=False), AddedToken("<tool>", normalized=False)])
    tokenizer.add_special_tokens(["<｜begin▁of▁text｜>"])
    return tokenizer


def _sentencepiece(prepends: bool) -> Tokenizer:
    steps = [normalizers.Replace(" ", "▁")]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), *steps] if prepends else steps)
    _train(tokenizer, ["<unk>", "<s>", "</s>"])
    tokenizer.model = _with_fallback(tokenizer)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        + ([decoders.Strip(" ", 1, 0)] if prepends else [])
    )
    return tokenizer


def _with_fallback(tokenizer: Tokenizer) -> models.BPE:
    """The model of ``tokenizer`` with a token for each byte that it has no letter for."""
    model = json.loads(tokenizer.to_str())["model"]
    vocab = model["vocab"]
    vocab |= {f"<0x{byte:02X}>": len(vocab) + byte for byte in range(256)}
    merges = [tuple(merge) for merge in model["merges"]]
    return models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)


def _llama2() -> Tokenizer:
    return _sentencepiece(prepends=True)


def _gemma() -> Tokenizer:
    tokenizer = _sentencepiece(prepends=False)
    tokenizer.add_tokens([AddedToken("\n\n", normalized=False), AddedToken("▁▁", normalized=False)])
    tokenizer.add_special_tokens(["<start_of_turn>"])
    return tokenizer


def _metaspace() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    _train(tokenizer, ["<unk>"])
    tokenizer.model = _with_fallback(tokenizer)
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first")])
    return tokenizer


def _train(tokenizer: Tokenizer, first: list[str] | None = None, initial_alphabet: list[str] | None = None) -> None:
    alphabet = {"initial_alphabet": initial_alphabet} if initial_alphabet else {"limit_alphabet": 60}
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=first or [], show_progress=False, **alphabet)
    tokenizer.train_from_iterator(LINES, trainer)


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "gpt2": _gpt2,
    "llama3": _llama3,
    "llama2": _llama2,
    "gemma": _gemma,
    "metaspace": _metaspace,
}
MADE = {name: make() for name, make in KINDS.items()}
BYTES = {name: token_bytes(tokenizer, range(tokenizer.get_vocab_size())) for name, tokenizer in MADE.items()}
UNICODE = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)  # all that UTF-8 can write
PREPENDS = ("llama2", "metaspace")


def _joined(name: str, text: str) -> tuple[bytes, list[int]]:
    ids = MADE[name].encode(text, add_special_tokens=False).ids
    return b"".join(BYTES[name][i] for i in ids), ids


def _read(name: str, text: str) -> str:
    """The text that the tokenizer reads: without what its normalizer changes."""
    if name == "llama3":
        return normalizers.NFC().normalize_str(text)
    return text if name == "gpt2" else text.replace("▁", " ")


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("text", TEXTS)
def test_joined_the_tokens_of_a_text_are_its_bytes(name: str, text: str) -> None:
    joined, ids = _joined(name, text)
    assert joined.decode() == _before(name, text) + _read(name, text)
    assert MADE[name].decode(ids, skip_special_tokens=False) == _read(name, text)[_dropped(name, text) :]


def _before(name: str, text: str) -> str:
    """The space that the tokenizer puts before a text, if it is not empty."""
    return " " if name in PREPENDS and text and not _dropped(name, text) else ""


def _dropped(name: str, text: str) -> int:
    """Spaces that the tokenizer itself loses: Metaspace takes a text's own for the one that it would put there."""
    return int(name == "metaspace" and text.startswith(" "))


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=300, deadline=None)
@given(text=UNICODE)
def test_that_holds_for_any_text(name: str, text: str) -> None:
    joined, ids = _joined(name, text)
    assert joined.decode() == _before(name, text) + _read(name, text)
    decoded = MADE[name].decode(ids, skip_special_tokens=False)
    assert decoded == _read(name, text)[_dropped(name, text) :]


@pytest.mark.parametrize("name", ["gpt2", "llama3"])
def test_any_bytes_go_through_a_byte_level_tokenizer(name: str) -> None:
    letter = {byte: letter for letter, byte in BYTE_OF.items()}
    chance = random.Random(1)
    for _ in range(200):
        raw = bytes(chance.randrange(256) for _ in range(30))
        written = "".join(letter[byte] for byte in raw)
        ids = [token.id for token in MADE[name].model.tokenize(written)]
        assert b"".join(BYTES[name][i] for i in ids) == raw


@pytest.mark.parametrize(
    ("name", "text", "token"),
    [
        ("gpt2", "<|endoftext|>", "<|endoftext|>"),
        ("llama3", "a        b", "        "),
        ("llama3", "a<tool>b", "<tool>"),
        ("llama3", "<｜begin▁of▁text｜>a", "<｜begin▁of▁text｜>"),
        ("gemma", "a\n\nb", "\n\n"),
        ("gemma", "<start_of_turn>a", "<start_of_turn>"),
    ],
)
def test_an_added_token_stands_for_its_content(name: str, text: str, token: str) -> None:
    joined, ids = _joined(name, text)
    assert joined.decode() == text
    assert token.encode() in [BYTES[name][i] for i in ids]


def test_an_added_token_that_the_vocabulary_has_too_is_spelled_as_that_spells_it() -> None:
    tokenizer = _sentencepiece(prepends=False)
    known = next(token for token in ("▁▁▁▁", "▁▁") if tokenizer.token_to_id(token) is not None)
    tokenizer.add_tokens([AddedToken(known, normalized=False)])
    found = token_bytes(tokenizer, range(tokenizer.get_vocab_size()))
    assert found[tokenizer.token_to_id(known)] == known.replace("▁", " ").encode()


def test_ids_that_the_tokenizer_does_not_know_are_empty() -> None:
    assert token_bytes(tiny_tokenizer(), range(VOCABULARY + 3))[VOCABULARY:] == [b"", b"", b""]


def test_the_bundled_models_vocabulary_is_written_and_read_back(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(Path(mistudiod.demo.__file__).parent / "pico" / "tokenizer.json"))
    write_vocabulary(tokenizer, 4100, tmp_path)
    offsets = np.fromfile(tmp_path / "vocab.idx", "<u4")
    data = (tmp_path / "vocab.bin").read_bytes()
    assert len(offsets) == 4101 and offsets[0] == 0 and offsets[-1] == len(data)
    read = [data[a:b] for a, b in pairwise(offsets)]
    assert read == token_bytes(tokenizer, range(4100))
    text = "def größe(straße: str) -> int:  # 🙂\n    return len(straße)\n"
    assert b"".join(read[i] for i in tokenizer.encode(text).ids).decode() == text


def test_a_vocabulary_with_holes_reaches_to_its_highest_id() -> None:
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 7}, unk_token="a"))
    assert (tokenizer.get_vocab_size(), tokens_of(tokenizer)) == (2, 8)
    tokenizer.add_tokens([AddedToken("c")])
    assert tokens_of(tokenizer) == max(tokenizer.get_vocab().values()) + 1
    assert tokens_of(Tokenizer(models.WordLevel({}, unk_token="a"))) == 0
