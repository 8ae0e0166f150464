"""Export as a job: each format from a trained SAE, its card, labels of any kind, what is refused, and a job cut off."""

from __future__ import annotations

import json
import re
import shutil
import signal
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from judges import DICTIONARY_LEARNING, SAELENS, SPARSIFY, Judge
from mistudio import recipes
from published import Here
from run_job import folders, run_job, start_job
from safetensors.torch import load_file
from trained_saes import HOOK, WIDTH, change, make_saes, put_in_place, train_again

from mistudiod.engine.formats import FolderListing, find, read
from mistudiod.engine.rules import JumpReLURule, Rule, TopKRule
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.neuronpedia import read as neuronpedia
from mistudiod.neuronpedia.validate import validate
from mistudiod.paths import Paths
from mistudiod.specs import Export, Train
from mistudiod.worker import export, export_neuronpedia
from mistudiod.worker.link import Asked, Link, Refused
from mistudiod.worker.recipe import sha256_of

LABEL = {
    "explanation": None, "confidence": None, "provider": "person", "model": None, "template": None, "score": 0.75,
    "created_at": "2026-01-02T00:00:00.000Z", "status": "accepted",
}  # fmt: skip
HOSTILE = [
    "\0 and \x1b[2J",
    "\u202eevil\u2028",
    '"}\n]',
    "<script>alert(1)</script>",
    "| a | b |",
    "\ud800",
    "日本",
    "```\n# x",
]
JUDGED = {  # layout, and which SAEs there is room for
    SAELENS: ("saelens", ("topk", "batchtopk", "transcoder")),
    SPARSIFY: ("sparsify", ("topk", "transcoder")),
    DICTIONARY_LEARNING: ("dictionary_learning", ("topk", "batchtopk")),
}
LABELS = [{"feature": n, "text": text, **LABEL} for n, text in enumerate(HOSTILE)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_saes(tmp_path_factory.mktemp("export"))


@pytest.fixture
def data(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "data", ignore=shutil.ignore_patterns("checkpoints", "runs"))
    give(tmp_path / "data", [])
    return tmp_path / "data"


def give(folder: Path, labels: list[dict[str, Any]]) -> None:
    """Let a run folder have what the daemon writes there."""
    (folder / "given.json").write_text(json.dumps({"labels": labels}))


def exported(data: Path, sae: str, format: str) -> tuple[Path, dict[str, Any]]:
    result = run_job(data, "export", sae=sae, format=format)
    assert result["files"] and result["path"] == str(data / "exports" / f"{sae}-{format}")
    folder = Path(result["path"])
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert result["files"] == found and result["bytes"] == sum((folder / name).stat().st_size for name in found)
    return folder, result


def blocks(card: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)\n```", card, re.DOTALL)


def code_of(folder: Path, judge: Judge) -> str:
    """What the card of a folder says of loading it with a library."""
    named = {SAELENS: "SAELens", SPARSIFY: "sparsify", DICTIONARY_LEARNING: r"dictionary\_learning"}[judge]
    return blocks((folder / "README.md").read_text().partition(f"### {named}\n")[2], "python")[0]


def add_skip(folder: Path, rule: Rule) -> None:
    sae = SparseAutoencoder.load(folder)
    sae.rule, sae.W_skip = rule, torch.randn(sae.d_out, sae.d_in, generator=torch.Generator().manual_seed(1))
    put_in_place(sae, folder)


def inputs(d_in: int) -> torch.Tensor:
    return 3 * torch.randn(60, d_in, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(
    ("sae", "format"),
    [
        ("topk", "saelens"),
        ("topk", "sparsify"),
        ("topk", "dictionary_learning"),
        ("batchtopk", "saelens"),
        ("batchtopk", "dictionary_learning"),
        ("batchtopk", "gemma_scope_npz"),
        ("transcoder", "sparsify"),
    ],
)
def test_what_was_trained_comes_back_from_each_format(data: Path, tmp_path: Path, sae: str, format: str) -> None:
    folder, _ = exported(data, sae, format)
    (found,) = find(FolderListing(folder))
    (tmp_path / "scratch").mkdir()
    back = read(Here(FolderListing(folder), tmp_path / "scratch"), found).sae
    ours = SparseAutoencoder.load(data / "saes" / sae)
    x = inputs(ours.d_in)
    torch.testing.assert_close(back.encode(x), ours.encode(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(back.decode(back.encode(x), x), ours.decode(ours.encode(x), x), rtol=1e-5, atol=1e-5)


def test_saelens_folder_is_what_lies_here_without_a_path_of_this_machine(data: Path) -> None:
    folder, result = exported(data, "topk", "saelens")
    assert result["files"] == ["README.md", "cfg.json", "sae_weights.safetensors", "sparsity.safetensors"]
    for name in ("sae_weights.safetensors", "sparsity.safetensors"):
        assert sha256_of(folder / name) == sha256_of(data / "saes" / "topk" / name)
    ours, theirs = (json.loads((one / "cfg.json").read_text()) for one in (data / "saes" / "topk", folder))
    assert ours["metadata"].pop("model_source").startswith("/") and ours == theirs
    for name in ("README.md", "cfg.json"):
        assert str(data.parent) not in (folder / name).read_text() and "/tmp" not in (folder / name).read_text()


def test_what_the_hub_has_is_called_as_there(data: Path) -> None:
    change(data / "models/m/model.json", source="openai-community/gpt2", licence="mit")
    change(data / "datasets/d/dataset.json", source="Salesforce/wikitext", licence="cc-by-sa-3.0")
    folder, _ = exported(data, "topk", "saelens")
    metadata = json.loads((folder / "cfg.json").read_text())["metadata"]
    assert (metadata["model_name"], metadata["dataset_path"]) == ("openai-community/gpt2", "Salesforce/wikitext")
    card = (folder / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["base_model"] == "openai-community/gpt2" and front["datasets"] == ["Salesforce/wikitext"]
    assert "license" not in front and "No licence of the SAE itself is stated." in card
    assert "licence of the model is mit" in card and "licence of the text is cc-by-sa-3.0" in card


def test_the_card_says_what_was_measured_and_how_to_make_it_again(data: Path, tmp_path: Path) -> None:
    recipe = json.loads((data / "saes/topk/recipe.json").read_text())
    folder, _ = exported(data, "topk", "saelens")
    card = (folder / "README.md").read_text()
    for name, form in (("fvu", ".4g"), ("l0", ".1f"), ("alive", ".1%"), ("dead", ".1%"), ("pca_fvu", ".4g")):
        assert f"| {recipe[name]:{form}} |" in card, name
    assert recipe["ce_delta"] is None and "ΔCE" not in card
    assert f"On {recipe['held_out_tokens']:,} held-out tokens" in card and f"| {recipe['tokens']:,} |" in card
    (again,) = blocks(card, "json")
    (tmp_path / "recipe.json").write_text(again)
    spec = recipes.again(recipes.read(tmp_path / "recipe.json"), "again")
    assert Train.model_validate(spec).only(Train.model_validate(spec).saes()[0]).hook == [HOOK]
    assert spec["precision"] == recipe["resolved"]["precision"]


def test_nothing_that_was_not_measured_is_in_the_card_of_an_imported_sae(data: Path) -> None:
    source = {"source": "somebody/saes", "revision": "main", "path": "a/b", "format": "saelens", "licence": "mit"}
    declared = {"l0": 12.5, "variance_explained": None}
    recipe = json.loads((data / "saes/topk/recipe.json").read_text())
    kept = {name: recipe[name] for name in ("model", "hook", "spec", "resolved", "sae_sha256", "width")}
    text = "A row was folded | and <b>said</b>."
    kept |= {"imported": source | {"files": {}, "declared": declared, "notes": [text], "pickle": False}}
    (data / "saes/topk/recipe.json").write_text(json.dumps(kept))
    card = (exported(data, "topk", "saelens")[0] / "README.md").read_text()
    assert "Nothing has been measured of it here." in card and "FVU" not in card
    assert "## Declared by its maker, not measured here" in card and "| l0 | 12.5 |" in card
    assert yaml.safe_load(card.split("---")[1])["license"] == "mit"
    assert "mistudio sae add somebody/saes:a/b --name topk --revision main" in card
    assert "| somebody/saes a/b at main |" in card
    assert r"A row was folded \| and \<b\>said\</b\>." in card


@pytest.mark.parametrize(
    ("licence", "said"),
    [
        ("Apache-2.0", {"license": "apache-2.0"}),
        ("llama3.1 Community License", {"license": "other", "license_name": "llama3.1-community-license"}),
        ("私有", {"license": "other"}),
        (None, {}),
    ],
)
def test_the_top_of_the_card_has_only_licences_that_the_hub_takes(
    data: Path, licence: str | None, said: dict[str, str]
) -> None:
    change(data / "saes/topk/recipe.json", imported={"source": "somebody/saes", "licence": licence})
    for layout, library in (("saelens", "saelens"), ("sparsify", None)):
        front = yaml.safe_load((exported(data, "topk", layout)[0] / "README.md").read_text().split("---")[1])
        assert {key: value for key, value in front.items() if key.startswith("license")} == said
        assert front.get("library_name") == library and ("saelens" in front["tags"]) == bool(library)


def test_a_certificate_is_in_the_card_as_long_as_it_is_of_this_sae(data: Path) -> None:
    folder = data / "saes/topk"
    hashes = {name: sha256_of(folder / name) for name in ("cfg.json", "sae_weights.safetensors")}
    figures = {"fvu": 0.123456, "l0": 31.5, "alive": 0.9, "ce_delta": None}
    certificate = {"declared": figures, "tokens": 4096, "verdict": ["it holds"], "sha256": {"sae": hashes}}
    (folder / "certificate.json").write_text(json.dumps(certificate))
    card = (exported(data, "topk", "saelens")[0] / "README.md").read_text()
    assert "## Certificate" in card and "| 0.1235 |" in card and "On 4,096 held-out tokens" in card
    change(folder / "cfg.json", device="cuda")
    card = (exported(data, "topk", "saelens")[0] / "README.md").read_text()
    assert "## Certificate" not in card


def test_an_evaluation_is_in_the_card_with_its_intervals(data: Path) -> None:
    figures = {
        "fvu": {"value": 0.123456, "interval": [0.12, 0.1278]},
        "alive": {"value": 0.9, "interval": None},
        "dead": {"value": 0.1, "interval": None},
        "ce_recovered_mean": {"value": None, "interval": None},
    }
    found = {"figures": figures, "tokens": 65_536, "verdict": ["it is measured"], "sha256": {}}
    (data / "saes/topk/evaluation.json").write_text(json.dumps(found))
    card = (exported(data, "topk", "saelens")[0] / "README.md").read_text().partition("## Evaluation")[2]
    assert "| 0.1235 (0.12 to 0.1278) |" in card and "| 90.0% |" in card and "On 65,536 held-out tokens" in card
    assert "training counted as dead" not in card and "- it is measured" in card


@pytest.mark.timeout(300)
@pytest.mark.parametrize("judge", [pytest.param(one, id=one.name, marks=one.needed) for one in JUDGED])
def test_the_code_of_the_cards_runs_there_as_it_stands_and_computes_the_same(
    data: Path, tmp_path: Path, judge: Judge
) -> None:
    """That of the layout's own card, and what SAELens' card says of the layout when it was written beside."""
    layout, shape = JUDGED[judge]
    add_skip(data / "saes/transcoder", JumpReLURule(torch.full((WIDTH,), 0.05)) if judge is SAELENS else TopKRule(4))
    codes, saes = [], []
    for sae in shape:
        own, _ = exported(data, sae, layout)
        codes.append((own, code_of(own, judge)))
        if judge is not SAELENS and sae != "transcoder":
            card, _ = exported(data, sae, "saelens")
            shutil.copytree(own, card / f"{sae}-{layout}")
            codes.append((card, code_of(card, judge)))
        saes += [SparseAutoencoder.load(data / "saes" / sae)] * (len(codes) - len(saes))
    for ours, theirs in zip(saes, judge.run_code(codes, tmp_path), strict=True):
        x = theirs["x"]
        torch.testing.assert_close(theirs["z"], ours.encode(x), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(theirs["rebuilt"], ours.decode(ours.encode(x), x), rtol=1e-5, atol=1e-5)


def test_the_code_for_numpy_runs_as_it_stands(data: Path) -> None:
    folder, _ = exported(data, "batchtopk", "gemma_scope_npz")
    said: dict[str, Any] = {}
    code = blocks((folder / "README.md").read_text(), "python")[0]
    at = re.search(r'np.load\("(.*)"\)', code)
    assert at is not None
    exec(code.replace(at[1], str(folder / at[1])), said)
    ours = SparseAutoencoder.load(data / "saes/batchtopk").encode(torch.from_numpy(said["x"]))
    torch.testing.assert_close(torch.from_numpy(said["latents"]), ours, rtol=1e-4, atol=1e-4)


def test_labels_of_any_kind_go_with_it_and_break_nothing(data: Path) -> None:
    give(data, LABELS)
    for sae, format in (("topk", "saelens"), ("topk", "sparsify"), ("batchtopk", "gemma_scope_npz")):
        folder, _ = exported(data, sae, format)
        found = json.loads((folder / "feature_labels.json").read_text("utf-8"))
        assert found["labels"] == LABELS and found["sae"] == sae
        assert found["sae_sha256"] == sha256_of(data / "saes" / sae / "sae_weights.safetensors")
        card = (folder / "README.md").read_text()
        assert f"{len(LABELS)} of {WIDTH} features have a label" in card and "script" not in card


def test_a_zip_holds_the_folder_and_is_always_the_same(data: Path, tmp_path: Path) -> None:
    give(data, LABELS)
    folder, result = exported(data, "topk", "zip")
    assert result["files"] == ["topk.zip"]
    first = sha256_of(folder / "topk.zip")
    plain, _ = exported(data, "topk", "saelens")
    with zipfile.ZipFile(folder / "topk.zip") as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path / "out")
    for path in plain.iterdir():
        assert (tmp_path / "out/topk" / path.name).read_bytes() == path.read_bytes()
    assert sha256_of(exported(data, "topk", "zip")[0] / "topk.zip") == first


def test_features_and_labels_go_to_neuronpedia_and_break_none_of_its_rules(data: Path) -> None:
    give(data, LABELS)
    folder, result = exported(data, "batchtopk", "neuronpedia")
    at = folder / "m" / "1-res-batchtopk"
    assert validate(at) == []
    assert {index for index, _ in neuronpedia.rows(at, "features")} == set(range(WIDTH))
    told = {one["feature"]: one["text"] for one in neuronpedia.labels(at)}
    assert told[3] == HOSTILE[3] and len(told) == len(HOSTILE)
    assert "m/1-res-batchtopk" in result["notes"][0]
    first = {path.name: sha256_of(path) for path in at.rglob("*") if path.is_file()}
    exported(data, "batchtopk", "neuronpedia")
    assert first == {path.name: sha256_of(path) for path in at.rglob("*") if path.is_file()}


def test_an_export_that_breaks_a_rule_fails_and_the_one_before_it_stays(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = exported(data, "batchtopk", "neuronpedia")
    before = sorted(folder.rglob("*"))

    def spoiled(at: Path, *rest: Any) -> dict[str, int]:
        (at / "source.jsonl").write_text("{}\n{}\n")
        return {}

    monkeypatch.setattr(export_neuronpedia, "write", spoiled)
    with pytest.raises(Refused, match=r"breaks a rule of Neuronpedia's \(.*and \d+ more in the log"):
        exported(data, "batchtopk", "neuronpedia")
    assert sorted(folder.rglob("*")) == before and folders(data, "exports") == ["batchtopk-neuronpedia"]


@pytest.mark.parametrize(
    ("sae", "format", "why"),
    [
        ("none", "saelens", "there is no SAE called none"),
        ("transcoder", "saelens", "no transcoder that takes the k largest latents: write it as sparsify"),
        ("transcoder", "zip", "no transcoder that takes the k largest latents: write it as sparsify"),
        ("batchtopk", "sparsify", "write it as saelens or dictionary_learning or gemma_scope_npz"),
        ("topk", "gemma_scope_npz", "write it as saelens or sparsify or dictionary_learning"),
        ("topk", "neuronpedia", "no features of topk as it is now have been extracted: mistudio feature extract topk"),
        ("topk", "saedashboard", "no features of topk as it is now have been extracted: mistudio feature extract topk"),
    ],
)
def test_what_cannot_be_written_is_refused_and_leaves_nothing(data: Path, sae: str, format: str, why: str) -> None:
    with pytest.raises(Refused, match=re.escape(why)):
        exported(data, sae, format)
    assert folders(data, "exports") == []


def test_features_of_an_earlier_sae_of_that_name_are_not_taken_for_its(data: Path) -> None:
    train_again(data / "saes/batchtopk")
    with pytest.raises(Refused, match="those that there are, are of other weights: extract them again"):
        exported(data, "batchtopk", "neuronpedia")


def test_where_an_sae_is_from_is_written_whole(data: Path) -> None:
    made_by = {"source": "me/saes:blocks.1/res", "path": "blocks.1/res", "revision": "main"}
    change(data / "saes/batchtopk/recipe.json", imported=made_by)
    change(data / "models/m/model.json", source="google/gemma-2-2b-it")
    folder, _ = exported(data, "batchtopk", "neuronpedia")
    meta = neuronpedia.meta(folder / "gemma-2-2b-it" / "1-res-batchtopk")
    source, model = meta["source"], meta["model"]
    assert (source["hfRepoId"], source["hfFolderId"], meta["release"]["creatorName"]) == (
        "me/saes",
        "blocks.1/res",
        "me",
    )
    assert (model["instruct"], model["layers"], model["neuronsPerLayer"], model["owner"]) == (True, 3, 64, "google")


def test_a_damaged_sae_is_refused(data: Path) -> None:
    weights = data / "saes/topk/sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(Refused):
        exported(data, "topk", "saelens")
    assert folders(data, "exports") == []


def test_an_export_that_is_asked_to_stop_leaves_the_one_before_it(data: Path) -> None:
    folder, _ = exported(data, "batchtopk", "neuronpedia")
    before = sorted(folder.rglob("*"))
    link = Link(data, Paths(data))
    link.hear("stop")
    for format in ("neuronpedia", "saedashboard", "zip"):
        with pytest.raises(Asked):
            export.run(Export(sae="batchtopk", format=format), link)
    assert folders(data, "exports") == ["batchtopk-neuronpedia"] and sorted(folder.rglob("*")) == before


def test_a_killed_export_leaves_nothing_that_is_listed_or_stays(data: Path) -> None:
    (data / "runs/1").mkdir(parents=True)
    give(data / "runs/1", LABELS)
    made = data / "exports/batchtopk-neuronpedia"
    for _ in range(10):
        process = start_job(data, "export", sae="batchtopk", format="neuronpedia")
        while not (seen := list(data.glob("exports/.partial-*"))) and process.poll() is None:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        assert process.stdin is not None
        process.stdin.close()
        if not made.exists():
            break
        shutil.rmtree(made)  # it was whole before it was killed
    assert seen and not made.exists()
    Paths(data).sweep_worker(1, process.pid)
    assert folders(data, "exports") == []


def test_weights_are_as_they_were(data: Path) -> None:
    """The folds are of copies: the SAE here is not touched."""
    before = load_file(data / "saes/batchtopk/sae_weights.safetensors")
    exported(data, "batchtopk", "gemma_scope_npz")
    after = load_file(data / "saes/batchtopk/sae_weights.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)
