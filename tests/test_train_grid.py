"""A grid of SAEs from one pass over the text: each is what it would be alone, and none costs a forward pass more."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from run_job import start_job
from test_train_job import SPEC, EndsAt, data, job, model_folder, of, recipe_of, said, steps_saved, weights

from mistudiod.engine.lm import LM
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.paths import Paths, newest_checkpoint
from mistudiod.specs import Train
from mistudiod.worker import train
from mistudiod.worker.link import Asked, Link, Refused

__all__ = ["data", "model_folder"]  # fixtures
HOOKS = ["blocks.0.hook_resid_post", "blocks.1.hook_resid_post"]
GRID = {"hook": HOOKS, "width": [32, 64], "buffer_tokens": 1024}
NAMES = ["s-0-resid-post-w32", "s-0-resid-post-w64", "s-1-resid-post-w32", "s-1-resid-post-w64"]


def equal(data: Path, one: str, other: str) -> bool:
    first, second = weights(data, one), weights(data, other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def folder_names(data: Path) -> list[str]:
    return sorted(path.name for path in (data / "saes").iterdir())


def grid(data: Path, run: int = 1, choices: dict[str, Any] | None = None, **changes: Any) -> None:
    folder = data / "runs" / str(run)
    folder.mkdir(parents=True, exist_ok=True)
    train.run(Train.model_validate(SPEC | GRID | changes), Link(folder, Paths(data), choices=choices))


def test_a_grid_is_trained_from_one_reading_of_the_text(data, monkeypatch, capsys):
    read = LM.activations_at
    passes: list[int] = []

    def counted(self: LM, ids: torch.Tensor, hooks: Any) -> Any:
        passes.append(len(hooks))
        return read(self, ids, hooks)

    monkeypatch.setattr(LM, "activations_at", counted)
    job(data, name="alone", buffer_tokens=1024, evaluate_every=1000)
    alone, told = len(passes), len(of(said(capsys), "metric"))
    assert told
    passes.clear()
    measured = 3 * 4  # passes over the held-out windows: calibrated, measured, and beside what costs nothing
    grid(data, run=2, evaluate_every=1000)
    assert folder_names(data) == ["alone", *NAMES]
    assert set(passes) == {2}
    assert len(passes) <= alone + measured  # training read the text once, for four


def test_every_sae_of_a_grid_is_what_its_own_recipe_makes_alone(data, capsys):
    grid(data)
    events = said(capsys)
    assert [event.name for event in of(events, "artifact")] == NAMES
    assert {event.sae for event in of(events, "metric")} == set(NAMES)
    result = of(events, "result")[0].result
    assert [one["sae"] for one in result["saes"]] == NAMES
    assert (result["steps"], result["tokens"]) == (30, 30 * 64)
    for number, name in enumerate(NAMES):
        written = recipe_of(data, name)
        assert SparseAutoencoder.load(data / "saes" / name).d_sae == written["spec"]["width"]
        job(data, run=10 + number, **written["spec"] | {"name": f"alone{number}"})
        assert equal(data, name, f"alone{number}"), name


def test_seeds_of_a_grid_see_the_text_in_one_order_and_their_recipes_say_so(data):
    grid(data, hook=HOOKS[0], width=32, seed=[0, 7], architecture="topk")
    written = recipe_of(data, "s-s7")
    assert (written["spec"]["seed"], written["spec"]["data_seed"]) == (7, 0)
    assert recipe_of(data, "s-s0")["spec"]["data_seed"] is None
    job(data, run=2, **written["spec"] | {"name": "alone"})
    assert equal(data, "s-s7", "alone")


def test_architectures_side_by_side_with_a_transcoder(data):
    architectures = ["batchtopk", "topk", "jumprelu", "standard", "gated", "matryoshka", "transcoder"]
    hooks = {"hook": "blocks.1.hook_mlp_out", "hook_out": "blocks.1.hook_resid_post"}
    grid(data, **hooks, width=32, architecture=architectures, steps=5)
    assert folder_names(data) == sorted(f"s-{name}" for name in architectures)
    written = recipe_of(data, "s-transcoder")
    assert written["spec"]["hook_out"] == "blocks.1.hook_resid_post"
    job(data, run=2, **written["spec"] | {"name": "alone"})
    assert equal(data, "s-transcoder", "alone")


def test_a_transcoder_may_rebuild_what_it_reads(data):
    job(data, architecture="transcoder", hook_out=SPEC["hook"], steps=5)
    assert recipe_of(data)["hook_out"] == SPEC["hook"]


@pytest.mark.parametrize("choices", [None, {"saes_at_once": 3}])
def test_a_grid_in_passes_makes_the_same_saes(data, capsys, choices):
    grid(data, name="at-once")
    said(capsys)
    grid(data, run=2, choices=choices, **({} if choices else {"saes_at_once": 3}))
    events = said(capsys)
    for name in NAMES:
        assert equal(data, name, name.replace("s-", "at-once-", 1)), name
    stages = list(dict.fromkeys(event.stage for event in of(events, "progress")))
    assert [stage for stage in stages if "pass" in stage] == ["train, pass 1 of 2", "train, pass 2 of 2"]
    kinds = [event.event for event in events if event.event == "artifact" or getattr(event, "stage", "")[:5] == "train"]
    assert kinds.index("artifact") < len(kinds) - kinds[::-1].index("progress")  # saved before the second pass ends
    assert steps_saved(data, run=2) == [30, 60]  # of each pass the last one, to go on from
    assert of(events, "result")[0].result["tokens_per_s"] > 0


class EndsInPass(Link):
    """Asks for a pause after a step of the second pass."""

    def metric(self, step: int, values: dict[str, float | None], sae: str | None = None) -> None:
        super().metric(step, values, sae)
        if sae == NAMES[-1]:
            self.asked = "pause"


def test_a_job_cut_off_in_its_second_pass_goes_on_there(data, capsys):
    grid(data, name="at-once")
    with pytest.raises(Asked):
        job(data, run=2, link=EndsInPass, **GRID, saes_at_once=3)
    assert folder_names(data) == sorted([*NAMES[:3], *(name.replace("s-", "at-once-", 1) for name in NAMES)])
    assert steps_saved(data, run=2) == [30, 31]
    said(capsys)
    grid(data, run=2, saes_at_once=3)
    events = said(capsys)
    assert {event.sae for event in of(events, "metric")} == {NAMES[3]}
    assert [event.name for event in of(events, "artifact")] == NAMES
    for name in NAMES:
        assert equal(data, name, name.replace("s-", "at-once-", 1)), name


def test_a_checkpoint_of_many_is_gone_on_from_by_few(data, capsys):
    """As when memory was short, and the plan then takes fewer at once."""
    grid(data, name="at-once")
    with pytest.raises(Asked):
        job(data, run=2, link=EndsAt, **GRID)
    (step,) = steps_saved(data, run=2)
    said(capsys)
    grid(data, run=2, choices={"saes_at_once": 1})
    firsts = {event.sae: event.step for event in reversed(of(said(capsys), "metric"))}
    assert set(firsts) == set(NAMES)
    assert min(firsts.values()) > step
    for name in NAMES:
        assert equal(data, name, name.replace("s-", "at-once-", 1)), name


def test_one_name_that_is_taken_refuses_the_whole_grid_before_anything_is_loaded(data, capsys):
    job(data, run=9, name=NAMES[2])
    said(capsys)
    with pytest.raises(Refused, match=f"already an SAE called {NAMES[2]}") as refused:
        grid(data)
    assert refused.value.field == "name"
    assert of(said(capsys), "progress") == []


def test_a_grid_says_the_same_again_when_it_died_after_saving(data, capsys):
    grid(data)
    first = of(said(capsys), "result")[0].result
    grid(data)
    events = said(capsys)
    assert json.dumps(of(events, "result")[0].result) == json.dumps(first)
    assert [event.name for event in of(events, "artifact")] == NAMES
    assert of(events, "metric") == []


def test_two_saes_whose_worker_is_killed_at_random_end_with_the_same_bits(data, capsys):
    spec = {"hook": HOOKS[0], "width": [32, 64], "steps": 800, "checkpoint_every_s": 0.02}
    job(data, run=2, name="straight", **spec | {"checkpoint_every_s": 1e6})
    checkpoints = data / "runs" / "1" / "checkpoints"
    newest = 0
    for delay_s in np.random.default_rng(0).uniform(0, 0.1, 2):
        worker = start_job(data, "train", **SPEC | spec)
        try:
            until = time.monotonic() + 100
            while (found := newest_checkpoint(checkpoints.parent) or 0) <= newest:
                assert worker.poll() is None, (data / "runs" / "1" / "log.txt").read_text()
                assert time.monotonic() < until
                time.sleep(0.002)
            newest = found
            time.sleep(delay_s)
        finally:
            worker.kill()
            worker.communicate()
        assert worker.returncode == -signal.SIGKILL
    assert newest < 800
    job(data, **spec)
    for width in (32, 64):
        assert equal(data, f"s-w{width}", f"straight-w{width}")
