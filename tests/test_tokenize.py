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
from pydantic import ValidationError
from run_job import events, folders, run_job, start_job
from tiny_models import LINES, tiny_model, tiny_tokenizer
from transformers import AutoTokenizer

from mistudiod.engine.documents import digest_of, held_out_by_hash
from mistudiod.engine.tokens import TokenWindows, Vocabulary, read_vocabulary
from mistudiod.paths import DiskFull, Paths
from mistudiod.specs import Tokenize
from mistudiod.worker import tokenize
from mistudiod.worker.link import Asked, Link, Refused
from mistudiod.worker.stored_dataset import stored_dataset
from mistudiod.worker.text_formats import PIECE_CHARS
from mistudiod.worker.tokenize_batches import batches
from mistudiod.worker.tokenize_vocabulary import read_tokenizer

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


def tokens_of(data: Path, name: str = "t", context: int = 32, **fields: Any) -> dict[str, Any]:
    return run_job(data, "tokenize", dataset="d", model="tiny", name=name, context=context, **fields)


def refusal(data: Path, field: str, context: int = 32, **fields: Any) -> str:
    """The sentence, after a look that nothing at all was left behind."""
    with pytest.raises(Refused) as caught:
        tokens_of(data, context=context, **fields)
    assert caught.value.field == field
    assert folders(data, "tokens") == []
    return str(caught.value)


def test_the_windows_decode_to_the_documents(data: Path) -> None:
    found = tokens_of(data, held_out=0.05)
    facts = json.loads((data / "tokens/t/tokenization.json").read_text())
    assert facts.pop("special_ids") == [0]
    assert facts == found
    windows = TokenWindows(data / "tokens/t")
    sides = (range(windows.train), range(windows.train, windows.train + windows.held_out))
    for held_out, numbers in enumerate(sides):
        rows = windows.rows(numbers)
        assert set(rows[:, 0]) == {0}
        kept = [text for text in DOCUMENTS if held_out_by_hash(digest_of(text.encode()), 0.05) == held_out]
        assert "<|endoftext|>".join(kept).startswith(tiny_tokenizer().decode(rows[:, 1:].flatten()))
    assert found["documents"] == 120
    assert found["held_out_by"] == "text"
    assert found["dtype"] == "<u2"
    assert found["policy"] == {"bos": 0, "separator": 0, "packed": True, "padding": None, "stride": 0}
    assert found["most_frequent"][0]["text"] == " "
    assert found["size_bytes"] == (data / "tokens/t/tokens.bin").stat().st_size


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
    dataset = stored_dataset(Link(data, Paths(data)), "d")
    tracemalloc.start()
    try:
        assert sum(len(text) for batch in batches(dataset) for text in batch.texts) == 40 * 8 * 120_000
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
    found = vocabulary_of(tmp_path / "saved", 330)
    assert (found.bos, found.eos) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert found.unknown == tokenizer.unk_token_id
    assert set(found.special_ids) >= set(tokenizer.all_special_ids)
    assert found.padding == tokenizer.pad_token_id


def vocabulary_of(folder: Path, size: int) -> Vocabulary:
    return read_vocabulary(folder, read_tokenizer(folder / "tokenizer.json"), size)


def tiny_tokenizer_folder(folder: Path) -> Path:
    tiny_tokenizer().save_pretrained(folder)
    return folder


def test_special_tokens_come_from_the_models_config_when_the_tokenizers_says_nothing(tmp_path: Path) -> None:
    tiny_tokenizer_folder(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    (tmp_path / "config.json").write_text('{"bos_token_id": 5, "eos_token_id": [6, 7]}')
    found = vocabulary_of(tmp_path, 320)
    assert (found.bos, found.eos, found.special_ids) == (5, 6, (0, 5, 6))


def test_a_tokenizer_that_truncates_and_pads_does_neither_here(tmp_path: Path) -> None:
    backend = tiny_tokenizer().backend_tokenizer.__class__.from_str(tiny_tokenizer().backend_tokenizer.to_str())
    backend.enable_truncation(4)
    backend.enable_padding(pad_token="<|endoftext|>")
    backend.save(str(tmp_path / "tokenizer.json"))
    found = read_tokenizer(tmp_path / "tokenizer.json").encode_batch(["for name in names", ""])
    assert [one.ids for one in found] == [tiny_tokenizer().encode("for name in names", add_special_tokens=False), []]


def test_a_model_without_special_tokens_gets_windows_without_bos(data: Path, tmp_path: Path) -> None:
    folder = tiny_tokenizer_folder(tmp_path / "bare")
    (folder / "tokenizer_config.json").write_text('{"bos_token": null, "eos_token": null}')
    put_model(data, folder)
    found = tokens_of(data)
    assert (found["policy"]["bos"], found["policy"]["separator"]) == (None, None)
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
    already = "there is already a tokenization called t, of d for tiny in windows of 32 tokens"
    for other, sentence in ({"context": 16}, f"{already}$"), ({"shortest": 2}, f"{already}, made with other settings$"):
        with pytest.raises(Refused, match=sentence) as caught:
            tokens_of(data, **other)
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


# The policy of BOS


@pytest.mark.parametrize(
    ("adds_bos", "asked", "leading"),
    [(None, "auto", 0), (True, "auto", 0), (False, "auto", None), (False, "always", 0)],
)
def test_windows_begin_as_the_model_was_trained_unless_told_otherwise(
    data: Path, tmp_path: Path, adds_bos: bool | None, asked: str, leading: int | None
) -> None:
    folder = tiny_tokenizer_folder(tmp_path / "own")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"add_bos_token": adds_bos}))
    put_model(data, folder)
    assert tokens_of(data, bos=asked)["policy"]["bos"] == leading


