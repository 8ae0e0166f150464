"""Train a sparse autoencoder on one hook of a model, measure it on held-out text, and save it with its recipe."""

from __future__ import annotations

import json
import logging
import resource
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mistudiod.engine import checkpoint
from mistudiod.engine.activations import ActivationBatches, Harvest, NoActivations
from mistudiod.engine.hooks import layers_needed
from mistudiod.engine.lm import load_lm
from mistudiod.engine.precision import NoPrecision, stamp
from mistudiod.engine.schedule import Schedule, plan
from mistudiod.engine.train import Metrics, Training, fit
from mistudiod.engine.trainer import Diverged
from mistudiod.facts import UnknownModel
from mistudiod.paths import publish, require_space
from mistudiod.specs import Train
from mistudiod.worker.link import Asked, Link, Refused
from mistudiod.worker.new_folder import new_folder
from mistudiod.worker.recipe import metadata, recipe
from mistudiod.worker.train_begin import begin, resumed
from mistudiod.worker.train_measure import MEASURES, Bench, measured
from mistudiod.worker.train_size import fitting_tokens
from mistudiod.worker.train_source import Source, find_source, held_out_windows, state_bytes

# What the job's result and recipe.json both hold; the result has the folder as well.
RESULT = (
    *("sae", "architecture", "hook", "hook_out", "width", "k"),
    *MEASURES,
    *("tokens", "steps", "seconds", "tokens_per_s", "peak_bytes"),
)

_CONTEXT_BYTES = 500 << 20  # what CUDA and its libraries take of a GPU beside the tensors

log = logging.getLogger(__name__)


def run(spec: Train, link: Link) -> None:
    """Write ``saes/<name>``, a SAELens folder with a recipe.json. Goes on from the run's latest checkpoint."""
    final = link.paths.artifact("sae", spec.name)
    result = _finished(final, spec, link) if final.exists() else _train(final, spec, find_source(spec, link), link)
    link.artifact("sae", spec.name)
    link.result({**result, "folder": str(final)})
    shutil.rmtree(link.run / "checkpoints", ignore_errors=True)  # the SAE is there: nothing will go on from them


def _finished(final: Path, spec: Train, link: Link) -> dict[str, Any]:
    """The result of this very job, which was cut off after saving; raises Refused when the SAE is another's."""
    try:
        written: dict[str, Any] = json.loads((final / "recipe.json").read_text())
    except (OSError, ValueError):
        written = {}
    if (written.get("job"), _spec(written)) != (_job(link), spec):
        raise Refused(f"there is already an SAE called {spec.name}: choose another name, or delete it", field="name")
    return {name: written.get(name) for name in RESULT}


def _spec(written: dict[str, Any]) -> Train | None:
    """The spec that something was made of, by an older version too; None when it says none."""
    try:
        return Train.model_validate(written.get("spec"))
    except ValueError:
        return None


def _job(link: Link) -> int | None:
    """The job's id, which its folder is named after; None when the folder is not one of the daemon's."""
    return int(link.run.name) if link.run.name.isdigit() else None


