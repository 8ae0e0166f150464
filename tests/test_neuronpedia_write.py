"""An export to Neuronpedia holds what the store knows, breaks no rule, and is read back as it was."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from neuronpedia_export import DEAD, FEATURES, HOSTILE, LABELS, about, export, put, raw, rows, store

from mistudiod.neuronpedia import dashboard, names, read, write
from mistudiod.neuronpedia.names import Names
from mistudiod.neuronpedia.validate import validate
from mistudiod.pages import Pages


@pytest.fixture
def pages(tmp_path: Path) -> Pages:
    return store(tmp_path / "store")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("postings", [True, False])
@pytest.mark.parametrize("at_once", [1024, 3])
def test_an_export_breaks_no_rule_and_is_read_back_as_it_was(
    tmp_path: Path, postings: bool, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "ROWS", at_once)
    pages = store(tmp_path / "store", postings)
    folder = export(tmp_path / "out", pages)
    assert validate(folder) == []
    assert len(list((folder / "features").iterdir())) == math.ceil(FEATURES / at_once)
    found = read.features(folder, range(FEATURES))
    assert sorted(found) == list(range(FEATURES))
    for index, feature in found.items():
        page, row = pages.page(index), feature.row
        assert row is not None
        assert (row["frac_nonzero"], row["maxActApprox"]) == (page["density"], page["max"])
        assert row["sourceSetName"] == "res-me" and row["layer"] == "6-res-me" and row["index"] == str(index)
        assert sum(row["freq_hist_data_bar_heights"]) == page["fired"]
        assert row["pos_values"] == [one["value"] for one in page["logits"]["top"]][:10]
        assert row["topkCosSimIndices"] == [one["index"] for one in page["neighbours"]["decoder"]]
        assert [one["values"] for one in feature.activations] == [one["activations"] for one in page["examples"]]
        for one, example in zip(feature.activations, page["examples"], strict=True):
            assert one["tokens"] == [text.replace("\0", "␀") for text in example["texts"]]
            assert one["qualifyingTokenIndex"] == example["peak"]
    assert found[DEAD].activations == [] and found[DEAD].row["maxActApprox"] == 0


def test_labels_come_back_as_labels(tmp_path: Path, pages: Pages) -> None:
    labels = {one["feature"]: one for one in read.labels(export(tmp_path / "out", pages))}
    assert sorted(labels) == sorted(LABELS)
    assert labels[0]["text"] == "NUL ␀ and \ufffd"
    for index in (3, 9):
        assert (labels[index]["text"], labels[index]["explanation"]) == (
            LABELS[index]["text"], LABELS[index]["explanation"],
        )  # fmt: skip
    assert [labels[n]["template"] for n in sorted(labels)] == ["human", None, None]
    assert [labels[n]["model"] for n in sorted(labels)] == [None, None, "gpt-4o-mini"], "only one that is known there"
    assert {one["provider"] for one in labels.values()} == {"neuronpedia"}, "a person there is not one here"
    assert labels[0]["created_at"] == "2026-01-02T00:00:00.000Z"


def test_a_second_export_has_the_same_bytes_and_every_id_once(tmp_path: Path, pages: Pages) -> None:
    one, two = (export(tmp_path / name, pages) for name in ("a", "b"))
    assert files(one) == files(two)
    ids = [row["id"] for _, row in (*read.rows(one, "activations"), *read.rows(one, "explanations"))]
    assert len(set(ids)) == len(ids) > 100
    assert all(len(id) == 25 and id.isalnum() and id == id.lower() and id[0] == "c" for id in ids)


def test_the_strongest_are_the_top_group_and_others_lie_in_fifths_with_their_share_of_tokens(
    tmp_path: Path, pages: Pages
) -> None:
    for index, feature in read.features(export(tmp_path / "out", pages), range(FEATURES)).items():
        page = pages.page(index)
        values = [*pages.postings(index)[1]]
        for row, example in zip(feature.activations, page["examples"], strict=True):
            low, high, share = row["binMin"], row["binMax"], row["binContains"]
            if example["kind"] == "top":
                assert (low, high, share) == (-1, page["max"], -1)
                continue
            assert low <= row["values"][row["qualifyingTokenIndex"]] <= high
            within = sum(low <= value < high or value == high == page["max"] for value in values)
            silent = pages.tokens - page["fired"] if low == 0 else 0
            assert share == pytest.approx((within + silent) / pages.tokens, abs=2 / pages.tokens)


def test_without_postings_intervals_are_empty_and_bars_are_the_stores_own(tmp_path: Path) -> None:
    pages = store(tmp_path / "store", postings=False)
    found = read.features(export(tmp_path / "out", pages), [0])[0]
    page = pages.page(0)
    others = [row for row, one in zip(found.activations, page["examples"], strict=True) if one["kind"] != "top"]
    assert others and all((row["binMin"], row["binMax"], row["binContains"]) == (None, None, None) for row in others)
    heights = found.row["freq_hist_data_bar_heights"]
    assert heights[0] and heights[-1] and [n for n in heights if n] == [n for n in page["histogram"]["counts"] if n]


def test_hostile_tokens_stay_what_they_are_but_for_what_postgresql_cannot_hold(tmp_path: Path, pages: Pages) -> None:
    folder = export(tmp_path / "out", pages)
    everything = b"".join(raw(path) for path in folder.rglob("*.gz"))
    assert b"\\u0000" not in everything and b"\0" not in everything and b"\\ud8" not in everything
    assert "\u202e".encode() in everything, "text from right to left is text"
    shown = {token for _, row in read.rows(folder, "activations") for token in row["tokens"]}
    for token in HOSTILE:
        text = token.decode(errors="replace").replace("\0", "␀")
        assert text in shown or "\ufffd" in text or token == b"\x00", token
    assert {"␀", "\\u0000", '"}\n{"'} <= shown
    # The importer replaces what looks like an escaped NUL before it parses a line: it still finds the same row.
    for path in folder.rglob("*.gz"):
        imported = [json.loads(line.replace("\\u0000", " ")) for line in raw(path).decode().split("\n") if line]
        assert imported == rows(path)


def test_a_file_without_a_line_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "ROWS", 1)
    pages = store(tmp_path / "store")
    folder = export(tmp_path / "out", pages)
    assert not (folder / "activations" / f"batch-{DEAD}.jsonl.gz").exists()
    assert (folder / "features" / f"batch-{DEAD}.jsonl.gz").exists()
    assert validate(folder) == []


def test_a_batch_of_large_examples_is_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = store(tmp_path / "store")
    monkeypatch.setattr(write, "BYTES", 20_000)
    folder = export(tmp_path / "out", pages)
    assert len(list((folder / "features").iterdir())) > 2 and validate(folder) == []
    monkeypatch.setattr(write, "FILES", 2)
    with pytest.raises(ValueError, match="too large for 2 files: extract the features with fewer tokens"):
        export(tmp_path / "again", pages)


@pytest.mark.parametrize(("features", "files"), [(1, 1), (1024, 1), (1025, 2), (131_072, 128), (1_024_000, 1000)])
def test_features_make_files_that_the_importer_lists(features: int, files: int) -> None:
    assert write.batches(features) == files <= 1000


def test_more_than_a_folder_holds_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"1,024,001 features makes 1,001 files, and Neuronpedia imports 1,000"):
        write.batches(1_024_001)


def test_what_is_heard_may_stop_it(tmp_path: Path, pages: Pages) -> None:
    heard: list[int] = []

    def stop(done: int) -> None:
        heard.append(done)
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write.write(tmp_path, pages, about(pages), {}, stop)
    assert heard == [1, 2, 3, 4]


# -- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("6-res-jb", (6, "res-jb", None)),
        ("20-gemmascope-res-16k__l0-38", (20, "gemmascope-res-16k", "l0-38")),
        ("12-res_fs768-jb", (12, "res_fs768-jb", None)),
        ("e-res-sm", (None, "res-sm", None)),
    ],
)
def test_a_source_is_layer_set_and_suffix(source: str, parts: tuple[Any, ...]) -> None:
    found = names.parse("gpt2-small", source)
    assert (found.layer, found.set, found.suffix) == parts and found.source == source


@pytest.mark.parametrize(
    "source", ["5", "res-jb", "-res", "6-", "06-res", "6-neurons", "6-Res", "6-5-res", "6-a__", "٣-res"]
)
def test_what_is_no_source_is_said(source: str) -> None:
    with pytest.raises(ValueError, match=r"is no (source|name of a set|suffix)"):
        names.parse("gpt2-small", source)


def test_a_layer_that_the_model_lacks_is_refused(tmp_path: Path, pages: Pages) -> None:
    with pytest.raises(ValueError, match="a model of 12 layers has no layer 12"):
        about(pages, names=Names("tiny", 12, "res-me"))
    with pytest.raises(ValueError, match="'GPT 2' is no model"):
        Names("GPT 2", 1, "res")
    with pytest.raises(ValueError, match="'my release' is no name of a release"):
        about(pages, release="my release")


# -- SAEDashboard's files --------------------------------------------------------------------------------------------


DASHBOARD = {
    *("feature_index", "neuron_alignment_indices", "neuron_alignment_values", "neuron_alignment_l1"),
    *("correlated_neurons_indices", "correlated_neurons_l1", "correlated_neurons_pearson"),
    *("correlated_features_indices", "correlated_features_l1", "correlated_features_pearson"),
    *("neg_str", "neg_values", "pos_str", "pos_values", "frac_nonzero", "n_prompts_total", "n_tokens_in_prompt"),
    *("freq_hist_data_bar_values", "freq_hist_data_bar_heights"),
    *("logits_hist_data_bar_values", "logits_hist_data_bar_heights"),
    *("dataset", "decoder_weights_dist", "activations", "vector"),
}


def test_dashboards_have_every_key_and_the_groups_in_order(
    tmp_path: Path, pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dashboard, "AT_ONCE", 4)
    folder = tmp_path / "out"
    folder.mkdir()
    assert dashboard.write(folder, pages, about(pages)) == 3
    skipped = json.loads((folder / "skipped_indexes.json").read_text())
    assert skipped == {"model_id": "tiny", "layer": "6", "sae_set": "res-me", "log_sparsity": 0, "skipped_indexes": []}
    batches = [json.loads((folder / f"batch-{n}.json").read_text(encoding="utf-8")) for n in range(3)]
    assert {tuple(one)[:4] for one in batches} == {("model_id", "layer", "sae_set", "sae_id_suffix")}
    features = [one for batch in batches for one in batch["features"]]
    assert [one["feature_index"] for one in features] == list(range(FEATURES))
    assert {tuple(one) for one in features} == {tuple(features[0])} and set(features[0]) == DASHBOARD
    for one, page in zip(features, map(pages.page, range(FEATURES)), strict=True):
        assert len(one["activations"]) == len(page["examples"])
        groups = [(act["bin_min"] != -1, -act["bin_max"]) for act in one["activations"]]
        assert groups == sorted(groups)
        tops = [act for act in one["activations"] if act["bin_min"] == -1]
        assert all(act["bin_contains"] == -1 and act["bin_max"] == page["max"] for act in tops)
        assert len(tops) == sum(example["kind"] == "top" for example in page["examples"])
        assert all(len(act["tokens"]) == len(act["values"]) for act in one["activations"])
        assert one["frac_nonzero"] == page["density"] and len(one["freq_hist_data_bar_values"]) in (0, 50)


# -- reading ---------------------------------------------------------------------------------------------------------


def test_batches_of_a_database_export_are_joined_by_index(tmp_path: Path, pages: Pages) -> None:
    folder = export(tmp_path / "out", pages)
    path = folder / "features" / "batch-0.jsonl.gz"
    lines = sorted(raw(path).splitlines(keepends=True), key=lambda line: str(json.loads(line)["index"]))[::-1]
    put(path, b"".join(lines[:4]))
    put(folder / "features" / "batch-10.jsonl.gz", b"".join(lines[4:]))
    found = read.features(folder, [0, 9, 12])
    assert sorted(found) == [0, 9]
    assert found[9].row["index"] == "9" and found[9].explanations[0]["index"] == "9"
    assert len(found[0].activations) == len(pages.page(0)["examples"])


def test_rows_about_the_export_are_read(tmp_path: Path, pages: Pages) -> None:
    found = read.meta(export(tmp_path / "out", pages))
    assert list(found) == ["release", "model", "sourceset", "source"]
    assert (found["model"]["layers"], found["model"]["neuronsPerLayer"], found["model"]["owner"]) == (
        12,
        64,
        "somebody",
    )
    assert (found["source"]["num_prompts"], found["source"]["num_tokens_in_prompt"]) == (80, 32)
    assert read.meta(tmp_path) == {}


def test_a_long_label_is_cut_and_stands_whole_beside(tmp_path: Path) -> None:
    (tmp_path / "explanations").mkdir()
    long = "word " * 60
    some = [{"index": 1, "description": long}, {"index": "2", "description": " "}, {"index": "3", "description": None}]
    put(tmp_path / "explanations" / "batch-0.jsonl.gz", b"".join(json.dumps(one).encode() + b"\n" for one in some))
    (label,) = read.labels(tmp_path)
    assert len(label["text"]) <= 200 and label["text"].endswith("…") and label["explanation"] == long.strip()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (b"{", "line 1 is no JSON"),
        (b"[]\n", "line 1 is no JSON object"),
        (b'{"index": "x"}\n', "line 1: 'x' is no index"),
        (b'\xff{"index": 1}\n', "line 1 is not UTF-8"),
        (b"[" * 100_000, "line 1 is nested too deeply"),
        (b" " * (16 << 20) + b"1\n", "has a line of more than 16,777,216 bytes"),
    ],
)
def test_what_is_no_row_is_named_with_its_line(tmp_path: Path, damage: bytes, said: str) -> None:
    (tmp_path / "features").mkdir()
    put(tmp_path / "features" / "batch-0.jsonl.gz", damage)
    with pytest.raises(ValueError, match=rf"^batch-0\.jsonl\.gz.*{said}"):
        list(read.rows(tmp_path, "features"))


def test_a_file_that_is_cut_says_so(tmp_path: Path, pages: Pages) -> None:
    folder = export(tmp_path / "out", pages)
    path = folder / "features" / "batch-0.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"batch-0\.jsonl\.gz is damaged"):
        list(read.rows(folder, "features"))
