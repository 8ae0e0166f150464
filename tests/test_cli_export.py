"""``mistudio sae export`` and ``mistudio neuronpedia validate``, against a studio with real workers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from click.testing import CliRunner, Result
from mistudio import Client
from mistudio.cli import main
from mistudio.download import fetch_export
from studio import running
from trained_saes import WIDTH, make_saes

from mistudiod.engine.formats import FolderListing, find
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.worker.recipe import sha256_of

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("cli")
    data = make_saes(home)
    shutil.rmtree(data / "runs")
    (data / "saes" / "batchtopk" / "link.json").symlink_to("/etc/hostname")
    return data


@pytest.fixture(scope="module")
def studio(data: Path) -> Iterator[str]:
    with running(data, "real_worker.py") as url:
        with Client(url) as client:
            for feature in range(3):
                client.set_label("batchtopk", feature, f"<i>label</i> {feature}")
                client.set_label("batchtopk", feature, f'\u202e"label" | {feature}')
            client.reject_label("batchtopk", client.labels("batchtopk", 2)["labels"][0]["id"])
        yield url


@pytest.fixture
def run(studio: str) -> Run:
    return lambda *args: CliRunner(env={"MISTUDIO_HOST": studio}).invoke(main, list(args))


def data_of(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_an_export_comes_here_as_it_lies_there_with_the_labels_of_now(run: Run, data: Path, tmp_path: Path) -> None:
    place = tmp_path / "here"
    result = run("sae", "export", "batchtopk", "--to", str(place))
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{place}\n"
    made = data / "exports" / "batchtopk-saelens"
    assert {path.name: sha256_of(path) for path in place.iterdir()} == {
        path.name: sha256_of(path) for path in made.iterdir()
    }
    labels = json.loads((place / "feature_labels.json").read_text())["labels"]
    found = [(one["feature"], one["text"]) for one in labels]
    assert found == [(0, '\u202e"label" | 0'), (1, '\u202e"label" | 1'), (2, "<i>label</i> 2")]
    again = run("sae", "export", "batchtopk", "--to", str(place))
    assert again.exit_code == 2 and "is there already" in again.output


def test_labels_that_went_with_an_export_are_taken_in_elsewhere(run: Run, tmp_path: Path) -> None:
    assert run("sae", "export", "batchtopk", "--to", str(tmp_path / "here")).exit_code == 0
    found = data_of(run("label", "import", "topk", str(tmp_path / "here/feature_labels.json"), "--json"))
    assert found["imported"] + found["known"] == 3
    job = data_of(run("sae", "export", "topk", "--format", "sparsify", "--json"))
    labels = json.loads((Path(job["result"]["path"]) / "feature_labels.json").read_text())["labels"]
    assert [one["feature"] for one in labels] == [0, 1, 2]


def test_without_labels_there_are_none(run: Run) -> None:
    job = data_of(run("sae", "export", "batchtopk", "--format", "gemma_scope_npz", "--no-labels", "--json"))
    files = job["result"]["files"]
    assert files == ["README.md", f"layer_1/width_{WIDTH}/average_l0_4/params.npz"]


def test_folders_in_an_export_come_too(run: Run, tmp_path: Path) -> None:
    job = data_of(run("sae", "export", "topk", "--format", "sparsify", "--to", str(tmp_path / "s"), "--json"))
    assert job["result"]["folder"] == str(tmp_path / "s")
    (found,) = find(FolderListing(tmp_path / "s"))
    assert (found.path, found.format) == ("layers.1", "sparsify")


@pytest.mark.parametrize(
    ("sae", "format"), [("topk", "sparsify"), ("batchtopk", "dictionary_learning"), ("batchtopk", "gemma_scope_npz")]
)
def test_a_card_says_how_the_folder_is_taken_in(
    run: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sae: str, format: str
) -> None:
    assert run("sae", "export", sae, "--format", format, "--no-labels", "--to", str(tmp_path / "e")).exit_code == 0
    card = (tmp_path / "e/README.md").read_text()
    command = card.partition("### miStudio\n\n```bash\n")[2].partition("\n")[0].split()
    monkeypatch.chdir(tmp_path / "e")
    result = run(*(f"{sae}-{format}" if word == sae else word for word in command[1:]))
    assert result.exit_code == 0, result.output
    ours, again = (SparseAutoencoder.load(data / "saes" / name) for name in (sae, f"{sae}-{format}"))
    x = torch.randn(20, ours.d_in, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(again.encode(x), ours.encode(x), rtol=1e-5, atol=1e-5)


def test_a_download_that_was_cut_goes_on(studio: str, run: Run, tmp_path: Path) -> None:
    export = data_of(run("sae", "export", "topk", "--format", "sparsify", "--json"))["result"]["export"]

    class Cut(Exception):
        pass

    def told(done: int, total: int) -> None:
        if done > total // 2:
            raise Cut

    with Client(studio) as client:
        with pytest.raises(Cut):
            fetch_export(client, export, tmp_path / "s", told)
        (tmp_path / ".partial-s/layers.9").mkdir()
        (tmp_path / ".partial-s/layers.9/cfg.json").write_text("of an earlier export")
        assert not (tmp_path / "s").exists()
        fetch_export(client, export, tmp_path / "s")
        files = {file["name"]: file["sha256"] for file in client.export_files(export)}
    found = {
        path.relative_to(tmp_path / "s").as_posix(): path for path in (tmp_path / "s").rglob("*") if path.is_file()
    }
    assert {name: sha256_of(path) for name, path in found.items()} == files


@pytest.mark.parametrize("name", ["..%2f..%2fmistudio.db", "%2e%2e", ".hidden", "nothing.json", "link.json", "a%00b"])
def test_what_is_not_of_the_export_is_not_given(studio: str, run: Run, data: Path, name: str) -> None:
    data_of(run("sae", "export", "batchtopk", "--json"))
    made = data / "exports" / "batchtopk-saelens"
    (made / ".hidden").write_text("x")
    if not (made / "link.json").is_symlink():
        (made / "link.json").symlink_to("/etc/passwd")
    assert httpx.get(f"{studio}/api/exports/batchtopk-saelens/files/{name}", trust_env=False).status_code == 404
    for other in ("none", "..", "%2e%2e", "..%2fsaes%2ftopk"):
        assert httpx.get(f"{studio}/api/exports/{other}/files", trust_env=False).status_code == 404


def test_a_format_without_room_is_refused_in_one_sentence(run: Run, data: Path) -> None:
    result = run("sae", "export", "transcoder")
    assert result.exit_code == 10 and "write it as sparsify" in result.output
    assert not (data / "exports" / "transcoder-saelens").exists()
    detached = run("sae", "export", "transcoder", "--detach", "--to", "x")
    assert detached.exit_code == 2 and "leave --detach out" in detached.output


def test_an_export_for_neuronpedia_is_validated_here(run: Run, tmp_path: Path) -> None:
    assert run("sae", "export", "batchtopk", "--format", "neuronpedia", "--to", str(tmp_path / "n")).exit_code == 0
    export = tmp_path / "n" / "m" / "1-res-batchtopk"
    for folder in (export, tmp_path / "n", tmp_path / "n/m"):
        found = data_of(run("neuronpedia", "validate", str(folder), "--json"))
        assert found == {"ok": True, "exports": [{"folder": str(export), "findings": []}]}
    (export / "source.jsonl").write_text("{}\n")
    result = run("neuronpedia", "validate", str(tmp_path / "n"))
    assert result.exit_code == 1 and "source.jsonl:1: " in result.output
    found = json.loads(run("neuronpedia", "validate", str(export), "--json").stdout)
    assert not found["ok"] and {"rule", "file", "line", "message"} == set(found["exports"][0]["findings"][0])


def test_validate_asks_no_studio(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = CliRunner(env={"MISTUDIO_HOST": "127.0.0.1:9"}).invoke(main, ["neuronpedia", "validate", str(tmp_path)])
    assert result.exit_code == 1 and "is missing" in result.output
    assert CliRunner().invoke(main, ["neuronpedia", "validate", str(tmp_path / "none")]).exit_code == 2
