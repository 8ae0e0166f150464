"""One text as tokens, each with its place in the text's bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_job import run_job
from tiny_models import SEPARATOR, tiny_tokenizer
from tokenizers import Tokenizer, decoders, models, normalizers

from mistudiod.events import MAX_LINE_BYTES
from mistudiod.worker.link import Refused
from mistudiod.worker.preview_tokens import spans


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("data")
    tiny_tokenizer().save_pretrained(data / "files")
    (data / "models/m").mkdir(parents=True)
    model = {"path": str(data / "files"), "vocab_size": 320, "context": 64}
    (data / "models/m/model.json").write_text(json.dumps(model))
    return data


def preview(data: Path, text: str, model: str = "m") -> dict[str, Any]:
    return run_job(data, "preview_tokens", model=model, text=text)


def test_tokens_come_with_their_bytes_and_the_bos_before_them(data: Path) -> None:
    text = f"for é in names{SEPARATOR}"
    found = preview(data, text)
    ids = tiny_tokenizer().encode(text, add_special_tokens=False)
    assert found["ids"] == [0, *ids]
    assert found["special"] == [True, *(i == 0 for i in ids)]
    assert (found["starts"][0], found["ends"][0]) == (0, 0)
    raw = text.encode()
    parts = [raw[a:b] for a, b in zip(found["starts"], found["ends"], strict=True)]
    assert b"".join(parts) == raw
    assert parts[-1] == SEPARATOR.encode()
    assert found["texts"][1:] == [part.decode(errors="backslashreplace") for part in parts[1:]]
    assert "\\xc3" in found["texts"]
    assert (found["model"], found["tokens"], found["left_out"]) == ("m", len(ids) + 1, 0)


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=60))
def test_the_bytes_of_byte_level_tokens_are_the_whole_text(text: str) -> None:
    encoding = tiny_tokenizer().backend_tokenizer.encode(text, add_special_tokens=False)
    starts, ends = spans(text, encoding)
    assert all(a < b for a, b in zip(starts, ends, strict=True))
    assert starts == [0, *ends][: len(starts)]
    assert [*ends, 0][len(ends) - 1 if ends else 0] == len(text.encode())
    shown = tiny_tokenizer().backend_tokenizer
    written = [
        len(token) for token, i in zip(encoding.tokens, encoding.ids, strict=True) if shown.id_to_token(i) != SEPARATOR
    ]
    assert [b - a for a, b in zip(starts, ends, strict=True)] == written


def test_characters_that_fall_back_to_bytes_share_their_bytes_out() -> None:
    letters = {"<unk>": 0, "a": 1, "▁": 2} | {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    tokenizer = Tokenizer(models.BPE(letters, [], byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.ByteFallback()
    starts, ends = spans("a €a", tokenizer.encode("a €a"))
    assert (starts, ends) == ([0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6])


def test_a_long_text_is_cut_to_what_an_answer_may_hold(data: Path) -> None:
    found = preview(data, "日" * 20_000)
    assert found["tokens"] == 60_001
    assert found["left_out"] == 60_001 - len(found["ids"])
    assert len({len(found[name]) for name in ("ids", "texts", "starts", "ends", "special")}) == 1
    assert len(found["ids"]) > 1000
    assert len(json.dumps({"event": "result", "result": found}, ensure_ascii=False).encode()) < MAX_LINE_BYTES


def test_a_missing_model_is_refused(data: Path) -> None:
    with pytest.raises(Refused, match="there is no model called 'none': add it first"):
        preview(data, "text", "none")


def test_a_model_without_a_tokenizer_is_refused(data: Path) -> None:
    (data / "models/bare").mkdir()
    (data / "empty").mkdir()
    model = {"path": str(data / "empty"), "vocab_size": 320, "context": 64}
    (data / "models/bare/model.json").write_text(json.dumps(model))
    with pytest.raises(Refused, match=r"has no tokenizer\.json") as caught:
        preview(data, "text", "bare")
    assert caught.value.field == "model"