def test_bos_that_there_is_not_is_refused(data: Path, tmp_path: Path) -> None:
    folder = tiny_tokenizer_folder(tmp_path / "bare")
    (folder / "tokenizer_config.json").write_text('{"bos_token": null, "eos_token": null}')
    put_model(data, folder)
    assert refusal(data, "bos", bos="always").startswith("tiny has no BOS token for windows to begin with")


# Windows of single documents


def test_unpacked_windows_hold_one_document_each(data: Path) -> None:
    found = tokens_of(data, packing=False, stride=8, held_out=0.05)
    windows = TokenWindows(data / "tokens/t")
    rows = windows.rows(range(windows.train))
    tokens = [tiny_tokenizer().encode(text, add_special_tokens=False) for text in DOCUMENTS]
    kept = [
        one for one, text in zip(tokens, DOCUMENTS, strict=True) if not held_out_by_hash(digest_of(text.encode()), 0.05)
    ]
    parts = [(one, at) for one in kept for at in range(0, len(one) - 8, 31 - 8)]
    assert [row[1:][: len(one[at : at + 31])].tolist() for row, (one, at) in zip(rows, parts, strict=True)] == [
        one[at : at + 31] for one, at in parts
    ]
    assert found["policy"] == {"bos": 0, "separator": None, "packed": False, "padding": 0, "stride": 8}


# Filters


def test_filters_drop_documents_and_say_how_many(data: Path) -> None:
    put_dataset(
        data,
        [{"text": text} for text in DOCUMENTS[:40]]
        + [{"text": DOCUMENTS[3]}, {"text": "x"}, {"text": "\0\1\2 binary"}, {"text": "secret " * 9}]
        + [{"text": "print(1)\n" * 900}, {"text": "no code at all, only words that go on and on"}],
    )
    found = tokens_of(
        data, drop_duplicates=True, shortest=5, longest=900, max_unprintable=0.1, must_match=r"\(|secret",
        must_not_match="(?i)SECRET",
    )  # fmt: skip
    assert found["dropped"] == {
        "max_unprintable": 1, "must_match": 2, "must_not_match": 1, "longest": 1, "drop_duplicates": 1
    }  # fmt: skip
    assert (found["documents"], found["documents_read"]) == (40, 46)


