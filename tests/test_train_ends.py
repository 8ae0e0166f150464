"""How a training ends before its end, or goes on after it: stop, finalize, extend, divergence, a full disk."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from test_train_grid import GRID, NAMES, equal, folder_names
from test_train_job import (
    SPEC,
    EndsAt,
    StopsAt,
    data,
    job,
    model_folder,
    of,
    put_tokens,
    recipe_of,
    said,
    steps_saved,
    weights,
)

from mistudiod import about, moving
from mistudiod.engine import checkpoint
from mistudiod.engine.activations import ActivationBatches
from mistudiod.engine.architectures import ARCHITECTURES
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.index import read_info
from mistudiod.paths import FLOOR_BYTES, Paths
from mistudiod.specs import Train
from mistudiod.worker import train
from mistudiod.worker.link import Asked, Held, Link, Refused
from mistudiod.worker.new_folder import new_folder
from mistudiod.worker.train_pass import unbroken

__all__ = ["data", "model_folder"]  # fixtures


class FinalizesAt(EndsAt):
    wish = "finalize"


class StopsLater(Link):
    """Asks for a stop at the second report."""

    reports = 0

    def metric(self, step: int, values: dict[str, float | None], sae: str | None = None) -> None:
        super().metric(step, values, sae)
        self.reports += 1
        if self.reports == 2:
            self.asked = "stop"


def finalized(data: Path, run: int = 1, **changes: Any) -> None:
    train.run(Train.model_validate(SPEC | changes), Link(data / "runs" / str(run), Paths(data), finalize=True))


def test_stopped_training_leaves_an_sae_that_loads_and_is_honest_about_its_tokens(data, capsys):
    with pytest.raises(Asked):
        job(data, link=StopsAt)
    written = recipe_of(data)
    assert (written["finished"], written["steps"], written["tokens"]) == (False, 1, 64)
    assert written["planned_steps"] == 30
    assert written["fvu"] > 0
    assert SparseAutoencoder.load(data / "saes" / "s").metadata["training_tokens"] == 64
    events = said(capsys)
    assert of(events, "artifact")[0].name == "s"
    assert of(events, "result")[0].result["finished"] is False


def test_a_retry_goes_on_from_the_checkpoint_and_takes_the_place_of_what_the_stop_left(data):
    job(data, run=2, name="straight")
    with pytest.raises(Asked):
        job(data, link=StopsAt)
    stopped = weights(data)
    job(data)
    assert equal(data, "s", "straight")
    assert recipe_of(data)["finished"] is True
    assert not torch.equal(stopped["W_dec"], weights(data)["W_dec"])
    assert folder_names(data) == ["s", "straight"]


def test_every_sae_of_a_stopped_grid_is_usable(data):
    with pytest.raises(Asked):
        job(data, link=StopsAt, **GRID)
    assert folder_names(data) == sorted(NAMES)
    assert not any(recipe_of(data, name)["finished"] for name in NAMES)


def test_a_stop_by_a_signal_alone_takes_no_time_to_save_an_sae(data):
    class Signalled(Link):
        def metric(self, step: int, values: dict[str, float | None], sae: str | None = None) -> None:
            raise Asked("stop")

    with pytest.raises(Asked):
        job(data, link=Signalled)
    assert steps_saved(data) == [1]
    assert not (data / "saes").exists()


def test_a_folder_is_replaced_without_a_moment_in_which_there_is_none(tmp_path):
    final = tmp_path / "saes" / "s"
    for text in ("old", "new"):
        with new_folder(final, 0, replaces=True) as partial:
            (partial / "recipe.json").write_text(text)
            assert text == "old" or (final / "recipe.json").read_text() == "old"
    assert (final / "recipe.json").read_text() == "new"
    assert [path.name for path in final.parent.iterdir()] == ["s"]


def test_sigterm_waits_until_a_checkpoint_is_whole():
    saved = []
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Asked), unbroken():
        os.kill(os.getpid(), signal.SIGTERM)
        saved.append("whole")
    assert saved == ["whole"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_finalizing_ends_training_now_with_an_sae_that_is_measured_in_full(data, capsys):
    job(data, link=FinalizesAt)
    written = recipe_of(data)
    assert (written["finished"], written["steps"], written["planned_steps"]) == (True, 1, 30)
    assert written["pca_fvu"] > 0
    assert steps_saved(data) == [1]
    said(capsys)
    job(data)  # as after a crash of the daemon's
    assert of(said(capsys), "metric") == []


def test_a_paused_training_is_finalized_from_its_checkpoint_without_a_step(data, capsys):
    with pytest.raises(Asked):
        job(data, link=EndsAt)
    said(capsys)
    finalized(data)
    assert of(said(capsys), "metric") == []
    assert recipe_of(data)["steps"] == 1
    assert recipe_of(data)["finished"] is True


def test_a_grid_that_is_finalized_leaves_out_what_was_not_begun(data, capsys):
    job(data, link=FinalizesAt, **GRID, saes_at_once=2)
    assert folder_names(data) == NAMES[:2]
    result = of(said(capsys), "result")[0].result
    assert [one["sae"] for one in result["saes"]] == NAMES[:2]
    assert [one["sae"] for one in result["failed"]] == NAMES[2:]


def test_there_is_nothing_to_finalize_before_the_first_checkpoint(data):
    (data / "runs" / "1").mkdir(parents=True)
    with pytest.raises(Refused, match="nothing to finalize"):
        finalized(data)


# Extending


def test_an_extended_training_goes_on_with_more_tokens_and_says_from_what(data, capsys):
    job(data, run=1)
    said(capsys)
    job(data, run=2, name="longer", extends="s", steps=80)
    metrics = of(said(capsys), "metric")
    assert metrics[0].step == 31
    assert metrics[0].values["lr"] < metrics[-1].values["lr"] * 100
    written = recipe_of(data, "longer")
    assert written["extends"] == {"sae": "s", "job": 1, "tokens": 30 * 64, "steps": 30}
    assert (written["steps"], written["tokens"]) == (80, 80 * 64)
    assert written["fvu"] < recipe_of(data)["fvu"]
    job(data, run=3, name="longest", extends="longer", steps=90)
    assert recipe_of(data, "longest")["steps"] == 90


def test_an_extended_training_that_is_paused_ends_with_the_same_bits(data):
    job(data, run=1)
    job(data, run=2, name="straight", extends="s", steps=60)
    with pytest.raises(Asked):
        job(data, run=3, name="paused", extends="s", steps=60, link=EndsAt)
    assert steps_saved(data, run=3) == [31]
    job(data, run=3, name="paused", extends="s", steps=60)
    assert equal(data, "straight", "paused")


def test_one_sae_of_a_grid_is_extended(data):
    job(data, run=1, **GRID)
    spec = recipe_of(data, NAMES[1])["spec"]
    job(data, run=2, **spec | {"name": "longer", "extends": NAMES[1], "steps": 50})
    assert recipe_of(data, "longer")["steps"] == 50


def renamed(data: Path, old: str, new: str) -> None:
    """As the daemon does it, but for its database."""
    assert moving.carry_out(Paths(data), moving.Move(old, new, old, None, None))


def test_a_renamed_sae_is_extended_from_the_checkpoint_that_knows_it_by_its_first_name(data):
    job(data, run=1, **GRID)
    spec = recipe_of(data, NAMES[1])["spec"]
    job(data, run=2, **spec | {"name": "before", "extends": NAMES[1], "steps": 50})
    renamed(data, NAMES[0], "elsewhere")
    renamed(data, NAMES[1], NAMES[0])  # a name by which the checkpoint knows another one
    job(data, run=3, **spec | {"name": "after", "extends": NAMES[0], "steps": 50})
    assert equal(data, "before", "after")
    assert recipe_of(data, "after")["extends"]["sae"] == NAMES[0]


def test_a_stopped_training_goes_on_when_the_sae_that_it_extends_was_renamed(data):
    job(data, run=1)
    job(data, run=2, name="straight", extends="s", steps=60)
    with pytest.raises(Asked):
        job(data, run=3, name="stopped", extends="s", steps=60, link=StopsAt)
    renamed(data, "s", "c")
    job(data, run=3, name="stopped", extends="s", steps=60)
    assert equal(data, "straight", "stopped")
    assert recipe_of(data, "stopped")["finished"] and recipe_of(data, "stopped")["extends"]["job"] == 1


def test_of_two_that_had_the_name_before_none_is_taken_for_the_one_that_is_extended(data):
    for number, name in ((1, "c"), (2, "d")):
        job(data, run=number)
        renamed(data, "s", name)
    with pytest.raises(Refused, match="there is no SAE called s"):
        job(data, run=3, name="longer", extends="s", steps=60)


def test_what_a_person_has_said_of_an_sae_stays_when_its_training_goes_on(data):
    with pytest.raises(Asked):
        job(data, run=1, link=StopsAt)
    about.write(data / "saes" / "s", {"tags": ["good"]})
    job(data, run=1)
    assert recipe_of(data)["finished"] and read_info(Paths(data), "sae", "s")["tags"] == ["good"]


def test_a_stopped_training_is_extended_from_where_it_was(data, capsys):
    with pytest.raises(Asked):
        job(data, run=1, link=StopsAt)
    said(capsys)
    job(data, run=2, name="longer", extends="s", steps=40)
    assert of(said(capsys), "metric")[0].step == 2


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"steps": 30}, "steps", "s has been trained on 30 steps already: ask for more than that in all"),
        ({"steps": None, "tokens": 1920}, "tokens", "s has been trained on 1,920 tokens already"),
        ({"k": 5}, "k", "s was trained with k 4, not 5"),
        ({"lr": 0.1}, "lr", "s was trained with lr None, not 0.1"),
        ({"hook": "blocks.0.hook_resid_post"}, "hook", "s was trained with hook blocks.1.hook_resid_post"),
        ({"buffer_tokens": 1024}, "buffer_tokens", "s was trained with buffer_tokens"),
        ({"extends": "absent"}, "extends", "there is no SAE called absent"),
    ],
)
def test_what_cannot_be_extended_is_refused(data, capsys, changes, field, message):
    job(data, run=1)
    said(capsys)
    with pytest.raises(Refused, match=message) as refused:
        job(data, run=2, **{"name": "longer", "extends": "s", "steps": 60} | changes)
    assert refused.value.field == field
    assert of(said(capsys), "progress") == []


def test_an_sae_whose_checkpoint_is_gone_is_not_extended(data):
    job(data, run=1)
    shutil.rmtree(data / "runs" / "1")
    with pytest.raises(Refused, match="the checkpoint of s is gone") as refused:
        job(data, run=2, name="longer", extends="s", steps=60)
    assert refused.value.field == "extends"


def test_text_that_was_tokenized_anew_is_not_gone_on_with(data):
    job(data, run=1)
    put_tokens(data, windows=97)
    with pytest.raises(Refused, match="t was made anew since s was trained"):
        job(data, run=2, name="longer", extends="s", steps=60)


# Divergence


@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if "transcoder" not in name])
def test_a_learning_rate_of_a_billion_ends_in_the_divergence_sentence(data, caplog, architecture):
    with pytest.raises(Refused, match="training diverged, at half the learning rate too") as refused:
        job(data, lr=1e9, architecture=architecture)
    assert refused.value.field == "lr"
    assert "5e+08" in str(refused.value)
    assert "back to step 0, at half the learning rate: 5e+08" in caplog.text
    assert not list((data / "runs" / "1").glob("checkpoints/*"))
    assert not (data / "saes").exists()


class Spoiled:
    """Makes every batch from a step on worthless, as often as ``times``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step: int, times: int, columns: slice = slice(None)) -> None:
        made, self.left = ActivationBatches.__next__, times
        given = 0

        def spoiled(batches: ActivationBatches) -> torch.Tensor:
            nonlocal given
            batch, given = made(batches), given + 1
            if given >= step and self.left:
                self.left, given = self.left - 1, 0
                batch[:, columns] = math.nan
            return batch

        monkeypatch.setattr(ActivationBatches, "__next__", spoiled)


