"""Bringing in published SAEs: from folders, files, uploads and the Hub, as real workers do it; and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hub import Hub, served_hub  # noqa: F401
from repos_of_saes import (  # noqa: F401
    D,
    F,
    K,
    add,
    dictionary_learning,
    gemma_latents,
    gemma_scope,
    hf_home,
    refused,
    sparsify,
    sparsify_latents,
    weights,
)
from run_job import events, folders, run_job, start_job
from safetensors.torch import save_file
from tiny_models import LINES, tiny_model

from mistudiod import paths
from mistudiod.engine.lm import load_lm
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.pages import Pages
from mistudiod.paths import DiskFull, Paths
from mistudiod.specs import AddSae, Extract
from mistudiod.worker import extract
from mistudiod.worker.link import Link, Refused
from mistudiod.worker.sae_model import find_model, hub_id

HOOK, TEXT = "blocks.1.hook_resid_post", "for name in names: print(name)"
SCOPE = "gemma-scope-2b-pt-res/layer_1/width_16k/average_l0_9"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the model ``m``, whose folder is called tiny, and a text."""
    home = tmp_path_factory.mktemp("add")
    tiny_model("llama", home / "tiny")
    (home / "text.txt").write_text("\n\n".join(LINES) * 30)
    data = home / "data"
    run_job(data, "add_model", source=str(home / "tiny"), name="m")
    run_job(data, "add_dataset", source=str(home / "text.txt"), name="d")
    run_job(data, "tokenize", name="t", dataset="d", model="m", context=16)
    return data


@pytest.fixture
def data(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "data"))


def activations(data: Path, hook: str = HOOK) -> tuple[list[int], torch.Tensor]:
    """Ids of TEXT and the model's activations there, (tokens, D)."""
    lm = load_lm(Path(json.loads((data / "models" / "m" / "model.json").read_text())["path"]))
    ids = lm.text_ids(TEXT, True)
    return ids, lm.activations(torch.tensor([ids]), hook)[0].bfloat16().float()  # as they are read


def inspected(data: Path, sae: str = "s") -> dict[int, dict[int, float]]:
    """By each token of TEXT that counts, what fires."""
    found = run_job(data, "inspect", sae=sae, text=TEXT, top=20, ignore_denser=None)
    return {
        n: {one["index"]: one["value"] for one in token["features"]}
        for n, token in enumerate(found["tokens"])
        if not token["special"]
    }


def assert_fires_as(fired: dict[int, dict[int, float]], latents: torch.Tensor) -> None:
    assert fired and any(fired.values())
    for token, features in fired.items():
        expected = latents[token]
        assert len(features) == min(int((expected > 0).sum()), 20)
        for index, value in features.items():
            assert value == pytest.approx(expected[index].item(), rel=1e-3, abs=1e-3)


def assert_steers(data: Path, latents: torch.Tensor) -> None:
    """A worker process changes a text by the feature that fires most on TEXT."""
    feature = int(latents[1:].max(0).values.argmax())
    asked = {"sae": "s", "prompt": TEXT, "steering": [{"feature": feature, "strength": 20}], "max_tokens": 6}
    result = run_job(data, "steer", **asked)
    (steered,) = result["steered"]
    assert steered["no_effect"] is None and steered["text"] != result["baseline"]["text"]


def extracted(data: Path) -> Pages:
    """Extraction 7 of ``s``."""
    run = data / "runs" / "7"
    run.mkdir(parents=True)
    extract.run(Extract(sae="s", tokenization="t", tokens=1000), Link(run, Paths(data)))
    return Pages(data / "features" / "s" / "7")


def process(data: Path, **fields: Any) -> None:
    """A worker process at the job, to its end."""
    worker = start_job(data, **fields)
    assert worker.wait(120) == 0, (data / "runs" / "1" / "log.txt").read_text()
    assert worker.stdin
    worker.stdin.close()


# What was brought in works as what was trained


