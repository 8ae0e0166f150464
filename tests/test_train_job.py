"""The train job on a tiny model: what it refuses, what it leaves, and how it goes on after an end."""

from __future__ import annotations

import hashlib
import json
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from run_job import folders, start_job
from safetensors.torch import load_file
from tiny_models import tiny_model

from mistudiod.engine import checkpoint
from mistudiod.engine.lm import LM
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.events import from_line
from mistudiod.paths import Paths, publish
from mistudiod.specs import Train
from mistudiod.worker import train
from mistudiod.worker.link import Asked, Link, Refused

CONTEXT, WINDOWS, HELD_OUT, D_MODEL = 16, 96, 8, 32
SPEC = {
    "name": "s",
    "tokenization": "t",
    "hook": "blocks.1.hook_resid_post",
    "width": 64,
    "k": 4,
    "steps": 30,
    "batch_tokens": 64,
    "checkpoint_every_s": 1e6,
}


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model("llama", tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def data(tmp_path: Path, model_folder: Path) -> Path:
    """A studio with the model ``tiny`` and the tokenization ``t`` of random tokens; 0 is BOS."""
    data = tmp_path / "data"
    (data / "models" / "tiny").mkdir(parents=True)
    model = {"name": "tiny", "source": str(model_folder), "path": str(model_folder), "family": "llama"}
    model |= {"dtype": "float32", "parameters": 1, "context": 64, "vocab_size": 320}
    (data / "models" / "tiny" / "model.json").write_text(json.dumps(model))
    put_tokens(data)
    return data


def put_tokens(data: Path, windows: int = WINDOWS, held_out: int = HELD_OUT, **facts: Any) -> None:
    (data / "tokens" / "t").mkdir(parents=True, exist_ok=True)
    rows = np.random.default_rng(0).integers(1, 320, (windows, CONTEXT)).astype("<u2")
    rows[:, 0] = 0
    rows.tofile(data / "tokens" / "t" / "tokens.bin")
    tokenization = {
        "name": "t",
        "dataset": "d",
        "model": "tiny",
        "context": CONTEXT,
        "dtype": "<u2",
        "windows": windows,
        "train_windows": windows - held_out,
        "held_out_windows": held_out,
        "special_ids": [0],
        "policy": {"bos": 0, "separator": 0, "packed": True},
    }
    (data / "tokens" / "t" / "tokenization.json").write_text(json.dumps(tokenization | facts))


def job(data: Path, run: int = 1, link: type[Link] = Link, **changes: Any) -> Link:
    """Run the job; its events are on stderr."""
    folder = data / "runs" / str(run)
    folder.mkdir(parents=True, exist_ok=True)
    made = link(folder, Paths(data))
    train.run(Train.model_validate(SPEC | changes), made)
    return made


def said(capsys: pytest.CaptureFixture[str]) -> list[Any]:
    events = [from_line(line.encode()) for line in capsys.readouterr().err.splitlines()]
    return [event for event in events if event is not None]


def of(events: list[Any], kind: str) -> list[Any]:
    return [event for event in events if event.event == kind]


def weights(data: Path, name: str = "s") -> dict[str, torch.Tensor]:
    return load_file(data / "saes" / name / "sae_weights.safetensors")


def recipe_of(data: Path, name: str = "s") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((data / "saes" / name / "recipe.json").read_text())
    return found


def steps_saved(data: Path, run: int = 1) -> list[int]:
    return sorted(int(path.name) for path in (data / "runs" / str(run) / "checkpoints").iterdir())


class EndsAt(Link):
    """Hears a wish to end as soon as it has told of a step."""

    wish = "pause"

    def metric(self, step: int, values: dict[str, float | None], sae: str | None = None) -> None:
        super().metric(step, values, sae)
        self.asked = self.wish  # type: ignore[assignment]


class StopsAt(EndsAt):
    wish = "stop"


class EndsWhileMeasuring(Link):
    def progress(self, stage: str, done: float, total: float | None = None, unit: str = "") -> None:
        super().progress(stage, done, total, unit)
        if stage == "measure":
            self.asked = "pause"


def test_a_job_leaves_an_sae_that_loads_and_says_what_it_measured(data, capsys):
    job(data)
    events = said(capsys)
    result = of(events, "result")[0].result
    assert of(events, "artifact")[0].name == "s"
    assert result["sae"] == "s"
    assert result["folder"] == str(data / "saes" / "s")
    assert (result["steps"], result["tokens"]) == (30, 30 * 64)
    assert result["held_out_tokens"] == HELD_OUT * (CONTEXT - 1)
    assert 0 < result["fvu"] < result["random_fvu"] < 1
    # measured on raw activations, while training saw scaled ones: the scale is folded in
    assert result["fvu"] == pytest.approx(of(events, "metric")[-1].values["fvu"], abs=0.15)
    assert 0 < result["pca_fvu"] < 1
    assert 0 < result["l0"] <= 4
    assert 0 < result["alive"] <= 1
    sae = SparseAutoencoder.load(data / "saes" / "s")
    assert (sae.d_in, sae.d_sae) == (D_MODEL, 64)


def test_the_folder_says_where_the_sae_belongs_and_how_it_was_made(data):
    job(data, run=7)
    cfg = json.loads((data / "saes" / "s" / "cfg.json").read_text())
    metadata = cfg["metadata"]
    assert metadata["model_name"] == "tiny"
    assert metadata["hook_name"] == "blocks.1.hook_resid_post"
    assert metadata["prepend_bos"] is True
    assert metadata["context_size"] == CONTEXT
    assert metadata["exclude_special_tokens"] == [0]
    recipe = json.loads((data / "saes" / "s" / "recipe.json").read_text())
    assert recipe["job"] == 7
    assert recipe["spec"]["seed"] == 0
    assert recipe["resolved"]["lr"] == 6e-3
    assert recipe["versions"]["torch"] == torch.__version__
    assert len(recipe["model"]["weights"]["model.safetensors"]["sha256"]) == 64
    sparsity = load_file(data / "saes" / "s" / "sparsity.safetensors")["sparsity"]
    assert (10**sparsity).sum() == pytest.approx(recipe["l0"], rel=1e-3)


def test_metrics_and_progress_are_told(data, capsys):
    job(data)
    events = said(capsys)
    assert [event.step for event in of(events, "metric")][-1] == 30
    last = of(events, "metric")[-1]
    told = {"loss", "fvu", "l0", "alive", "dead", "lr", "grad_norm", "tokens", "tokens_per_s", "outliers"}
    assert set(last.values) >= told | {"memory_bytes"}
    assert last.sae == "s"
    stages = dict.fromkeys(event.stage for event in of(events, "progress"))
    assert list(stages) == ["load model", "train", "measure"]
    assert [event for event in of(events, "progress") if event.stage == "train"][-1].done == 30 * 64


@pytest.mark.parametrize("link", [EndsAt, StopsAt])
def test_ended_training_keeps_its_last_checkpoint(data, link):
    with pytest.raises(Asked):
        job(data, link=link)
    assert steps_saved(data) == [1]
    assert folders(data, "saes") == ([] if link is EndsAt else ["s"])


def test_paused_training_goes_on_to_the_same_bits(data):
    job(data, run=1, name="straight")
    with pytest.raises(Asked):
        job(data, run=2, name="paused", link=EndsAt)
    job(data, run=2, name="paused")
    straight, paused = weights(data, "straight"), weights(data, "paused")
    assert all(torch.equal(straight[name], paused[name]) for name in straight)


def test_an_end_while_measuring_costs_no_training(data, capsys):
    with pytest.raises(Asked):
        job(data, link=EndsWhileMeasuring)
    assert steps_saved(data) == [30]
    said(capsys)
    job(data)
    assert of(said(capsys), "metric") == []


def test_of_a_finished_training_the_last_checkpoint_stays(data):
    job(data, checkpoint_every_s=1e-6)
    assert steps_saved(data) == [30]
    assert recipe_of(data)["checkpoint"] == 30


def test_a_checkpoint_of_another_tokenization_is_not_gone_on_from(data, capsys):
    with pytest.raises(Asked):
        job(data, link=EndsAt)
    put_tokens(data, windows=WINDOWS + 1)
    said(capsys)
    job(data)
    assert of(said(capsys), "metric")[0].step == 1


def test_a_checkpoint_of_an_older_version_is_not_gone_on_from_and_the_log_says_so(data, capsys, caplog):
    folder = data / "runs" / "1" / "checkpoints"
    about = {"made_of": {"d_in": 32}, "scale": 1.0, "step": 5, "tokens": 320, "batches": {}}
    checkpoint.save(folder, 5, {"topk.W_dec": torch.zeros(2)}, about, publish)
    job(data)
    assert of(said(capsys), "metric")[0].step == 1
    assert "training begins anew" in caplog.text


def test_a_recipe_s_spec_and_what_it_resolved_make_the_same_bits_again(data):
    job(data, name="first", seed=3, micro_tokens=32, threads=1)
    written = recipe_of(data, "first")
    chosen = ("precision", "forward_tokens", "buffer_tokens", "micro_tokens", "threads")
    again = written["spec"] | {field: written["resolved"][field] for field in chosen} | {"name": "again"}
    job(data, run=2, **again)
    first, second = weights(data, "first"), weights(data, "again")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_recipe_names_the_data_the_code_and_the_machine_by_what_they_are(data):
    job(data)
    written = recipe_of(data)
    tokens = (data / "tokens" / "t" / "tokens.bin").read_bytes()
    sha256 = hashlib.sha256(tokens).hexdigest()
    assert written["data"]["tokens.bin"] == {"bytes": len(tokens), "sha256": sha256}
    assert len(written["code"]["sha256"]) == 64
    assert written["resolved"]["threads"] == torch.get_num_threads()
    assert written["machine"].keys() == {"cpu", "system"}
    assert (written["finished"], written["steps"], written["planned_steps"]) == (True, 30, 30)


def test_a_job_that_died_after_saving_says_the_same_again(data, capsys):
    job(data)
    first = of(said(capsys), "result")[0].result
    job(data)
    events = said(capsys)
    assert of(events, "result")[0].result == first
    assert of(events, "artifact")[0].name == "s"
    assert of(events, "metric") == []


@pytest.mark.parametrize("changes", [{"run": 2}, {"seed": 1}])
def test_the_name_of_another_job_s_sae_is_refused(data, changes):
    job(data)
    with pytest.raises(Refused, match="already an SAE called s") as refused:
        job(data, **changes)
    assert refused.value.field == "name"


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"tokenization": "absent"}, "tokenization", "no tokenization called absent"),
        ({"hook": "blocks.9.hook_resid_post"}, "hook", "blocks"),
        ({"hook": "blocks.0.hook_nonsense"}, "hook", "blocks"),
        ({"batch_tokens": 100_000}, "batch_tokens", "fewer training tokens"),
        (
            {"architecture": "transcoder", "hook": "blocks.0.mlp.hook_post", "hook_out": "blocks.0.hook_mlp_out"},
            "hook_out",
            "blocks.0.mlp.hook_post has 64 and blocks.0.hook_mlp_out has 32",
        ),
    ],
)
def test_a_bad_spec_is_refused_before_anything_is_written(data, changes, field, message):
    with pytest.raises(Refused, match=message) as refused:
        job(data, **changes)
    assert refused.value.field == field
    assert not (data / "runs" / "1" / "checkpoints").exists()
    assert not (data / "saes").exists()