def test_training_that_diverges_once_goes_back_and_on_at_half_the_learning_rate(data, capsys, caplog, monkeypatch):
    Spoiled(monkeypatch, step=8, times=1)
    job(data, checkpoint_every_s=1e-9)
    assert "back to step 7, at half the learning rate: 0.003" in caplog.text
    assert recipe_of(data)["resolved"]["lr"] == 0.003
    assert recipe_of(data)["steps"] == 30
    assert of(said(capsys), "metric")[-1].values["lr"] < 0.003


def test_a_bad_state_is_never_saved(data, monkeypatch):
    Spoiled(monkeypatch, step=8, times=2)
    with pytest.raises(Refused, match="the loss at step"):
        job(data, checkpoint_every_s=1e-9)
    found = checkpoint.latest(data / "runs" / "1" / "checkpoints")
    assert found is not None
    assert all(bool(tensor.isfinite().all()) for tensor in found.tensors.values())


def test_one_sae_of_a_grid_that_diverges_does_not_take_the_others_with_it(data, capsys, monkeypatch):
    job(data, run=9, name="alone", hook=GRID["hook"][0], width=32, buffer_tokens=1024)
    Spoiled(monkeypatch, step=8, times=2, columns=slice(32, 64))
    said(capsys)
    job(data, **GRID | {"width": 32}, checkpoint_every_s=1e-9)
    result = of(said(capsys), "result")[0].result
    assert [one["sae"] for one in result["saes"]] == ["s-0-resid-post"]
    (failed,) = result["failed"]
    assert failed["sae"] == "s-1-resid-post"
    assert "the loss at step" in failed["message"] and "learning rate" in failed["message"]
    assert folder_names(data) == ["alone", "s-0-resid-post"]
    assert equal(data, "alone", "s-0-resid-post")


