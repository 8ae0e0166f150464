"""Train a sparse autoencoder on one hook of a model, measure it on held-out text, and save it with its recipe."""

from __future__ import annotations

import json
import logging
import resource
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mistudiod.engine import checkpoint
from mistudiod.engine.activations import BLOCK_TOKENS, ActivationBatches, Harvest, NoActivations
from mistudiod.engine.architectures.topk import TopK
from mistudiod.engine.hooks import layers_needed
from mistudiod.engine.lm import load_lm
from mistudiod.engine.measure import measure, pca_fvu, random_dictionary_fvu
from mistudiod.engine.precision import NoPrecision, stamp
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.engine.schedule import Schedule, plan
from mistudiod.engine.train import Diverged, Training, begin, fit
from mistudiod.facts import UnknownModel
from mistudiod.paths import publish, require_space
from mistudiod.specs import Train
from mistudiod.worker.link import Asked, Link, Refused
from mistudiod.worker.new_folder import new_folder
from mistudiod.worker.recipe import metadata, recipe
from mistudiod.worker.train_size import fitting_tokens
from mistudiod.worker.train_source import Source, find_source, held_out_windows, state_bytes

RANDOM_TOKENS = 8_192  # of those for the random dictionary, whose least squares cost k^2 d_in a token
# What the job's result and recipe.json both hold; the result has the folder as well.
RESULT = (
    *("sae", "hook", "width", "k", "fvu", "l0", "alive", "pca_fvu", "random_fvu", "held_out_tokens"),
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
    torch.manual_seed(spec.seed)  # what is drawn here has its own generators; this is for anything that has not
    link.progress("load model", 0, 1)
    harvest = _harvest(spec, source, link)
    link.progress("load model", 1, 1)
    schedule = plan(spec.width, spec.batch_tokens, spec.tokens, spec.steps, spec.lr)
    try:
        batches = ActivationBatches(
            harvest, source.windows.train, spec.batch_tokens, spec.seed, source.chosen.buffer_tokens
        )
        training = _trained(batches, schedule, spec, source, link)
    except NoActivations as error:
        raise Refused(f"{spec.hook} of {source.model['name']} cannot be trained on: {error}", field="hook") from error
    except Diverged as error:
        raise Refused(
            f"training diverged ({error}): either {spec.hook} has values that are not finite, or the learning rate of "
            f"{schedule.peak_lr:.2g} is too high",
            field="lr",
        ) from error
    sae = training.topk.to_sae(
        training.scale, metadata(spec, source.tokenization, source.model, training.tokens, source.chosen.precision)
    )
    trained = {
        "tokens": training.tokens,
        "steps": training.step,
        "seconds": training.seconds,
        "tokens_per_s": training.tokens / training.seconds,
    }
    resolved = {
        "lr": schedule.peak_lr,
        "scale": training.scale,
        **asdict(source.chosen),
        "forward_tokens": harvest.lm_tokens,
        **stamp(source.chosen.precision),
        "dead_after_tokens": training.topk.dead_after_tokens,
        "d_in": source.d_in,
        "device": source.device.type,
    }
    del training  # Adam's moments make room for the measuring
    measures, sparsity = _measure(sae, batches, spec, source, link)
    measures |= trained | {"peak_bytes": _peak_bytes(source.device)}
    with new_folder(final, state_bytes(spec, source.d_in)) as partial:
        sae.save(partial, sparsity=sparsity)
        written = recipe(_job(link), spec, source.tokenization, source.model, resolved, measures)
        (partial / "recipe.json").write_text(json.dumps(written, indent=1, ensure_ascii=False, allow_nan=False))
    return measures


def _harvest(spec: Train, source: Source, link: Link) -> Harvest:
    """The model's first blocks, on the GPU when there is one; a wish to end is heard between forward passes."""
    try:
        lm = load_lm(Path(source.model["path"]), source.device, source.chosen.precision, layers_needed(spec.hook))
    except UnknownModel as error:
        raise Refused(str(error), field="tokenization") from error
    except NoPrecision as error:
        raise Refused(str(error), field="precision") from error

    tokens = source.chosen.forward_tokens
    if "size" in link.choices:
        tokens = fitting_tokens(lm, spec.hook, source.windows.context, tokens, **link.choices["size"])

    def forward(ids: Tensor) -> Tensor:
        link.check()
        return lm.activations(ids, spec.hook)

    return Harvest(source.windows, forward, source.d_in, source.device, tokens)


def _trained(batches: ActivationBatches, schedule: Schedule, spec: Train, source: Source, link: Link) -> Training:
    """Train to the end, from this run's latest checkpoint if there is one. Asked to end, saves and raises Asked."""
    folder = link.run / "checkpoints"
    made_of = {
        "spec": spec.model_dump(),
        "tokenization": source.tokenization,
        "d_in": source.d_in,
        "buffer_tokens": source.chosen.buffer_tokens,
        "precision": source.chosen.precision,
    }
    micro = source.chosen.micro_tokens
    training = _resumed(folder, made_of, batches, schedule, micro) or begin(
        batches, spec.width, spec.k, spec.seed, schedule, micro
    )
    saved = training.step

    def save() -> None:
        nonlocal saved
        folder.mkdir(parents=True, exist_ok=True)
        require_space(folder, state_bytes(spec, source.d_in))
        checkpoint.save(folder, training.step, training.tensors(), training.about() | {"made_of": made_of}, publish)
        saved = training.step

    def report(step: int, values: dict[str, float | None]) -> None:
        link.metric(step, values)
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


def _resumed(
    folder: Path, made_of: dict[str, Any], batches: ActivationBatches, schedule: Schedule, micro_tokens: int
) -> Training | None:
    found = checkpoint.latest(folder)
    if found is None:
        return None
    if _completed(found.about["made_of"], made_of) != made_of:
        log.warning("checkpoint %d was made of something else: training begins anew", found.step)
        return None
    spec = made_of["spec"]
    topk = TopK.init(made_of["d_in"], spec["width"], spec["k"], spec["seed"], device=batches.harvest.device)
    training = Training(topk, batches, schedule, 1.0, micro_tokens)
    training.load(found.tensors, found.about)
    log.warning("training goes on from step %d", training.step)
    return training


def _completed(known: dict[str, Any], usual: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint of version 0.2 was made of, in which some things could not be chosen yet."""
    missing = {"buffer_tokens": BLOCK_TOKENS, "precision": usual["precision"]}
    return {**missing, **known, "spec": Train.model_validate(known["spec"]).model_dump()}


def _peak_bytes(device: torch.device) -> int:
    """The most memory that this process has had: on the GPU, or where there is none, of the machine."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_reserved(device)) + _CONTEXT_BYTES
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _measure(
    sae: SparseAutoencoder, batches: ActivationBatches, spec: Train, source: Source, link: Link
) -> tuple[dict[str, Any], Tensor]:
    """The measures for the recipe, and each latent's firing share (d_sae,), on held-out windows.

    Beside the SAE: as many principal components as latents fire, and a random dictionary of its width and k.
    """
    n = source.held_out_tokens
    total, done = 2 * n + min(n, RANDOM_TOKENS), 0

    def held_out(tokens: int) -> Iterator[Tensor]:
        nonlocal done
        for x in batches.harvest.first(np.array(held_out_windows(source.windows)), tokens):
            yield x
            done += len(x)
            link.progress("measure", done, total, "tokens")

    link.progress("measure", 0, total, "tokens")
    found = measure(sae, held_out(n))
    block = batches.block()  # training activations that are at hand
    pca = pca_fvu(torch.split(block, 4096), held_out(n), min(round(found.l0), sae.d_in))
    random = random_dictionary_fvu(
        held_out(RANDOM_TOKENS), block.mean(0, dtype=torch.float64), sae.d_sae, min(spec.k, sae.d_in), spec.seed
    )
    measures = {
        "sae": spec.name,
        "hook": spec.hook,
        "width": spec.width,
        "k": spec.k,
        "fvu": found.fvu,
        "l0": found.l0,
        "alive": found.alive,
        "pca_fvu": pca,
        "random_fvu": random,
        "held_out_tokens": found.tokens,
    }
    return measures, found.fired.double() / found.tokens
