"""``mistudio neuronpedia labels``: of exports and of the bucket's folders, whatever they hold, into an SAE of as many
features; nothing is half taken in."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from mistudio import Client
from mistudio.cli import main
from neuronpedia_export import FEATURES, edit, export, raw, store
from studio import running

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``tiny/6-res-me`` of ten features, three of them with a label."""
    root = tmp_path_factory.mktemp("export")
    return export(root / "out", store(root / "store"))


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return shutil.copytree(sound, tmp_path / "out" / "tiny" / "6-res-me")


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[str]:
    """With SAEs of ten features and of nine, and one of another model."""
    about = {"width": FEATURES, "hook": "blocks.0.hook_resid_post", "model": {"name": "t", "source": "org/Tiny"}}
    others = {
        "ten": {},
        "nine": {"width": 9},
        "twelve": {"width": 12},
        "other": {"model": {"name": "gpt2", "source": "/x"}},
    }
    for name, more in others.items():
        place = tmp_path / "data" / "saes" / name
        place.mkdir(parents=True)
        (place / "recipe.json").write_text(json.dumps({**about, **more}))
    with running(tmp_path / "data") as url:
        yield url


@pytest.fixture
def run(studio: str) -> Run:
    return lambda *args: CliRunner(env={"MISTUDIO_HOST": studio}).invoke(main, list(map(str, args)))