def test_a_tokenization_without_held_out_text_is_refused(data):
    put_tokens(data, special_ids=[0, *range(1, 320)])
    with pytest.raises(Refused):
        job(data)
    put_tokens(data, held_out=0)
    with pytest.raises(Refused, match="no held-out text"):
        job(data)


def test_a_tokenization_of_another_tokenizer_is_refused(data):
    put_tokens(data, tokenizer_sha256="0" * 64)
    with pytest.raises(Refused, match="t was made with another tokenizer than the model tiny has") as refused:
        job(data)
    assert refused.value.field == "tokenization"


def test_a_damaged_tokenization_is_refused(data):
    (data / "tokens" / "t" / "tokens.bin").write_bytes(b"123")
    with pytest.raises(Refused, match="bytes"):
        job(data)


def test_a_model_that_is_gone_is_refused(data):
    (data / "models" / "tiny" / "model.json").unlink()
    with pytest.raises(Refused, match="tiny") as refused:
        job(data)
    assert refused.value.field == "tokenization"


def test_a_killed_worker_s_checkpoint_is_gone_on_from(data, capsys):
    spec = SPEC | {"steps": 20_000, "checkpoint_every_s": 0.05}
    worker = start_job(data, "train", **spec)
    try:
        until = time.monotonic() + 250
        while not list((data / "runs" / "1").glob("checkpoints/[0-9]*")):
            assert worker.poll() is None, (data / "runs" / "1" / "log.txt").read_text()
            assert time.monotonic() < until
            time.sleep(0.01)
    finally:
        worker.kill()
        worker.communicate()
    assert worker.returncode == -signal.SIGKILL
    with pytest.raises(Asked):
        job(data, link=EndsAt, **spec)
    assert of(said(capsys), "metric")[0].step > 1


@pytest.mark.parametrize("form", ["bf16", "int8"])
def test_activations_that_one_training_keeps_are_read_by_the_next_instead_of_the_model(data, monkeypatch, form):
    job(data, keep_activations=form)
    forward, ran = LM.activations_at, []

    def counted(self: LM, ids: torch.Tensor, hooks: Any) -> Any:
        ran.append(len(ids))
        return forward(self, ids, hooks)

    monkeypatch.setattr(LM, "activations_at", counted)
    job(data, run=2, name="again", keep_activations=form)
    assert not ran, "every window was there, those of held-out text too"
    first, second = weights(data), weights(data, "again")
    assert all(torch.equal(first[name], second[name]) for name in first)
    job(data, run=3, name="unasked")  # finds what is kept in the buffer's own form, and adds nothing to it
    assert bool(ran) is (form == "int8")
    assert len(list((data / "activations").iterdir())) == 1
