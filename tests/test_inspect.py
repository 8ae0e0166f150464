"""Reading a text with an SAE, against its activations one token after the other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from feature_records import record, windows, write_store
from hypothesis import given, settings
from hypothesis import strategies as st
from inspected import D_SAE, HOOK, K, put_sae
from run_job import run_job
from tiny_models import CONTEXT

from mistudiod.engine.lm import LM, load_lm
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.vocabulary import whole_texts
from mistudiod.worker import inspect
from mistudiod.worker.link import Refused
from mistudiod.worker.recipe import sha256_of

TEXT = "def größe(x):\n    return x  # 🙂<|endoftext|>import os"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    put_sae(tmp_path)
    return tmp_path


def read(data: Path, text: str = TEXT, **fields: Any) -> dict[str, Any]:
    return run_job(data, "inspect", sae="s", text=text, **fields)


def plain(data: Path, text: str = TEXT) -> tuple[list[int], torch.Tensor]:
    """Ids of the text with BOS, and what each feature does on each: (T, d_sae)."""
    lm: LM = load_lm(data / "hf")
    ids = [0, *lm.tokenizer(text, add_special_tokens=False)["input_ids"]]
    x = lm.activations(torch.tensor([ids]), HOOK)[0].bfloat16().float()  # as a harvest rounds them
    return ids, SparseAutoencoder.load(data / "saes" / "s").encode(x)


def test_each_token_has_the_features_that_fire_on_it_the_strongest_first(data: Path) -> None:
    found = read(data, top=3)
    ids, latents = plain(data)
    assert [one["id"] for one in found["tokens"]] == ids
    for one, row in zip(found["tokens"], latents, strict=True):
        assert one["special"] == (one["id"] == 0)
        order = row.argsort(descending=True)[:3].tolist()
        assert [feature["index"] for feature in one["features"]] == ([] if one["special"] else order)
        expected = [row[feature["index"]].item() for feature in one["features"]]
        assert [feature["value"] for feature in one["features"]] == pytest.approx(expected, rel=1e-5)
    assert found["l0"] == K and found["left_out"] == 0 and found["top"] == 3


def test_pooled_are_the_features_of_the_whole_text_with_their_strongest_token(data: Path) -> None:
    found = read(data)
    ids, latents = plain(data)
    text = latents[[i != 0 for i in ids]]
    at = [n for n, i in enumerate(ids) if i != 0]
    strongest = text.amax(0).argsort(descending=True).tolist()
    assert [one["index"] for one in found["pooled"]] == strongest[: len(found["pooled"])]
    assert {one["index"] for one in found["pooled"]} == set((text > 0).any(0).nonzero().squeeze(1).tolist())
    for one in found["pooled"]:
        column = text[:, one["index"]]
        assert one["max"] == pytest.approx(column.max().item(), rel=1e-5)
        assert one["tokens"] == int((column > 0).sum())
        assert one["peak"] == at[int(column.argmax())]


def test_the_texts_of_the_tokens_are_the_text_and_no_character_is_broken(data: Path) -> None:
    texts = [one["text"] for one in read(data)["tokens"]]
    assert "".join(texts) == "<|endoftext|>" + TEXT
    assert "ö" in texts and "🙂" in texts and "\ufffd" not in "".join(texts)


@given(st.text(max_size=30), st.integers(1, 4))
@settings(deadline=None)
def test_pieces_of_any_size_make_whole_texts(text: str, size: int) -> None:
    raw = text.encode(errors="replace")
    pieces = [raw[n : n + size] for n in range(0, len(raw), size)]
    texts = whole_texts(pieces)
    assert len(texts) == len(pieces) and "".join(texts) == raw.decode()


def test_an_sae_whose_windows_began_without_bos_reads_a_text_without(tmp_path: Path) -> None:
    put_sae(tmp_path, prepend_bos=False)
    assert read(tmp_path, "import os")["tokens"][0]["text"] != "<|endoftext|>"


def test_dense_features_are_left_out_by_what_the_training_has_measured(data: Path) -> None:
    whole, sparse = read(data, top=48), read(data, top=48, ignore_denser=0.5)
    rare = {n for n in range(D_SAE) if (n + 1) / (D_SAE + 1) <= 0.5}
    assert [[feature for feature in one["features"] if feature["index"] in rare] for one in whole["tokens"]] == [
        one["features"] for one in sparse["tokens"]
    ]
    assert sparse["pooled"] == [one for one in whole["pooled"] if one["index"] in rare]
    assert sparse["left_out"] == len(whole["pooled"]) - len(sparse["pooled"]) > 0
    assert sparse["l0"] == whole["l0"] == K


def test_the_newest_extraction_knows_better_how_often_they_fire(data: Path) -> None:
    rng, sha256 = np.random.default_rng(0), sha256_of(data / "saes" / "s" / "sae_weights.safetensors")
    fired: dict[str, list[int]] = {}
    for number in ("9", "10"):
        read_windows = windows(rng)
        records = [record(rng, read_windows, D_SAE, dead=index % 2 == int(number) % 2) for index in range(D_SAE)]
        write_store(data / "features" / "s" / number, records, read_windows, sae_sha256=sha256)
        fired[number] = [one.fired for one in records]
    (data / "features" / "s" / "11").mkdir()  # of an older miStudio
    shown = {one["index"] for one in read(data, ignore_denser=0.2)["pooled"]}
    assert shown == {one["index"] for one in read(data)["pooled"] if fired["10"][one["index"]] <= 200}


def test_an_extraction_of_other_weights_says_nothing_of_how_often_they_fire(data: Path) -> None:
    rng = np.random.default_rng(0)
    read_windows = windows(rng)
    records = [record(rng, read_windows, D_SAE, dead=True) for _ in range(D_SAE)]
    trained = read(data, ignore_denser=0.5)
    write_store(data / "features" / "s" / "1", records, read_windows, sae_sha256="0" * 64)
    assert read(data, ignore_denser=0.5) == trained


@pytest.mark.parametrize("hook", [HOOK, "blocks.0.hook_mlp_out"])
def test_outliers_that_training_left_out_are_told_and_nothing_fires_on_them(hook: str, data: Path) -> None:
    ids, _ = plain(data)
    norms = load_lm(data / "hf").activations(torch.tensor([ids]), hook)[0].bfloat16().float().norm(dim=1)
    limit = norms.median().item()
    beyond = [norm > limit and id != 0 for norm, id in zip(norms.tolist(), ids, strict=True)]
    path = data / "saes" / "s" / "recipe.json"
    recipe, whole = json.loads(path.read_text()), read(data)
    recipe["resolved"]["outlier_norms"] = {hook: limit}
    path.write_text(json.dumps(recipe))
    assert read(data) == whole, "of an SAE of version 0.3 they are like any other token"
    recipe["spec"]["outliers"] = False
    path.write_text(json.dumps(recipe))
    found = read(data)
    assert [one["outlier"] for one in found["tokens"]] == beyond
    assert [bool(one["features"]) for one in found["tokens"]] == [
        not out and id != 0 for out, id in zip(beyond, ids, strict=True)
    ]
    assert found["l0"] == whole["l0"] == K
    assert all(not beyond[one["peak"]] for one in found["pooled"])
    assert sum(one["tokens"] for one in found["pooled"]) == K * (len(ids) - ids.count(0) - sum(beyond))


def test_densities_that_nobody_has_measured_are_asked_for(data: Path) -> None:
    (data / "saes" / "s" / "sparsity.safetensors").unlink()
    with pytest.raises(Refused, match="extract them first"):
        read(data, ignore_denser=0.1)
    assert read(data)["pooled"]


def test_a_text_that_the_model_cannot_read_whole_is_refused_with_the_numbers(data: Path) -> None:
    with pytest.raises(Refused, match=f"201 tokens, but tiny reads only {CONTEXT}"):
        read(data, "é" * 100)
    with pytest.raises(Refused, match="no SAE called"):
        run_job(data, "inspect", sae="nobody", text="x")


def test_of_a_long_text_fewer_features_are_shown_and_of_one_that_is_too_long_none(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = read(data, top=K)
    size = inspect._size(whole)
    monkeypatch.setattr(inspect, "_RESULT_BYTES", size - 200)
    less = read(data, top=K)
    assert 0 < less["top"] < K and less["pooled"] == whole["pooled"]
    for one, other in zip(whole["tokens"], less["tokens"], strict=True):
        assert one["features"][: less["top"]] == other["features"]
    monkeypatch.setattr(inspect, "_RESULT_BYTES", size // 4)
    with pytest.raises(Refused, match="give about half"):
        read(data)


def test_a_text_of_special_tokens_alone_fires_nothing(data: Path) -> None:
    found = read(data, "<|endoftext|>")
    assert found["pooled"] == [] and found["l0"] == 0 and all(not one["features"] for one in found["tokens"])
