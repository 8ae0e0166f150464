"""Tokenizing a dataset of the studio for a model of the studio."""

from __future__ import annotations

import json
import shutil
import signal
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from run_job import events, folders, run_job, start_job
from tiny_models import LINES, tiny_model, tiny_tokenizer
from transformers import AutoTokenizer

from mistudiod.engine.tokens import TokenWindows
from mistudiod.paths import Paths
from mistudiod.specs import Tokenize
from mistudiod.worker import tokenize
from mistudiod.worker.link import Asked, Link, Refused
from mistudiod.worker.stored_dataset import stored_dataset
from mistudiod.worker.text_formats import PIECE_CHARS
from mistudiod.worker.tokenize import _texts, read_vocabulary

DOCUMENTS = [f"# file {i}\n" + "".join(LINES[i % 4 :]) for i in range(120)]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model("gpt2", tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def data(tmp_path: Path, model_folder: Path) -> Path:
    """A studio with the model ``tiny`` and the dataset ``d``."""
    data = tmp_path / "data"
    put_model(data, model_folder)
    put_dataset(data, [{"text": text} for text in DOCUMENTS])
    return data


def put_model(data: Path, folder: Path, **facts: Any) -> None:
    info = {"name": "tiny", "path": str(folder), "vocab_size": 320, "context": 64, **facts}
    (data / "models" / "tiny").mkdir(parents=True, exist_ok=True)
    (data / "models" / "tiny" / "model.json").write_text(json.dumps(info))


def put_dataset(data: Path, records: list[dict[str, Any]]) -> None:
    path = data.parent / "source.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    shutil.rmtree(data / "datasets", ignore_errors=True)
    run_job(data, "add_dataset", source=str(path), name="d")


def tokens_of(data: Path, context: int = 32) -> dict[str, Any]:
    return run_job(data, "tokenize", dataset="d", model="tiny", name="t", context=context)


def refusal(data: Path, field: str, context: int = 32) -> str:
    """The sentence, after a look that nothing at all was left behind."""
    with pytest.raises(Refused) as caught:
        tokens_of(data, context)
    assert caught.value.field == field
    assert folders(data, "tokens") == []
    return str(caught.value)


def test_the_windows_decode_to_the_documents(data: Path) -> None:
    found = tokens_of(data)
    assert json.loads((data / "tokens/t/tokenization.json").read_text()) == found
    windows = TokenWindows(data / "tokens/t")
    train = windows.rows(range(windows.train))
    assert set(train[:, 0]) == {0}
    kept = [text for i, text in enumerate(DOCUMENTS) if i % 50 != 49]
    text = tiny_tokenizer().decode(train[:, 1:].flatten())
    assert "<|endoftext|>".join(kept).startswith(text)
    assert found["documents"] == 120
    assert found["held_out_by"] == "every 50th document"
    assert found["dtype"] == "<u2"
    assert found["special_ids"] == [0]
    assert found["policy"] == {"bos": 0, "separator": 0, "packed": True}


def test_documents_of_the_held_out_column_are_held_out(data: Path) -> None:
    put_dataset(data, [{"text": text, "held_out": i < 3} for i, text in enumerate(DOCUMENTS)])
    assert tokens_of(data)["held_out_by"] == "document"
    windows = TokenWindows(data / "tokens/t")
    held_out = windows.rows(range(windows.train, windows.train + windows.held_out))[:, 1:].flatten()
    assert "<|endoftext|>".join(DOCUMENTS[:3]).startswith(tiny_tokenizer().decode(held_out))


def test_a_long_document_has_no_separator_inside(data: Path) -> None:
    text = "".join(f"print({i})\n" for i in range(PIECE_CHARS // 8))
    put_dataset(data, [{"text": text}, {"text": "the end"}])
    assert pq.read_table(data / "datasets/d/data-00000.parquet")["continues"].to_pylist() == [False, True, False]
    found = tokens_of(data)
    assert found["documents"] == 2
    windows = TokenWindows(data / "tokens/t")
    stream = windows.rows(np.arange(windows.train + windows.held_out))[:, 1:].flatten()
    assert stream.tolist() == tiny_tokenizer().encode(text, add_special_tokens=False)[: len(stream)]
    assert (stream == 0).sum() == 0


def test_a_dataset_larger_than_memory_is_streamed(data: Path) -> None:
    path = data / "datasets/d/data-00000.parquet"
    with pq.ParquetWriter(path, pa.schema([("text", pa.string())])) as writer:
        for _ in range(40):
            writer.write_table(pa.table({"text": ["print(name)\n" * 10_000] * 8}))  # 1 MB; 40 MB in all
    texts = _texts(stored_dataset(Link(data, Paths(data)), "d"))
    tracemalloc.start()
    try:
        assert sum(len(text.text) for text in texts) == 40 * 8 * 120_000
        assert tracemalloc.get_traced_memory()[1] < 5 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "tokens", [{}, {"bos_token": "<s>"}, {"eos_token": "</s>", "unk_token": "<u>", "pad_token": "<p>"}]
)
def test_special_tokens_are_those_that_transformers_finds(tmp_path: Path, tokens: dict[str, str]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_tokenizer_folder(tmp_path), **tokens)
    tokenizer.save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / "config.json").write_text('{"bos_token_id": 7, "eos_token_id": [8, 9]}')
    found = read_vocabulary(tmp_path / "saved", 330)
    assert (found.bos, found.eos) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert found.unknown == tokenizer.unk_token_id
    assert set(found.special_ids) >= set(tokenizer.all_special_ids)
    texts = [*DOCUMENTS[:3], "naïve <|endoftext|> text"]
    assert found.encode(texts) == tokenizer(texts, add_special_tokens=False)["input_ids"]


def tiny_tokenizer_folder(folder: Path) -> Path:
    tiny_tokenizer().save_pretrained(folder)
    return folder


def test_special_tokens_come_from_the_models_config_when_the_tokenizers_says_nothing(tmp_path: Path) -> None:
    tiny_tokenizer_folder(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    (tmp_path / "config.json").write_text('{"bos_token_id": 5, "eos_token_id": [6, 7]}')
    found = read_vocabulary(tmp_path, 320)
    assert (found.bos, found.eos, found.special_ids) == (5, 6, (0, 5, 6))


def test_a_tokenizer_that_truncates_and_pads_does_neither_here(tmp_path: Path) -> None:
    backend = tiny_tokenizer().backend_tokenizer.__class__.from_str(tiny_tokenizer().backend_tokenizer.to_str())
    backend.enable_truncation(4)
    backend.enable_padding(pad_token="<|endoftext|>")
    backend.save(str(tmp_path / "tokenizer.json"))
    assert read_vocabulary(tmp_path, 320).encode(["for name in names", ""]) == [
        tiny_tokenizer().encode("for name in names", add_special_tokens=False),
        [],
    ]


def test_a_model_without_special_tokens_gets_windows_without_bos(data: Path, tmp_path: Path) -> None:
    folder = tiny_tokenizer_folder(tmp_path / "bare")
    (folder / "tokenizer_config.json").write_text('{"bos_token": null, "eos_token": null}')
    put_model(data, folder)
    found = tokens_of(data)
    assert found["policy"] == {"bos": None, "separator": None, "packed": True}
    first = TokenWindows(data / "tokens/t").rows([0])[0]
    assert DOCUMENTS[0].startswith(tiny_tokenizer().decode(first))


def test_progress_goes_up_to_the_bytes_of_the_text(data: Path) -> None:
    said = events(data, "tokenize", dataset="d", model="tiny", name="t", context=16)
    steps = [event for event in said if event["event"] == "progress"]
    total = sum(len(text.encode()) for text in DOCUMENTS)
    assert (steps[0]["done"], steps[-1]["done"], steps[-1]["total"], steps[-1]["unit"]) == (0, total, total, "bytes")
    assert [event["event"] for event in said[-2:]] == ["artifact", "result"]


def test_a_job_that_died_after_the_rename_says_its_result_again(data: Path) -> None:
    first = tokens_of(data)
    shutil.rmtree(data / "datasets")
    assert tokens_of(data) == first
    with pytest.raises(
        Refused, match="there is already a tokenization called t, of d for tiny in windows of 32"
    ) as caught:
        tokens_of(data, context=16)
    assert caught.value.field == "name"


# What is refused


def test_a_missing_dataset_or_model_is_refused(data: Path) -> None:
    shutil.rmtree(data / "models")
    assert refusal(data, "model") == "there is no model called 'tiny': add it first"
    shutil.rmtree(data / "datasets")
    assert refusal(data, "dataset") == "there is no dataset called 'd': add it first"


def test_a_model_whose_folder_is_gone_is_refused(data: Path) -> None:
    put_model(data, Path("/nothing/here"))
    assert refusal(data, "model") == "the folder /nothing/here of the model 'tiny' is gone: put it back"
    (data / "models/tiny/model.json").write_text("{}")
    assert "is damaged" in refusal(data, "model")


def test_a_folder_without_a_tokenizer_is_refused(data: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    put_model(data, tmp_path / "empty")
    assert "has no tokenizer.json" in refusal(data, "model")
    (tmp_path / "empty" / "tokenizer.json").write_text("{}")
    assert "does not hold a tokenizer" in refusal(data, "model")


def test_a_context_beyond_the_models_is_refused(data: Path) -> None:
    assert refusal(data, "context", context=65) == "context 65 is more than the 64 that tiny can read"
    assert tokens_of(data, context=64)["context"] == 64


def test_too_little_text_is_refused(data: Path) -> None:
    put_dataset(data, [{"text": "a few words"}])
    assert "do not fill two windows of 32 tokens" in refusal(data, "dataset")


def test_a_model_with_a_smaller_vocabulary_is_refused(data: Path, model_folder: Path) -> None:
    put_model(data, model_folder, vocab_size=200)
    assert "the model's embedding has only 200 rows" in refusal(data, "model")


def test_a_damaged_dataset_is_refused(data: Path) -> None:
    path = data / "datasets/d/data-00000.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    assert "the dataset 'd' is damaged" in refusal(data, "dataset")
    (data / "datasets/d/dataset.json").write_text("{")
    assert "the dataset 'd' is damaged" in refusal(data, "dataset")


# What is left behind


def test_a_stopped_job_leaves_nothing(data: Path) -> None:
    link = Link(data, Paths(data))
    link.asked = "stop"
    with pytest.raises(Asked):
        tokenize.run(Tokenize(dataset="d", model="tiny", name="t", context=32), link)
    assert folders(data, "tokens") == []


def test_a_killed_job_leaves_only_what_the_next_start_sweeps(data: Path) -> None:
    put_dataset(data, [{"text": text * 20} for text in DOCUMENTS * 20])
    with start_job(data, "tokenize", dataset="d", model="tiny", name="t", context=32) as worker:
        while not list((data / "tokens").glob(".partial-t-*/tokens.bin")):
            assert worker.poll() is None
            time.sleep(0.01)
        worker.send_signal(signal.SIGKILL)
    assert worker.returncode == -signal.SIGKILL
    assert folders(data, "tokens") == [f".partial-t-{worker.pid}"]
    Paths(data).sweep()
    assert folders(data, "tokens") == []
