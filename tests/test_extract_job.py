"""Extraction as a job: a real model and SAE, what is refused, what is skipped, and a job that is cut off."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import OpenStudio, put_artifact
from run_job import events, run_job
from safetensors.torch import load_file, save_file
from tiny_models import LINES, configure, tiny_model

from mistudiod.engine.evidence import Asked as AskedFor
from mistudiod.engine.extract import spread
from mistudiod.engine.harvest import Harvest
from mistudiod.engine.inspect import read
from mistudiod.engine.lm import load_lm
from mistudiod.engine.measure import measure
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.engine.tokens import TokenWindows
from mistudiod.pages import Pages
from mistudiod.paths import Paths
from mistudiod.specs import Extract
from mistudiod.worker import extract
from mistudiod.worker.link import Asked, Link, Refused

HOOK, CONTEXT, TOKENS = "blocks.1.hook_resid_post", 16, 6_000
SPEC = {"sae": "s", "tokens": TOKENS, "examples": 6, "context": "5,4"}
TRAIN = {
    "tokenization": "t", "hook": HOOK, "width": 96, "k": 4, "steps": 60, "batch_tokens": 128, "buffer_tokens": 2048,
}  # fmt: skip
ARCHITECTURES = ("batchtopk", "topk", "standard", "gated", "transcoder")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with SAEs of several architectures."""
    home = tmp_path_factory.mktemp("extract")
    tiny_model("llama", home / "model")
    (home / "text.txt").write_text("\n\n".join(LINES) * 100)
    data = home / "data"
    run_job(data, "add_model", source=str(home / "model"), name="m")
    run_job(data, "add_dataset", source=str(home / "text.txt"), name="d")
    run_job(data, "tokenize", name="t", dataset="d", model="m", context=CONTEXT)
    for name in ARCHITECTURES:
        more = {"hook_out": "blocks.1.hook_mlp_out"} if name == "transcoder" else {}
        run_job(data, "train", name=name, architecture=name, **{**TRAIN, **more})
    shutil.copytree(data / "saes" / "batchtopk", data / "saes" / "s")
    return data


