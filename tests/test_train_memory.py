"""What a training does with the choices that are left open for memory's sake, and when there is not enough of it."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from test_train_job import SPEC, data, job, model_folder, of, said, weights

from mistudiod.engine.lm import load_lm
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.engine.sizing import WontFit
from mistudiod.paths import Paths
from mistudiod.specs import Train
from mistudiod.worker import train
from mistudiod.worker.link import Link
from mistudiod.worker.train_size import fitting_tokens
from mistudiod.worker.trained import open_trained

__all__ = ["data", "model_folder"]  # fixtures
CHOICES = {"precision": "bf16", "forward_tokens": 32, "buffer_tokens": 1024, "micro_tokens": 16}


def resolved(data: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((data / "saes" / "s" / "recipe.json").read_text())["resolved"]
    return found


def trained_with(choices: dict[str, Any], data: Path, **changes: Any) -> dict[str, Any]:
    folder = data / "runs" / "1"
    folder.mkdir(parents=True, exist_ok=True)
    train.run(Train.model_validate(SPEC | changes), Link(folder, Paths(data), choices=choices))
    return resolved(data)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "int8", "nf4"])
def test_a_model_is_read_in_the_precision_that_is_asked_for_and_the_sae_says_so(data, capsys, precision):
    job(data, precision=precision)
    assert 0 < of(said(capsys), "result")[0].result["fvu"] < 1
    found = resolved(data)
    assert found["precision"] == precision
    assert found["compute_dtype"] == {"fp32": "float32", "fp16": "float16"}.get(precision, "bfloat16")
    assert (found["bitsandbytes"] is not None) == (precision in ("int8", "nf4"))
    sae = SparseAutoencoder.load(data / "saes" / "s")
    assert sae.metadata["model_precision"] == precision
    assert open_trained("s", Link(data, Paths(data))).precision == precision


def test_what_the_plan_chose_is_done_and_what_the_spec_says_is_not_changed(data):
    assert {name: trained_with(CHOICES, data)[name] for name in CHOICES} == CHOICES
    shutil.rmtree(data / "saes")
    found = trained_with(CHOICES, data, precision="fp32", micro_tokens=32)
    assert {name: found[name] for name in CHOICES} == CHOICES | {"precision": "fp32", "micro_tokens": 32}


def test_a_step_that_is_taken_in_parts_trains_the_same_autoencoder(data, capsys):
    whole = trained_with({}, data)
    expected = weights(data)
    shutil.rmtree(data / "saes")
    assert trained_with({"micro_tokens": 16, "forward_tokens": 32}, data)["scale"] == pytest.approx(whole["scale"])
    for name, tensor in weights(data).items():
        assert (tensor - expected[name]).abs().max() < 0.02 * expected[name].abs().max(), name


def test_a_job_tells_the_most_memory_that_it_had(data, capsys):
    job(data)
    peak = of(said(capsys), "result")[0].result["peak_bytes"]
    assert 100e6 < peak <= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_tokens_of_a_pass_are_found_by_measuring(model_folder):
    lm = load_lm(model_folder, layers=2)
    fits = partial(fitting_tokens, lm, ["blocks.1.hook_resid_post"], 16, 1024)
    assert fits(budget_bytes=1 << 40, unified=False) == 1024
    assert fits(budget_bytes=1 << 40, unified=True) == 1024
    with pytest.raises(WontFit, match="not even 1 at a time fits"):
        fits(budget_bytes=1 << 20, unified=False)


UNDER_A_LIMIT = """
import resource, sys
import torch, transformers, mistudiod.engine.train, mistudiod.engine.lm  # so that what they take is known
text = open("/proc/self/status").read()
held = int(text.split("VmData:")[1].split()[0]) << 10
resource.setrlimit(resource.RLIMIT_DATA, (held + (400 << 20),) * 2)
sys.argv[1:] = [sys.argv[1]]
from mistudiod.worker.__main__ import main
import os
os._exit(main())
"""


def test_a_worker_that_runs_out_of_memory_says_so_by_its_exit_code_and_leaves_nothing(data):
    run = data / "runs" / "1"
    run.mkdir(parents=True)
    spec = {"kind": "train", **SPEC, "width": 600_000}  # some 300 MB of weights, before gradients and Adam's moments
    (run / "spec.json").write_text(json.dumps({"job": 1, "data": str(data), "spec": spec}))
    command = [sys.executable, "-c", UNDER_A_LIMIT, str(run)]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert worker.stderr and worker.stdout and worker.stdin
    said = worker.stderr.read()
    assert worker.wait() == 77, said
    assert '"code": "out_of_memory"' in said or '"code":"out_of_memory"' in said
    assert list((data / "saes").glob("*")) == []
    for pipe in (worker.stdin, worker.stdout, worker.stderr):
        pipe.close()