def test_an_npz_like_gemma_scopes_is_extracted_inspected_and_steered(data: Path, tmp_path: Path) -> None:
    source = gemma_scope(tmp_path / SCOPE)
    process(data, kind="add_sae", source=str(source), name="s", model="m")
    recipe = json.loads((data / "saes/s/recipe.json").read_text())
    assert (recipe["hook"], recipe["width"], recipe["architecture"]) == (HOOK, F, "jumprelu")
    _, x = activations(data)
    assert_fires_as(inspected(data), gemma_latents(x))

    pages = extracted(data)
    assert pages.d_sae == F and 0 < pages.manifest["dead"] + 1 < F

    assert_steers(data, gemma_latents(x))


def test_a_sparsify_folder_is_matched_extracted_and_steered(data: Path, tmp_path: Path) -> None:
    folder = sparsify(tmp_path / "saes" / "layers.1")
    (tmp_path / "saes" / "config.json").write_text(json.dumps({"model": "org/tiny"}))
    recipe = add(data, tmp_path / "saes")
    assert (recipe["model"]["name"], recipe["hook"], recipe["k"]) == ("m", HOOK, K)
    _, x = activations(data)
    assert_fires_as(inspected(data), sparsify_latents(x))
    assert extracted(data).manifest["l0"] == pytest.approx(K, abs=0.2)
    assert_steers(data, sparsify_latents(x))
    assert folder.is_dir(), "the source stays as it is"