@pytest.fixture
def data(made: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    shutil.copytree(made, tmp_path / "data", ignore=shutil.ignore_patterns("features", "checkpoints", "runs"))
    return tmp_path / "data"


def job(data: Path, run: int = 1, link: type[Link] = Link, **changes: Any) -> Pages:
    """Run the job; its events go to stderr."""
    folder = data / "runs" / str(run)
    folder.mkdir(parents=True, exist_ok=True)
    spec = Extract.model_validate(SPEC | changes)
    extract.run(spec, link(folder, Paths(data)))
    return Pages(data / "features" / spec.sae / str(run))


def read_again(data: Path, sae: str, hook: str, count: int) -> tuple[np.ndarray[Any, Any], torch.Tensor]:
    """The windows of an extraction, and all latents of their tokens: (rows, context, d_sae)."""
    lm = load_lm(model_of(data))
    windows = TokenWindows(data / "tokens" / "t")
    numbers = spread(windows.train, CONTEXT, count)
    x = lm.activations(torch.from_numpy(windows.rows(numbers)), hook).bfloat16().float()
    return numbers, SparseAutoencoder.load(data / "saes" / sae).encode(x.flatten(0, 1)).view(*x.shape[:2], -1)


def model_of(data: Path) -> Path:
    return Path(json.loads((data / "models" / "m" / "model.json").read_text())["path"])


@pytest.mark.parametrize("sae", ARCHITECTURES)
def test_marked_tokens_carry_the_activation_that_the_model_gives_there(sae: str, made: Path) -> None:
    pages = job(made, sae=sae, run=ARCHITECTURES.index(sae) + 10)
    hook = "blocks.1.hook_resid_post"
    numbers, latents = read_again(made, sae, hook, TOKENS)
    special, checked = set(TokenWindows(made / "tokens" / "t").special_ids), 0
    for feature in range(pages.d_sae):
        page = pages.page(feature)
        for example in page["examples"]:
            assert example["window"] == numbers[example["row"]]
            shown = slice(example["first"], example["first"] + len(example["ids"]))
            again = latents[example["row"], shown, feature].numpy().copy()
            again[[i for i, id in enumerate(example["ids"]) if id in special]] = 0
            np.testing.assert_allclose(example["activations"], again, rtol=0.02, atol=0.02)
            assert example["activations"][example["peak"]] == pytest.approx(example["max"])
            checked += example["kind"] != "near"
    assert checked > 200


@pytest.mark.parametrize("sae", ARCHITECTURES)
def test_a_window_that_is_inspected_carries_the_values_of_the_store(sae: str, made: Path) -> None:
    pages = job(made, sae=sae, run=ARCHITECTURES.index(sae) + 10)  # there already, or made now
    recipe = json.loads((made / "saes" / sae / "recipe.json").read_text())
    weights, lm = SparseAutoencoder.load(made / "saes" / sae), load_lm(model_of(made))
    windows, checked, same = TokenWindows(made / "tokens" / "t"), 0, 0
    for feature in range(0, pages.d_sae, 5):
        for example in pages.page(feature)["examples"][:4]:
            ids = windows.rows([example["window"]])[0].tolist()
            reading = read(lm, weights, HOOK, ids, windows.special_ids, recipe["resolved"]["outlier_norms"])
            again = torch.where(reading.latents == feature, reading.values, 0.0).sum(1)
            shown = slice(example["first"], example["first"] + len(example["ids"]))
            np.testing.assert_allclose(again[shown], example["activations"], rtol=0.02, atol=0.02)
            same += np.isclose(again[shown], example["activations"], rtol=1e-5, atol=1e-6).all()
            checked += 1
    assert checked > 30
    assert same > 0.9 * checked, "equal, but where the order of a sum has rounded an activation to another bf16"


@pytest.mark.parametrize("sae", ARCHITECTURES)
def test_l0_and_counts_are_those_of_the_evaluation_of_the_same_tokens(sae: str, made: Path) -> None:
    pages = job(made, sae=sae, run=ARCHITECTURES.index(sae) + 20)
    windows, lm = TokenWindows(made / "tokens" / "t"), load_lm(model_of(made))
    recipe = json.loads((made / "saes" / sae / "recipe.json").read_text())
    norms = recipe["resolved"]["outlier_norms"]
    hooks = list(norms)
    harvest = Harvest(windows, lambda ids: torch.cat(lm.activations_at(ids, hooks), dim=-1), [32] * len(hooks),
                      lm_tokens=4096, outlier_norms=tuple(norms.values()))  # fmt: skip
    numbers, here = spread(windows.train, CONTEXT, TOKENS), 32 * hooks.index(HOOK)
    found = measure(SparseAutoencoder.load(made / "saes" / sae), (
        (x[:, here : here + 32],) * 2 for x in harvest.batches(numbers)))  # fmt: skip
    assert pages.manifest["tokens"] == found.tokens
    assert pages.manifest["l0"] == pytest.approx(found.l0, rel=1e-4)
    fired = [pages.row(feature)["fired"] for feature in range(pages.d_sae)]
    assert np.abs(np.array(fired) - found.fired.numpy()).max() <= 1
    assert pages.manifest["dead"] == fired.count(0)
    total = len(numbers) * CONTEXT
    assert pages.manifest["skipped"]["special"] + pages.manifest["skipped"]["outliers"] == total - found.tokens


def test_the_result_says_what_was_found_and_the_store_is_whole(data: Path) -> None:
    told = events(data, "extract", **SPEC)
    result = next(event["result"] for event in told if event["event"] == "result")
    manifest = json.loads(next(data.glob("features/s/*/manifest.json")).read_text())
    assert {"l0", "dead", "tokens_per_s", "features"} <= result.keys()
    assert result == {name: manifest[name] for name in result}
    for name, file in manifest["files"].items():
        path = next(data.glob(f"features/s/*/{name}"))
        assert file == {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert not list(data.glob("**/shards"))


def test_progress_and_live_features_are_told_while_the_text_is_read(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract, "SHARD_ENTRIES", 5_000)
    monkeypatch.setattr("mistudiod.worker.extract_source.PASS_TOKENS", {"cpu": 512, "cuda": 512})
    told = events(data, "extract", **SPEC)
    stages = list(dict.fromkeys(one["stage"] for one in told if one["event"] == "progress"))
    assert stages == ["load model", "read text", "neighbours", "write", "sort", "features", "hash"]
    live = [one for one in told if one["event"] == "live"]
    assert len(live) > 2
    assert {one["sae"] for one in live} == {"s"}
    assert len(live[0]["features"]) == 8
    window = live[-1]["features"][0]["windows"][0]
    assert window["value"] > 0
    assert window["token"]
    first = [one for one in told if one["event"] in ("live", "artifact")]
    assert first[0]["event"] == "live"


@pytest.mark.parametrize(("examples", "context"), [(6, "5,4"), (64, "512,512"), (1, "0,0")])
def test_the_disk_that_a_store_takes_is_foreseen_by_what_is_asked_for(examples: int, context: str, data: Path) -> None:
    pages = job(data, examples=examples, context=context)
    around = tuple(map(int, context.split(",")))
    foreseen = extract.feature_bytes(AskedFor(examples, CONTEXT), around, 2) * pages.d_sae
    taken = (pages.folder / "pages.bin").stat().st_size + AskedFor(examples, CONTEXT).summary().itemsize * pages.d_sae
    assert taken <= foreseen < 4 * taken
    assert extract.feature_bytes(AskedFor(64, 2_048), (512, 512), 4) > 88 * 1_025 * 4


def test_special_tokens_and_outliers_are_left_out_and_counted(data: Path) -> None:
    path = data / "saes" / "s" / "recipe.json"
    recipe = json.loads(path.read_text())
    usual = job(data, run=1).manifest
    assert recipe["resolved"]["outlier_norms"].keys() == {HOOK}
    norms = recipe["resolved"].pop("outlier_norms")
    path.write_text(json.dumps(recipe))
    again = job(data, run=2).manifest
    assert again["skipped"] == usual["skipped"], "a recipe that does not say has its norms found as a training does"
    recipe["resolved"]["outlier_norms"] = {HOOK: norms[HOOK] / 10}  # the median
    path.write_text(json.dumps(recipe))
    fewer = job(data, run=3).manifest
    assert fewer["skipped"]["special"] == usual["skipped"]["special"] > 0
    assert fewer["skipped"]["outliers"] == usual["tokens"] - fewer["tokens"] > usual["tokens"] / 4


def test_an_sae_that_learned_from_outliers_is_shown_them(data: Path) -> None:
    path = data / "saes" / "s" / "recipe.json"
    recipe = json.loads(path.read_text())
    recipe["spec"]["outliers"] = True
    recipe["resolved"]["outlier_norms"] = None
    path.write_text(json.dumps(recipe))
    assert job(data).manifest["skipped"]["outliers"] == 0


def test_without_postings_the_pages_are_the_same(data: Path) -> None:
    with_, without = job(data, run=1), job(data, run=2, postings=False)
    for feature in range(0, with_.d_sae, 7):
        assert with_.page(feature) == without.page(feature)
    assert len(with_.postings(5)[0]) == with_.row(5)["fired"]
    assert not (without.folder / "postings.tok").exists()
    with pytest.raises(ValueError, match="postings"):
        without.postings(5)


# -- cut off ---------------------------------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, Any]:
    """All files of a store, but what says how long it took and whose it is."""
    found: dict[str, Any] = {path.name: path.read_bytes() for path in folder.iterdir()}
    manifest = json.loads(found.pop("manifest.json"))
    for name in ("seconds", "tokens_per_s", "id", "job"):
        del manifest[name]
    return found | {"manifest": manifest}


class Pausing(Link):
    """Asked to pause once a number of shards is there."""

    shards = 2

    def check(self) -> None:
        if len(list(self.run.glob("shards/[0-9]*"))) >= self.shards:
            self.hear("pause")
        super().check()


def test_a_paused_extraction_goes_on_and_is_the_same_to_the_byte(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract, "SHARD_ENTRIES", 3_000)
    monkeypatch.setattr("mistudiod.worker.extract_source.PASS_TOKENS", {"cpu": 1_024, "cuda": 1_024})
    for shards in (1, 2, 4):
        monkeypatch.setattr(Pausing, "shards", shards)
        with pytest.raises(Asked):
            job(data, run=1, link=Pausing)
        assert not list(data.glob("features/s/*")), "nothing that is half made"
    job(data, run=1)
    job(data, run=2)
    assert contents(data / "features" / "s" / "1") == contents(data / "features" / "s" / "2")
    assert not (data / "runs" / "1" / "shards").exists()


KILLABLE = """
import sys, time, torch
from pathlib import Path
from mistudiod.paths import Paths
from mistudiod.specs import Extract
from mistudiod.worker import extract, extract_source
from mistudiod.worker.link import Link
torch.set_num_threads(int(sys.argv[3]))
extract.SHARD_ENTRIES = 1_500
extract_source.PASS_TOKENS = {"cpu": 512, "cuda": 512}
data = Path(sys.argv[1])
class Slower(Link):
    def check(self):
        if (self.run / "shards" / "00003").exists():
            time.sleep(0.05)  # whoever kills it is to come in time
        super().check()
extract.run(Extract.model_validate_json(sys.argv[2]), Slower(data / "runs" / "1", Paths(data)))
"""


def test_a_killed_extraction_goes_on_and_is_the_same_to_the_byte(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, shards = Extract.model_validate(SPEC | {"tokens": 24_000}), data / "runs" / "1" / "shards"
    shards.parent.mkdir(parents=True)
    command = [sys.executable, "-c", KILLABLE, str(data), spec.model_dump_json(), str(torch.get_num_threads())]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not (shards / "00003").exists():
        assert process.poll() is None
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not list(data.glob("features/s/*"))
    made = {path: path.stat().st_mtime_ns for path in shards.glob("0000[0-3]")}
    monkeypatch.setattr(extract, "SHARD_ENTRIES", 1_500)
    monkeypatch.setattr("mistudiod.worker.extract_source.PASS_TOKENS", {"cpu": 512, "cuda": 512})
    monkeypatch.setattr("shutil.rmtree", keeping(shards, shutil.rmtree))
    job(data, run=1, tokens=24_000)
    assert {path: path.stat().st_mtime_ns for path in made} == made, "what was whole was not made again"
    job(data, run=2, tokens=24_000)
    assert contents(data / "features" / "s" / "1") == contents(data / "features" / "s" / "2")


def keeping(kept: Path, remove: Any) -> Any:
    return lambda path, *args, **more: None if Path(path) == kept else remove(path, *args, **more)


def test_a_job_that_died_after_its_store_was_there_says_the_same_again(data: Path) -> None:
    first = events(data, "extract", **SPEC)
    again = events(data, "extract", **SPEC)
    assert [one for one in again if one["event"] != "progress"] == first[-2:]


# -- what is refused -------------------------------------------------------------------------------------------------


def refused(data: Path, **changes: Any) -> tuple[str, str | None]:
    with pytest.raises(Refused) as caught:
        job(data, **changes)
    assert not list(data.glob("features/*/*"))
    return str(caught.value), caught.value.field


def test_an_sae_or_tokenization_that_is_not_there_is_refused(data: Path) -> None:
    assert refused(data, sae="none") == ("there is no SAE called none: train one first", "sae")
    message, field = refused(data, tokenization="none")
    assert "is not a tokenization" in message
    assert field == "tokenization"
    shutil.rmtree(data / "tokens" / "t")
    message, field = refused(data)
    assert message.startswith("the tokenization t that the SAE was trained on is not here")
    assert field == "sae"


def test_a_tokenization_of_another_tokenizer_is_refused(data: Path) -> None:
    shutil.copytree(data / "tokens" / "t", data / "tokens" / "other")
    path = data / "tokens" / "other" / "tokenization.json"
    facts = json.loads(path.read_text())
    path.write_text(json.dumps(facts | {"name": "other", "tokenizer_sha256": "0" * 64}))
    message, field = refused(data, tokenization="other")
    assert message == (
        "the tokenization other was made with another tokenizer than that of m, the SAE's model: "
        "tokenize the text for m"
    )
    assert field == "tokenization"
    del facts["tokenizer_sha256"]
    path.write_text(json.dumps(facts | {"model": "another"}))
    assert refused(data, tokenization="other")[1] == "tokenization"
    path.write_text(json.dumps(facts))
    assert job(data, tokenization="other").manifest["tokenization"] == "other"


def test_windows_that_are_longer_than_the_model_reads_are_refused(data: Path) -> None:
    home = data.parent / "short"
    shutil.copytree(model_of(data), home)
    configure(home, max_position_embeddings=8)
    path = data / "models" / "m" / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"path": str(home)}))
    message, field = refused(data)
    assert message == ("the windows of t have 16 tokens, and m reads only 8: tokenize with a context of 8 or less")
    assert field == "sae"