def _train(final: Path, spec: Train, source: Source, link: Link) -> dict[str, Any]:
    """Train, measure and save; returns the measures. Raises Refused, DiskFull, Asked."""
    torch.manual_seed(spec.seed[0])  # what is drawn here has its own generators; this is for anything that has not
    link.progress("load model", 0, 1)
    harvest = _harvest(spec, source, link)
    link.progress("load model", 1, 1)
    schedule = plan(spec.width[0], spec.batch_tokens, spec.tokens, spec.steps, spec.lr)
    try:
        batches = ActivationBatches(
            harvest, source.windows.train, spec.batch_tokens, spec.seed[0], source.chosen.buffer_tokens
        )
        training = _trained(batches, schedule, spec, source, link)
    except NoActivations as error:
        raise Refused(
            f"{spec.hook[0]} of {source.model['name']} cannot be trained on: {error}", field="hook"
        ) from error
    except Diverged as error:
        raise Refused(
            f"training diverged ({error}): either {spec.hook[0]} has values that are not finite, or the learning rate "
            f"of {schedule.peak_lr:.2g} is too high",
            field="lr",
        ) from error
    [trainer] = training.trainers
    sae = trainer.to_sae(metadata(spec, source.tokenization, source.model, training.tokens, source.chosen.precision))
    trained = {
        "tokens": training.tokens,
        "steps": training.step,
        "seconds": training.seconds,
        "tokens_per_s": training.tokens / training.seconds,
    }
    resolved = {
        "lr": schedule.peak_lr,
        "scale": trainer.x.scale,
        "scale_out": trainer.y.scale if trainer.y else None,
        "l1": trainer.sae.settings.l1 or None,
        **asdict(source.chosen),
        "forward_tokens": harvest.lm_tokens,
        **stamp(source.chosen.precision),
        "dead_after_tokens": trainer.sae.settings.dead_after_tokens,
        "d_in": source.d_in,
        "device": source.device.type,
    }
    [one] = spec.saes()
    x, y, dead = trainer.x, trainer.y, trainer.sae.dead.double().mean().item()
    del training, trainer  # Adam's moments make room for the measuring
    bench = Bench(harvest, held_out_windows(source.windows), batches.block(), link)
    sae, measures, sparsity = measured(sae, one, x, y, bench, dead, tanh=spec.tanh is not None)
    about = {
        "sae": one.name,
        **{name: getattr(one, name) for name in ("architecture", "hook", "hook_out", "width", "k")},
    }
    measures = about | measures | trained | {"peak_bytes": _peak_bytes(source.device)}
    with new_folder(final, state_bytes(spec, source.widths)) as partial:
        sae.save(partial, sparsity=sparsity)
        written = recipe(_job(link), spec, source.tokenization, source.model, resolved, measures)
        (partial / "recipe.json").write_text(json.dumps(written, indent=1, ensure_ascii=False, allow_nan=False))
    return measures


def _harvest(spec: Train, source: Source, link: Link) -> Harvest:
    """The model's first blocks, on the GPU when there is one; a wish to end is heard between forward passes."""
    layers = max(map(layers_needed, spec.hooks))
    try:
        lm = load_lm(Path(source.model["path"]), source.device, source.chosen.precision, layers)
    except UnknownModel as error:
        raise Refused(str(error), field="tokenization") from error
    except NoPrecision as error:
        raise Refused(str(error), field="precision") from error

    tokens = source.chosen.forward_tokens
    if "size" in link.choices:
        tokens = fitting_tokens(lm, spec.hooks, source.windows.context, tokens, **link.choices["size"])

    def forward(ids: Tensor) -> Tensor:
        link.check()
        values = lm.activations_at(ids, spec.hooks)
        return values[0] if len(values) == 1 else torch.cat(values, dim=-1)

    return Harvest(source.windows, forward, sum(source.widths), source.device, tokens)


def _trained(batches: ActivationBatches, schedule: Schedule, spec: Train, source: Source, link: Link) -> Training:
    """Train to the end, from this run's latest checkpoint if there is one. Asked to end, saves and raises Asked."""
    folder = link.run / "checkpoints"
    made_of = {
        "spec": spec.model_dump(),
        "tokenization": source.tokenization,
        "widths": list(source.widths),
        "buffer_tokens": source.chosen.buffer_tokens,
        "precision": source.chosen.precision,
    }
    training = resumed(folder, made_of, spec, source, batches, schedule)
    if training is None:
        began = time.monotonic()
        training = begin(spec, source, batches, schedule)
        training.seconds = time.monotonic() - began  # the first block is harvested by now
    saved = training.step

    def save() -> None:
        nonlocal saved
        folder.mkdir(parents=True, exist_ok=True)
        require_space(folder, state_bytes(spec, source.widths))
        checkpoint.save(folder, training.step, training.tensors(), training.about() | {"made_of": made_of}, publish)
        saved = training.step

    def report(step: int, values: list[Metrics]) -> None:
        link.metric(step, values[0])
        link.progress("train", training.tokens, schedule.steps * spec.batch_tokens, "tokens")
        link.check()

    link.progress("train", training.tokens, schedule.steps * spec.batch_tokens, "tokens")
    try:
        fit(training, report, save, spec.checkpoint_every_s)
    except Asked:
        if training.whole and training.step > saved:
            save()
        raise
    return training


def _peak_bytes(device: torch.device) -> int:
    """The most memory that this process has had: on the GPU, or where there is none, of the machine."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_reserved(device)) + _CONTEXT_BYTES
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
