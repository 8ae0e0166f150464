"""Trained autoencoders on their way into folders: measured, with their recipes, whole or not at all."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mistudiod.engine.activations import ActivationBatches
from mistudiod.engine.calibrate import calibrated
from mistudiod.engine.lm import LM
from mistudiod.engine.measure import measure
from mistudiod.engine.precision import stamp
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.engine.train import Training
from mistudiod.engine.trainer import View
from mistudiod.specs import One, Train
from mistudiod.worker.link import Link, Refused
from mistudiod.worker.new_folder import new_folder
from mistudiod.worker.recipe import metadata
from mistudiod.worker.train_begin import Pass
from mistudiod.worker.train_measure import CALIBRATED, MEASURES, SPLICE_TOKENS, Bench, measured
from mistudiod.worker.train_source import held_out_windows
from mistudiod.worker.train_watch import spliced

# Of recipe.json: what a job's result says of each SAE too.
RESULT = (*("sae", "architecture", "hook", "hook_out", "width", "k", *MEASURES, "finished"),)
GLANCE_TOKENS, GLANCE_S = 4_096, 3.0  # what an SAE of a stopped training is measured on: the daemon waits, but not long
_CONTEXT_BYTES = 500 << 20  # what CUDA and its libraries take of a GPU beside the tensors


@dataclass(frozen=True)
class Trained:
    """An autoencoder as far as it was trained, and what its recipe is to say of that."""

    one: One
    sae: SparseAutoencoder
    x: View  # what it reads, and what it rebuilds when that is something else
    y: View | None
    dead: float  # share of its latents that training counts as dead
    resolved: dict[str, Any]  # what the spec left open
    way: dict[str, Any]  # how far it was trained


def trained(training: Training, one_pass: Pass, batches: ActivationBatches, checkpoint: int | None) -> list[Trained]:
    """The autoencoders of a training; ``checkpoint`` is the number of the one that has its state."""
    source, found = one_pass.source, []
    way = {
        "tokens": training.tokens,
        "steps": training.step,
        "planned_steps": training.steps,
        "seconds": training.seconds,
        "tokens_per_s": training.tokens / training.seconds if training.seconds else None,
        "checkpoint": checkpoint,
    }
    for one, trainer in zip(one_pass.ones, training.trainers, strict=True):
        spec, seen = one_pass.spec.only(one), source.as_seen_by(one)
        about = metadata(spec, source.tokenization, source.model, training.tokens, source.chosen.precision)
        resolved = {
            "lr": trainer.schedule.peak_lr,
            "scale": trainer.x.scale,
            "scale_out": trainer.y.scale if trainer.y else None,
            "l1": trainer.sae.settings.l1 or None,
            **asdict(source.chosen),
            "forward_tokens": batches.harvest.lm_tokens,
            "threads": torch.get_num_threads(),
            "data_seed": spec.order_seed,
            **stamp(source.chosen.precision),
            "dead_after_tokens": trainer.sae.settings.dead_after_tokens,
            "d_in": seen.d_in,
            "device": source.device.type,
        }
        dead = trainer.sae.dead.double().mean().item()
        found.append(Trained(one, trainer.to_sae(about), trainer.x, trainer.y, dead, resolved, way))
    return found


class Saver:
    """Saves the SAEs of a job. ``origins``: what its recipes all say of where they come from."""

    def __init__(self, spec: Train, origins: Mapping[str, Any], link: Link) -> None:
        self._spec, self._origins, self._link = spec, origins, link

    def save_measured(self, some: Sequence[Trained], one_pass: Pass, batches: ActivationBatches, lm: LM) -> None:
        """Measure each as well as can be, save and tell of it. Raises Asked, DiskFull."""
        splice = spliced(lm, one_pass.source, batches.harvest, SPLICE_TOKENS)
        held_out = held_out_windows(one_pass.source.windows)
        bench = Bench(batches.harvest, held_out, batches.sample(), self._link, splice)
        for one in some:
            tanh = self._spec.tanh is not None and one.one.architecture == "jumprelu"
            sae, measures, fired = measured(one.sae, one.one, one.x, one.y, bench, one.dead, tanh)
            self._save(replace(one, sae=sae), one_pass, measures, fired, finished=True)

    def save_at_a_glance(self, some: Sequence[Trained], one_pass: Pass, batches: ActivationBatches) -> None:
        """Save each as it is now, measured on as many held-out tokens as go through the model in a few seconds."""
        harvest = replace(batches.harvest, lm_tokens=one_pass.source.windows.context)
        numbers, began, glance = np.array(held_out_windows(one_pass.source.windows)), time.monotonic(), []
        for x in harvest.first(numbers, GLANCE_TOKENS):
            glance.append(x)
            if time.monotonic() - began > GLANCE_S:
                break
        x = torch.cat(glance)
        for one in some:
            sae, measures, fired = _at_a_glance(one, x, one_pass)
            self._save(replace(one, sae=sae), one_pass, measures, fired, finished=False)

    def _save(self, one: Trained, one_pass: Pass, measures: dict[str, Any], fired: Tensor, finished: bool) -> None:
        """``fired``: each latent's share of tokens. ``finished``: the training will not go on by itself."""
        ends = {"finished": finished, "peak_bytes": _peak_bytes(one_pass.source.device)}
        point = {name: getattr(one.one, name) for name in ("architecture", "hook", "hook_out", "width", "k")}
        recipe = {
            "job": job_number(self._link),
            "sae": one.one.name,
            **point,
            **measures,
            **one.way,
            **ends,
            "spec": self._spec.only(one.one).model_dump(),
            "resolved": one.resolved,
            **self._origins,
        }
        final = self._link.paths.artifact("sae", one.one.name)
        with new_folder(final, one_pass.source.sae_bytes(one.one), replaces=True) as partial:
            one.sae.save(partial, sparsity=fired)
            (partial / "recipe.json").write_text(json.dumps(recipe, indent=1, ensure_ascii=False, allow_nan=False))
        self._link.artifact("sae", one.one.name)