def test_a_damaged_sae_or_a_model_that_is_gone_is_refused(data: Path) -> None:
    path = data / "saes" / "s" / "sae_weights.safetensors"
    weights = load_file(path)
    save_file({**weights, "W_enc": weights["W_enc"][:, :-1].contiguous()}, path)
    assert refused(data)[1] == "sae"
    save_file(weights, path)
    shutil.rmtree(data / "models" / "m")
    assert refused(data) == ("the model m that s was trained on is not here: add it again", "sae")


def test_a_text_that_does_not_fit_on_the_disk_is_refused_after_the_first_shard(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract, "SHARD_ENTRIES", 2_000)
    monkeypatch.setattr(extract, "POSTING_BYTES", 10**13)
    message, field = refused(data)
    assert "ask for fewer --tokens" in message
    assert field == "tokens"
    assert len(list((data / "runs" / "1" / "shards").glob("[0-9]*"))) == 1


# -- the daemon ------------------------------------------------------------------------------------------------------


async def test_live_features_of_an_extraction_reach_whoever_asks(open_studio: OpenStudio, tmp_path: Path) -> None:
    put_artifact(tmp_path / "data", "saes", "hostile", "recipe.json")
    studio = await open_studio()
    job = await studio.submit({"kind": "extract", "sae": "hostile"})
    assert job["makes"] is None
    await studio.until(job["id"], "done")
    (live,) = (await studio.get(f"/api/jobs/{job['id']}/live"))["saes"]
    assert (live["sae"], live["step"], live["features"][0]["feature"]) == ("hostile", 1, 7)
