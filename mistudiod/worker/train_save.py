"""Trained autoencoders on their way into folders: measured, with their recipes, whole or not at all."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mistudiod.about import ABOUT
from mistudiod.engine.activations import ActivationBatches
from mistudiod.engine.precision import stamp
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.engine.train import Training
from mistudiod.engine.trainer import View
from mistudiod.specs import One, Train
from mistudiod.worker.link import Link, Refused
from mistudiod.worker.new_folder import new_folder
from mistudiod.worker.read_recipe import WEIGHTS
from mistudiod.worker.recipe import job_number, metadata, sha256_of
from mistudiod.worker.train_begin import Pass
from mistudiod.worker.train_measure import MEASURES, Bench, measured

# Of recipe.json: what a job's result says of each SAE too.
RESULT = ("sae", "architecture", "hook", "hook_out", "width", "k", *MEASURES, "finished")
_CONTEXT_BYTES = 500 << 20  # what CUDA and its libraries take of a GPU beside the tensors


@dataclass(frozen=True)
class Trained:
    """An autoencoder as far as it was trained, and what its recipe is to say of that."""

    one: One
    sae: SparseAutoencoder
    x: View
    y: View | None
    dead: float  # share of latents that training counts as dead
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
            # of all hooks of the pass: a token beyond any of them was left out
            "outlier_norms": dict(zip(source.hooks, batches.harvest.outlier_norms or (), strict=False)) or None,
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

    def save(self, some: Sequence[Trained], one_pass: Pass, bench: Bench, finished: bool = True) -> None:
        """Measure each, save it and tell of it. ``finished``: the training will not go on by itself.

        Raises Asked, DiskFull.
        """
        for one in some:
            tanh = self._spec.only(one.one).tanh is not None
            sae, measures, fired = measured(one.sae, one.one, one.x, one.y, bench, one.dead, tanh)
            self._save(replace(one, sae=sae), one_pass, measures, fired, finished)

    def _save(self, one: Trained, one_pass: Pass, measures: dict[str, Any], fired: Tensor, finished: bool) -> None:
        """``fired``: each latent's share of tokens."""
        about = {name: getattr(one.one, name) for name in ("architecture", "hook", "hook_out", "width", "k")}
        ends = {"finished": finished, "peak_bytes": _peak_bytes(one_pass.source.device)}
        recipe = {
            "job": job_number(self._link),
            "sae": one.one.name,
            **about,
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
            if (final / ABOUT).is_file():  # what a person has said of it while it was not finished
                shutil.copyfile(final / ABOUT, partial / ABOUT)
            recipe["sae_sha256"] = sha256_of(partial / WEIGHTS)
            (partial / "recipe.json").write_text(json.dumps(recipe, indent=1, ensure_ascii=False, allow_nan=False))
        self._link.artifact("sae", one.one.name)


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


def _peak_bytes(device: torch.device) -> int:
    """The most memory that this process has had: on the GPU, or where there is none, of the machine."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_reserved(device)) + _CONTEXT_BYTES
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