def _at_a_glance(one: Trained, x: Tensor, one_pass: Pass) -> tuple[SparseAutoencoder, dict[str, Any], Tensor]:
    source, sae = one_pass.source.as_seen_by(one.one), one.sae
    read, rebuilt = x[:, source.read], x[:, source.rebuilt]
    if one.one.architecture in CALIBRATED:
        sae = calibrated(sae, one.one.k, lambda: [read])
    found = measure(sae, [(read, rebuilt)])
    measures = {
        **dict.fromkeys(MEASURES),
        **{name: getattr(found, name) for name in ("fvu", "l0", "alive", "dense", "cosine")},
        "dead": one.dead,
        "held_out_tokens": found.tokens,
        "verdict": ["its training was stopped: it has seen a part of its tokens, and was measured on few"],
    }
    return sae, measures, found.fired.double() / found.tokens


def own_recipe(one: One, spec: Train, link: Link) -> dict[str, Any] | None:
    """What this very job has saved under a name before it was cut off or stopped; None when the name is free.

    Raises Refused when the SAE is another's.
    """
    folder = link.paths.artifact("sae", one.name)
    if not folder.exists():
        return None
    try:
        written: dict[str, Any] = json.loads((folder / "recipe.json").read_text())
        mine = written["job"] == job_number(link) and Train.model_validate(written["spec"]) == spec.only(one)
    except (OSError, ValueError, KeyError, TypeError):
        mine = False
    if not mine:
        raise Refused(f"there is already an SAE called {one.name}: choose another name, or delete it", field="name")
    return written


def job_number(link: Link) -> int | None:
    """The job's id, which its folder is named after; None when the folder is not one of the daemon's."""
    return int(link.run.name) if link.run.name.isdigit() else None


def _peak_bytes(device: torch.device) -> int:
    """The most memory that this process has had: on the GPU, or where there is none, of the machine."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_reserved(device)) + _CONTEXT_BYTES
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