def test_a_pattern_in_a_later_part_of_a_long_document_is_found(data: Path) -> None:
    text = "print(name)\n" * (PIECE_CHARS // 10)
    put_dataset(data, [{"text": text + "needle"}, {"text": text}, *({"text": one} for one in DOCUMENTS)])
    found = tokens_of(data, must_not_match="needle")
    assert (found["documents"], found["dropped"]) == (121, {"must_not_match": 1})
    assert tokens_of(data, "only", must_match="needle")["documents"] == 1


def test_the_tokens_of_text_stop_at_the_cap(data: Path) -> None:
    found = tokens_of(data, tokens=3000)
    assert found["tokens"] == 3000
    assert found["documents"] == found["documents_read"] < 120
    said = events(data, "tokenize", dataset="d", model="tiny", name="u", context=32, tokens=500)
    steps = [event for event in said if event["event"] == "progress" and event["stage"] == "tokenize"]
    assert (steps[-1]["done"], steps[-1]["total"], steps[-1]["unit"]) == (500, 500, "tokens")


def test_characters_of_every_script_can_be_printed(data: Path) -> None:
    put_dataset(data, [{"text": f"naïve {i} 日本語 العربية 👩‍👩‍👧 \t\r\n\f\u2028 שלום"} for i in range(60)])
    assert tokens_of(data, max_unprintable=0.0)["documents"] == 60


def test_nothing_left_names_the_filter(data: Path) -> None:
    sentence = refusal(data, "must_match", must_match="nowhere", shortest=2)
    assert sentence == "no document is left of 120: 120 for must_match were dropped"


@pytest.mark.parametrize("pattern", ["(", r"(a)\1", "(?=a)", "a{2000}", "[z-a]", "\\"])
def test_a_pattern_that_is_none_is_refused(data: Path, pattern: str) -> None:
    assert "must_match is no regular expression of RE2's syntax" in refusal(data, "must_match", must_match=pattern)
    assert "must_not_match is no" in refusal(data, "must_not_match", must_not_match=pattern)


def test_a_catastrophic_pattern_takes_no_longer_than_another(data: Path) -> None:
    put_dataset(data, [{"text": "a" * 100_000}, *({"text": text} for text in DOCUMENTS)])
    began = time.monotonic()
    assert tokens_of(data, must_not_match=r"(a+)+$x|(a|aa)+\d|(.*a){20}z")["documents"] == 121
    assert time.monotonic() - began < 60, "one that goes back takes for ever"


@pytest.mark.parametrize(
    ("field", "fields"),
    [("stride", {"stride": 4}), ("stride", {"packing": False, "stride": 17}), ("held_out", {"held_out": 0}),
     ("longest", {"shortest": 9, "longest": 8}),
     ("max_unprintable", {"max_unprintable": 1}), ("must_match", {"must_match": ""})],
)  # fmt: skip
def test_settings_that_contradict_each_other_are_refused(field: str, fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        Tokenize(dataset="d", model="m", name="t", context=32, **fields)
    assert [error["loc"] for error in caught.value.errors()] == [(field,)]


# The same again


def test_the_same_request_shares_the_tokens_of_the_first(data: Path) -> None:
    first, again = tokens_of(data), tokens_of(data, "u")
    assert again == first | {"name": "u", "same_as": "t"}
    assert (data / "tokens/u/tokens.bin").samefile(data / "tokens/t/tokens.bin")
    shutil.rmtree(data / "tokens/t")
    assert TokenWindows(data / "tokens/u").train == first["train_windows"]


@pytest.mark.parametrize("fields", [{"context": 31}, {"held_out": 0.1}, {"shortest": 2}, {"bos": "never"}])
def test_other_settings_make_another_tokenization(data: Path, fields: dict[str, Any]) -> None:
    first, other = tokens_of(data), tokens_of(data, "u", **fields)
    assert first["fingerprint"] != other["fingerprint"]
    assert "same_as" not in other


def test_other_text_or_another_tokenizer_under_the_same_name_makes_another_tokenization(
    data: Path, tmp_path: Path
) -> None:
    prints = [tokens_of(data)["fingerprint"]]
    put_dataset(data, [{"text": text} for text in DOCUMENTS[1:]])
    prints.append(tokens_of(data, "u")["fingerprint"])
    folder = tiny_tokenizer_folder(tmp_path / "other")
    (folder / "tokenizer.json").write_text((folder / "tokenizer.json").read_text() + "\n")
    put_model(data, folder)
    prints.append(tokens_of(data, "v")["fingerprint"])
    assert len(set(prints)) == 3


def test_the_same_text_under_another_models_name_is_that_models_own(data: Path) -> None:
    tokens_of(data)
    shutil.copytree(data / "models/tiny", data / "models/twin")
    assert "same_as" not in run_job(data, "tokenize", dataset="d", model="twin", name="u", context=32)


def test_a_damaged_tokenization_is_not_shared(data: Path) -> None:
    tokens_of(data)
    (data / "tokens/t/tokens.bin").write_bytes(b"short")
    assert "same_as" not in tokens_of(data, "u")


def test_a_tokenization_of_version_0_1_is_still_this_jobs(data: Path) -> None:
    tokens_of(data)
    path = data / "tokens/t/tokenization.json"
    facts = json.loads(path.read_text())
    old = {key: value for key, value in facts.items() if key not in ("settings", "fingerprint")}
    path.write_text(json.dumps(old))
    assert tokens_of(data)["windows"] == facts["windows"]


def test_more_space_than_there_is_is_refused_before_anything_is_written(data: Path) -> None:
    info = json.loads((data / "datasets/d/dataset.json").read_text())
    (data / "datasets/d/dataset.json").write_text(json.dumps(info | {"bytes": 10**18}))
    with pytest.raises(DiskFull, match="the disk is full"):
        tokens_of(data)
    assert folders(data, "tokens") == []