def data_of(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def labels_of(studio: str, sae: str) -> dict[int, dict[str, Any]]:
    with Client(studio) as client:
        return {one["feature"]: one for one in client.export_labels(sae)}


def put(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("".join(json.dumps(one) + "\n" for one in rows).encode()))


def explanation(index: object, text: object, **more: Any) -> dict[str, Any]:
    place = {"id": f"c{index}", "modelId": "tiny", "layer": "0-res", "index": index, "authorId": "x"}
    by = {"typeName": "oai_token-act-pair", "explanationModelName": "gpt-4o-mini", "notes": None}
    return {**place, "description": text, **by, "createdAt": "2025-01-01T00:00:00Z", **more}


def test_an_export_is_taken_in_with_where_each_label_is_from(run: Run, studio: str, folder: Path) -> None:
    for place in (folder, folder.parent.parent):
        result = run("neuronpedia", "labels", "ten", place)
        assert result.exit_code == 0, result.output
    assert result.stderr == f"{folder}: 0 imported, 3 known\n"
    found = labels_of(studio, "ten")
    assert {n: one["text"] for n, one in found.items()} == {
        0: "NUL ␀ and \ufffd", 3: "\u202eright to left", 9: r"the text \u0000",
    }  # fmt: skip
    assert {one["provider"] for one in found.values()} == {"neuronpedia"}
    assert (found[0]["template"], found[9]["model"], found[0]["created_at"]) == (
        "human", "gpt-4o-mini", "2026-01-02T00:00:00.000Z",
    )  # fmt: skip


def test_a_folder_of_the_bucket_is_joined_by_index_over_all_files(run: Run, studio: str, tmp_path: Path) -> None:
    place = tmp_path / "bucket"
    long = "word " * 60
    put(
        place / "explanations/batch-0.jsonl.gz", [explanation("9", "nine"), explanation(0, long, embedding=[0.1] * 256)]
    )
    put(place / "explanations/batch-7.jsonl.gz", [
        explanation("1", "a \ud800\0 b"), explanation("1", "another of one", typeName="np_max-act"),
        explanation("2", "  "), explanation("3", None), explanation("1", "a \ud800\0 b"),
    ])  # fmt: skip
    (place / "explanations/config.json").write_text("{}")
    (place / "explanations/failed_explanation_indexes.txt").write_text("4\n")
    found = data_of(run("neuronpedia", "labels", "ten", place, "--json"))
    assert found == {"imported": 4, "known": 1, "skipped": {"without a text, left out": 2}, "warning": None}
    shown = labels_of(studio, "ten")
    assert shown[9]["text"] == "nine" and shown[0]["text"].endswith("…") and shown[0]["explanation"] == long.strip()
    with Client(studio) as client:
        history = client.labels("ten", 1)["labels"]
    assert [(one["text"], one["template"]) for one in history] == [
        ("another of one", "np_max-act"), ("a \ufffd␀ b", "oai_token-act-pair"),
    ]  # fmt: skip
    assert "2 without a text, left out" in run("label", "import", "ten", place).stderr


def test_what_a_person_has_said_here_stays(run: Run, studio: str, folder: Path) -> None:
    with Client(studio) as client:
        client.set_label("ten", 3, "mine")
        assert run("label", "import", "ten", folder).exit_code == 0
        assert client.label("ten", 3)["text"] == "mine" and client.label("ten", 0)["provider"] == "neuronpedia"


@pytest.mark.parametrize("kind", ["features", "explanations"])
def test_a_folder_of_more_features_is_of_another_sae(run: Run, studio: str, folder: Path, kind: str) -> None:
    if kind == "explanations":
        shutil.rmtree(folder / "features")
    refused = run("neuronpedia", "labels", "nine", folder)
    assert refused.exit_code == 2, refused.output
    assert "is of another SAE: it has a feature 9, and nine has features 0 to 8" in refused.stderr
    assert labels_of(studio, "nine") == {}


def test_what_speaks_against_it_is_one_sentence_and_the_labels_come_nevertheless(run: Run, folder: Path) -> None:
    shown = run("neuronpedia", "labels", "other", folder)
    assert shown.exit_code == 0 and shown.stderr.splitlines()[0] == (
        f"{folder} may be of another SAE than other: model tiny, not gpt2-small"
    )
    assert shown.stderr.splitlines()[1:] == [f"{folder}: 3 imported, 0 known"]
    for name in ("features", "activations"):
        edit(
            folder / name / "batch-0.jsonl.gz",
            lambda found: [one.update(hookName="blocks.6.hook_resid_pre") for one in found],
        )
    warning = data_of(run("neuronpedia", "labels", "twelve", folder, "--json"))["warning"]
    assert warning.endswith(
        "than twelve: hook blocks.6.hook_resid_pre, not blocks.0.hook_resid_post; features 10, not 12"
    )
    shutil.rmtree(folder / "features")
    warning = data_of(run("neuronpedia", "labels", "ten", folder, "--json"))["warning"]
    assert warning.endswith("than ten: layer 6, not 0")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: shutil.rmtree(folder / "explanations"), "there are no labels in"),
        (lambda folder: (folder / "explanations/batch-0.jsonl.gz").write_bytes(b"no gzip"), "damaged"),
        (lambda folder: put(folder / "explanations/batch-1.jsonl.gz", [explanation("x", "t")]), "'x' is no index"),
        (lambda folder: (folder / "features/batch-0.jsonl.gz").write_bytes(
            (folder / "features/batch-0.jsonl.gz").read_bytes()[:-30]), "batch-0.jsonl.gz is damaged"),
        (lambda folder: shutil.copytree(folder, folder.parent / "7-res-me"),
         "several exports (tiny/6-res-me, tiny/7-res-me)"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_whole_is_a_sentence_and_nothing_is_taken_in(
    run: Run, studio: str, folder: Path, damage: Callable[[Path], Any], said: str
) -> None:
    damage(folder)
    refused = run("neuronpedia", "labels", "ten", folder.parent.parent)
    assert refused.exit_code == 2 and said in refused.stderr, refused.output
    assert labels_of(studio, "ten") == {}


def test_an_sae_that_is_not_there_is_said(run: Run, folder: Path) -> None:
    assert run("neuronpedia", "labels", "none", folder).exit_code == 3


def test_more_labels_than_a_request_holds_come_too(run: Run, tmp_path: Path) -> None:
    rows = [explanation(n % 10, f"label {n}") for n in range(2500)]
    put(tmp_path / "many/explanations/batch-0.jsonl.gz", rows)
    assert data_of(run("neuronpedia", "labels", "ten", tmp_path / "many", "--json"))["imported"] == 2500
    assert raw(tmp_path / "many/explanations/batch-0.jsonl.gz").count(b"\n") == 2500