def test_its_folder_says_where_it_is_from_and_nothing_that_nobody_knows(data: Path, tmp_path: Path) -> None:
    source = gemma_scope(tmp_path / SCOPE)
    (source / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n")
    recipe = add(data, source, model="m")
    assert recipe["imported"].items() >= {
        "source": str(source), "revision": None, "path": "", "format": "gemma_scope", "pickle": False,
        "model": "gemma-2-2b", "context": 1024, "declared": {"l0": 9.0}, "licence": "cc-by-4.0",
    }.items()  # fmt: skip
    assert recipe["imported"]["files"].keys() == {"params.npz"}
    assert not recipe.keys() & {"tokenization", "data", "fvu", "l0", "alive", "tokens"}
    assert recipe["spec"] == {"hook": HOOK} and recipe["resolved"] == {}
    sae = SparseAutoencoder.load(data / "saes/s")
    assert sae.metadata.items() >= {"model_name": "gemma-2-2b", "hook_name": HOOK, "prepend_bos": True}.items()
    torch.testing.assert_close(sae.W_enc, weights()["W_enc"])
    assert folders(data, "saes") == ["s"]


def test_features_are_extracted_only_from_a_text_that_is_named(data: Path, tmp_path: Path) -> None:
    add(data, gemma_scope(tmp_path / SCOPE), model="m")
    with pytest.raises(Refused, match="says nothing of a text: name one") as caught:
        run_job(data, "extract", sae="s")
    assert caught.value.field == "tokenization"


def test_the_saelens_folder_that_the_studio_writes_comes_in_again(data: Path, tmp_path: Path) -> None:
    add(data, gemma_scope(tmp_path / SCOPE), "first", model="m")
    shutil.copytree(data / "saes" / "first", tmp_path / "ours")
    (tmp_path / "ours" / "recipe.json").unlink()
    recipe = add(data, tmp_path / "ours", "second")
    assert (recipe["imported"]["format"], recipe["model"]["name"], recipe["hook"]) == ("saelens", "m", HOOK)
    one, other = (SparseAutoencoder.load(data / "saes" / name) for name in ("first", "second"))
    assert torch.equal(one.W_enc, other.W_enc) and torch.equal(one.W_dec, other.W_dec)


def test_how_often_latents_fire_is_kept_when_it_is_known(data: Path, tmp_path: Path) -> None:
    add(data, gemma_scope(tmp_path / SCOPE), "first", model="m")
    shutil.copytree(data / "saes" / "first", tmp_path / "ours")
    share = torch.linspace(-9, 0, F)
    save_file({"sparsity": share}, tmp_path / "ours" / "sparsity.safetensors")
    add(data, tmp_path / "ours")
    run_job(data, "inspect", sae="s", text=TEXT, ignore_denser=0.5)
    assert "sparsity.safetensors" in json.loads((data / "saes/s/recipe.json").read_text())["imported"]["files"]


# Which of them


def test_of_several_one_is_named(data: Path, tmp_path: Path) -> None:
    repo = tmp_path / "gemma-scope-2b-pt-res"
    for n in range(22):
        gemma_scope(repo / f"layer_1/width_16k/average_l0_{n}", seed=n)
    said = refused(data, repo, model="m")
    assert said.startswith(f"{repo} holds 22 SAEs: say which, as {repo}:layer_1/width_16k/average_l0_0; there are ")
    assert said.count("average_l0_") == 21 and said.endswith("and 2 more, which a preview lists")
    recipe = add(data, f"{repo}:layer_1/width_16k/average_l0_7/", model="m")
    assert recipe["imported"]["path"] == "layer_1/width_16k/average_l0_7"
    torch.testing.assert_close(SparseAutoencoder.load(data / "saes/s").W_enc, weights(7)["W_enc"])
    by_file = add(data, f"{repo}:layer_1/width_16k/average_l0_7/params.npz", "f", model="m")
    assert by_file["imported"]["path"] == recipe["imported"]["path"]


def test_a_file_alone_is_a_source(data: Path, tmp_path: Path) -> None:
    file = gemma_scope(tmp_path / SCOPE) / "params.npz"
    assert add(data, file, model="m")["imported"]["files"].keys() == {"params.npz"}


def test_a_colon_in_a_name_is_a_colon(data: Path, tmp_path: Path) -> None:
    source = tmp_path / SCOPE
    gemma_scope(source)
    odd = source.rename(source.with_name("a:b"))
    assert add(data, odd, model="m", hook=HOOK)["imported"]["source"] == str(odd)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{at}/none", "there is no file or folder {at}/none; an SAE of the Hub is named as owner/name"),
        ("{at}:none", "{at} has no file or folder none"),
        ("a/b/c", "a/b/c is a relative path: give the absolute path"),
        ("{at}/empty", "{at}/empty holds no SAE of a known layout"),
        ("{at}/pipe", "{at}/pipe is neither a folder nor a file"),
        ("upload:" + "0" * 32, "is not there any more: send it again"),
        ("/a\0b", "there is no file or folder"),
    ],
)
def test_a_source_without_an_sae_is_refused(source: str, words: str, data: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    gemma_scope(tmp_path / "one")
    os.mkfifo(tmp_path / "pipe")
    assert words.format(at=tmp_path) in refused(data, source.format(at=tmp_path), model="m")


def test_an_upload_is_a_source_whole_or_in_part(data: Path, tmp_path: Path) -> None:
    files = data / "uploads" / ("1" * 32) / "files"
    for layer in (0, 1):
        sparsify(files / f"layers.{layer}", seed=layer)
    (files / "config.json").write_text(json.dumps({"model": "org/tiny"}))
    upload = f"upload:{'1' * 32}"
    assert "layers.0, layers.1" in refused(data, upload)
    recipe = add(data, f"{upload}:layers.1")
    assert (recipe["imported"]["source"], recipe["hook"]) == (upload, HOOK)


def test_an_uploaded_folder_keeps_its_name_which_says_what_its_files_do_not(data: Path) -> None:
    at = f"upload:{'2' * 32}"
    gemma_scope(data / "uploads" / ("2" * 32) / "files" / SCOPE)
    recipe = add(data, f"{at}:gemma-scope-2b-pt-res", model="m")
    assert (recipe["hook"], recipe["imported"]["source"], recipe["imported"]["path"]) == (HOOK, at, SCOPE)


# Whose model, which hook


@pytest.mark.parametrize(
    ("said", "id"),
    [
        ("gpt2", "openai-community/gpt2"), ("gpt2-small", "openai-community/gpt2"),
        ("pythia-70m-deduped", "EleutherAI/pythia-70m-deduped"), ("gemma-2-2b", "google/gemma-2-2b"),
        ("Llama-3.1-8B", "meta-llama/Llama-3.1-8B"), ("google/gemma-2-2b", "google/gemma-2-2b"), ("my-own", "my-own"),
    ],
)  # fmt: skip
def test_a_model_has_the_id_that_it_has_on_the_hub(said: str, id: str) -> None:
    assert hub_id(said) == id


def model_json(data: Path, name: str, source: str) -> None:
    (data / "models" / name).mkdir(parents=True)
    (data / "models" / name / "model.json").write_text(json.dumps({"name": name, "source": source, "path": "/none"}))


def test_the_model_is_the_one_that_goes_by_what_the_sae_says(tmp_path: Path) -> None:
    link, spec = Link(tmp_path, Paths(tmp_path)), AddSae(source="a/b", name="s")
    for name, source in (
        ("small", "openai-community/gpt2"), ("old", "gpt2"), ("forked", "somebody/gpt2"),
        ("mine", "/models/my-own"), ("local-name", "/models/other"), ("gemma-2-2b", "unsloth/other"),
    ):  # fmt: skip
        model_json(tmp_path, name, source)

    def found(*said: str) -> set[str]:
        return {str(one["name"]) for one in find_model(spec, said, link)}

    assert found("gpt2-small") == found("openai-community/gpt2") == {"small", "old"}
    assert found("somebody/gpt2") == {"forked"}
    assert found("org/my-own") == found("my-own") == {"mine"}
    assert found("local-name") == {"local-name"}
    assert found("theirs", "/models/my-own") == {"mine"}
    with pytest.raises(Refused, match="add it with mistudio model add google/gemma-2-2b, or say which one it is"):
        found("gemma-2-2b")


def test_a_model_that_is_not_here_is_named_with_how_to_add_it(data: Path, tmp_path: Path) -> None:
    said = refused(data, gemma_scope(tmp_path / SCOPE), "model")
    assert said == (
        "it reads the model gemma-2-2b, which is not in the studio: add it with mistudio model add google/gemma-2-2b, "
        "or say which one it is with --model (the studio has m)"
    )
    assert "no model called none" in refused(data, tmp_path / SCOPE, "model", model="none")


def test_an_sae_that_says_no_model_and_no_hook_is_given_both(data: Path, tmp_path: Path) -> None:
    source = gemma_scope(tmp_path / "somewhere")
    assert "do not say which model it reads: name it with --model (the studio has m)" in refused(data, source, "model")
    said = refused(data, source, "hook", model="m")
    assert "do not say which hook it reads: name it with --hook; m has, 32 wide: blocks.0-2.hook_resid_pre, b" in said
    recipe = add(data, source, model="m", hook=HOOK)
    assert recipe["hook"] == HOOK and recipe["imported"]["model"] is None


def test_the_hook_must_be_in_the_model_and_of_the_saes_width(data: Path, tmp_path: Path) -> None:
    far = gemma_scope(tmp_path / SCOPE.replace("layer_1", "layer_20"))
    assert "it lies at blocks.20.hook_resid_post, and blocks.20" in refused(data, far, "model", model="m")
    near = gemma_scope(tmp_path / SCOPE)
    said = refused(data, near, "hook", model="m", hook="blocks.1.mlp.hook_post")
    assert said.startswith("it has vectors of 32 numbers, and those at blocks.1.mlp.hook_post of m have 64")
    assert "is not the name of a hook" in refused(data, near, "hook", model="m", hook="resid")
    recipe = add(data, near, model="m", hook="blocks.2.hook_resid_pre")
    assert recipe["hook"] == "blocks.2.hook_resid_pre"
    assert "brought in for blocks.2.hook_resid_pre" in recipe["imported"]["notes"][-1]


# Pickles


def test_a_pickle_is_converted_only_when_that_is_allowed(data: Path, tmp_path: Path) -> None:
    source = dictionary_learning(tmp_path / "trainer_0")
    said = refused(data, source, "allow_pickle")
    assert "is a pickle" in said and "--allow-pickle" in said
    recipe = add(data, source, allow_pickle=True)
    assert recipe["imported"]["pickle"] and recipe["model"]["name"] == "m"
    assert recipe["imported"]["files"].keys() >= {"ae.pt"}
    assert folders(data, "saes") == ["s"], "what it was converted to is gone"


def test_what_a_pickle_would_run_is_not_run(data: Path, tmp_path: Path) -> None:
    class Gadget:
        def __reduce__(self) -> tuple[object, ...]:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    source = dictionary_learning(tmp_path / "trainer_0")
    state = torch.load(source / "ae.pt") | {"evil": Gadget()}
    torch.save(state, source / "ae.pt")
    assert "nothing in it was run" in refused(data, source, allow_pickle=True)
    assert not (tmp_path / "ran").exists()


# Faults


def test_damaged_weights_are_refused_and_nothing_is_left(data: Path, tmp_path: Path) -> None:
    source = sparsify(tmp_path / "layers.1")
    file = source / "sae.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    assert "sae.safetensors" in refused(data, source, model="m")
    state = {"encoder.weight": torch.full((F, D), float("nan")), "encoder.bias": torch.zeros(F)}
    save_file(state | {"W_dec": torch.zeros(F, D), "b_dec": torch.zeros(D)}, file)
    assert "not all finite" in refused(data, source, model="m")


def test_a_full_disk_is_seen_before_anything_is_written(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = gemma_scope(tmp_path / SCOPE)
    usage = shutil.disk_usage(tmp_path)._replace(free=paths.FLOOR_BYTES + 1000)
    monkeypatch.setattr(paths.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DiskFull, match="the disk is full"):
        add(data, source, model="m")
    assert folders(data, "saes") == []


def test_a_job_that_was_cut_off_after_its_end_tells_it_again(data: Path, tmp_path: Path) -> None:
    source = gemma_scope(tmp_path / SCOPE)
    first = add(data, source, model="m")
    again = events(data, "add_sae", source=str(source), name="s", model="m")
    assert [one["event"] for one in again] == ["artifact", "result"]
    assert again[-1]["result"]["sae_sha256"] == first["sae_sha256"]
    other = sparsify(tmp_path / "layers.1")
    with pytest.raises(Refused, match="there is already an SAE called s") as caught:
        run_job(data, "add_sae", source=str(other), name="s", model="m")
    assert caught.value.field == "name"


MEASURE = """
import io, sys, torch
from contextlib import redirect_stderr
from pathlib import Path
from mistudiod.paths import Paths
from mistudiod.specs import AddSae
from mistudiod.worker import add_sae
from mistudiod.worker.link import Link
torch.set_num_threads(1)
torch.zeros(4, 4) @ torch.zeros(4, 4)
def kib(key): return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key))
data = Path(sys.argv[1])
before = kib("VmRSS:")
Path("/proc/self/clear_refs").write_text("5")
with redirect_stderr(io.StringIO()):
    add_sae.run(AddSae(source=sys.argv[2], name="s", model="m", hook=sys.argv[3]), Link(data, Paths(data)))
print((kib("VmHWM:") - before) * 1024)
"""


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_wide_sae_comes_in_with_little_more_memory_than_its_file(tmp_path: Path, dtype: torch.dtype) -> None:
    width, d = 65_536, 512  # 269 MB
    run_job(tmp_path / "data", "add_model", source=str(tiny_model("llama", tmp_path / "tiny", hidden_size=d)), name="m")
    source = tmp_path / "layers.1"
    source.mkdir()
    matrix = torch.empty(width, d).uniform_().to(dtype)
    state = {"encoder.weight": matrix, "encoder.bias": matrix[:, 0].clone(), "b_dec": matrix[0].clone()}
    save_file(state | {"W_dec": matrix.clone()}, source / "sae.safetensors")
    (source / "cfg.json").write_text(json.dumps({"d_in": d, "k": 32, "num_latents": width}))
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "data"), str(source), HOOK]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) < 1.3 * (source / "sae.safetensors").stat().st_size