# A full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path) -> None:
    """Leave a little less than the reserve that is kept free."""
    (disk / "ballast").write_bytes(b"x" * (shutil.disk_usage(disk).free - (FLOOR_BYTES - 4096)))


def test_a_disk_that_is_full_at_a_checkpoint_pauses_the_job_and_hurts_nothing(data, small_disk):
    job(data, name="straight", run=2, width=512)
    home = small_disk / "data"
    shutil.copytree(data, home)

    class Fills(Link):
        def metric(self, step: int, values: dict[str, float | None], sae: str | None = None) -> None:
            super().metric(step, values, sae)
            fill(small_disk)

    with pytest.raises(Held, match="the disk is full") as held:
        job(home, width=512, checkpoint_every_s=1e-9, link=Fills)
    assert held.value.code == "disk_full"
    assert "the checkpoint before this one is kept" in str(held.value)
    assert steps_saved(home) == [1]
    (small_disk / "ballast").unlink()
    job(home, width=512)
    assert equal(home, "s", "straight")


def test_a_worker_whose_disk_is_full_at_a_checkpoint_tells_why_and_exits_as_paused(data, small_disk):
    home = small_disk / "data"
    shutil.copytree(data, home)
    run = home / "runs" / "1"
    run.mkdir(parents=True)
    spec = {"kind": "train", **SPEC, "steps": 100_000, "width": 512, "checkpoint_every_s": 0.1}
    (run / "spec.json").write_text(json.dumps({"job": 1, "data": str(home), "spec": spec}))
    command = [sys.executable, "-m", "mistudiod.worker", str(run)]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert worker.stderr and worker.stdin
    heard, filled = "", False
    try:
        for line in worker.stderr:
            heard += line
            if not filled and list(run.glob("checkpoints/[0-9]*")):
                fill(small_disk)
                filled = True
    finally:
        worker.stdin.close()
        worker.stderr.close()
        worker.wait()
    assert worker.returncode == 75, heard
    assert '"code": "disk_full"' in heard
    assert checkpoint.latest(run / "checkpoints") is not None
    assert not list(run.glob("checkpoints/.partial-*"))
