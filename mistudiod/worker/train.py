"""Train sparse autoencoders on hooks of a model, measure them on held-out text, and save them with their recipes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch

from mistudiod.engine import checkpoint
from mistudiod.engine.activations import ActivationBatches
from mistudiod.engine.harvest import NoActivations
from mistudiod.engine.lm import LM
from mistudiod.engine.splice import Splice
from mistudiod.paths import is_disk_full, require_space
from mistudiod.specs import One, Train
from mistudiod.worker.link import Asked, Held, Link, Refused
from mistudiod.worker.recipe import origins
from mistudiod.worker.train_begin import Pass
from mistudiod.worker.train_extend import checkpoint_to_extend, extending, origin
from mistudiod.worker.train_harvest import harvest, load_model, open_stores
from mistudiod.worker.train_measure import FEW_TOKENS, SPLICE_TOKENS, Bench, splice_numbers
from mistudiod.worker.train_pass import Running, held_by_disk
from mistudiod.worker.train_save import RESULT, Saver, Trained, own_recipe, trained
from mistudiod.worker.train_source import HELD_OUT_TOKENS, Source, find_source, held_out_windows
from mistudiod.worker.train_watch import Watch, evaluate_tokens

OF_A_PASS = ("tokens", "steps", "seconds", "tokens_per_s", "peak_bytes")  # what a recipe says and the result sums up


def run(spec: Train, link: Link) -> None:
    """Write ``saes/<name>`` for every autoencoder of the spec: a SAELens folder with a recipe.json.

    Goes on from the run's latest checkpoint, and makes what is not yet made. Raises Refused, Held, DiskFull, Asked.
    """
    if spec.threads:
        torch.set_num_threads(spec.threads)
    torch.manual_seed(spec.seed[0])  # what is drawn here has its own generators; this is for anything that has not
    recipes = {one.name: own_recipe(one, spec, link) for one in spec.saes()}
    missing = [one for one in spec.saes() if not _is_finished(recipes[one.name])]
    for one in spec.saes():
        if one not in missing:
            link.artifact("sae", one.name)
    try:
        lost = _train(spec, missing, link) if missing else {}
    except Asked as asked:
        if asked.what == "stop":  # what there is by now
            _tell(spec, link)
        raise
    if link.finalize and not any(own_recipe(one, spec, link) for one in spec.saes()):
        raise Refused("there is nothing to finalize: no checkpoint was made yet; resume the job, or delete it")
    if lost and len(lost) == len(spec.saes()):
        raise _diverged(lost)
    _tell(spec, link, lost)


def _is_finished(recipe: Mapping[str, Any] | None) -> bool:
    return recipe is not None and bool(recipe.get("finished", True))


def _train(spec: Train, missing: Sequence[One], link: Link) -> dict[str, str]:
    """Train what is missing; returns those that were lost, and why."""
    source = find_source(spec, link)
    if spec.extends:
        source = extending(spec, source, link)
    passes = _passes(spec, missing, source)
    checkpoints = link.run / "checkpoints"
    if spec.extends and not checkpoint.exists(checkpoints, passes[0].is_of):
        checkpoint_to_extend(passes[0], link)  # refused before anything is loaded
    _require_space(spec, passes, link)
    lm = load_model(source, link)
    made_of = origins(source.tokenization, link.paths.artifact("tokenization", spec.tokenization), source.model)
    saver = Saver(spec, made_of | {"extends": origin(spec, link)}, link)
    lost: dict[str, str] = {}
    for one_pass in passes:
        if link.finalize and not checkpoint.exists(checkpoints, one_pass.is_of):
            lost |= dict.fromkeys(one_pass.names, "it was not begun when the training was finalized")
            continue
        try:
            lost |= _run_pass(one_pass, lm, saver, link)
        except NoActivations as error:
            hook = one_pass.ones[0].hook
            raise Refused(f"{hook} of {source.model['name']} cannot be trained on: {error}", field="hook") from error
    return lost


def _passes(spec: Train, missing: Sequence[One], source: Source) -> list[Pass]:
    """The grid in the order of its names, so many at once; without what is made already."""
    ones, size = spec.saes(), source.chosen.saes_at_once
    parts = [ones[start : start + size] for start in range(0, len(ones), size)]
    wanted = [[one for one in part if one in missing] for part in parts]
    return [Pass(part, spec, source.of(part), n, len(parts)) for n, part in enumerate(wanted) if part]


def _require_space(spec: Train, passes: Sequence[Pass], link: Link) -> None:
    """Raises DiskFull unless there is room for the checkpoints that there are at once, and for the SAEs."""
    states = [one_pass.source.state_bytes(one_pass.ones) for one_pass in passes]  # the last of each pass is kept
    saes = sum(one_pass.source.sae_bytes(one) for one_pass in passes for one in one_pass.ones)
    kept = sum(path.stat().st_size for path in (link.run / "checkpoints").glob("*/*"))
    require_space(link.paths.data, max(0, sum(states) + spec.keep_checkpoints * max(states) - kept) + saes)


def _run_pass(one_pass: Pass, lm: LM, saver: Saver, link: Link) -> dict[str, str]:
    """Train, measure and save the autoencoders of a pass; returns those that were lost, and why."""
    spec, source = one_pass.spec, one_pass.source
    with open_stores(spec.keep_activations, source, link) as stores:
        batches = ActivationBatches(
            harvest(lm, source, stores, link),
            source.windows.train,
            spec.batch_tokens,
            spec.order_seed,
            source.chosen.buffer_tokens,
        )
        to_extend = partial(checkpoint_to_extend, one_pass, link) if spec.extends else None
        running = Running(one_pass, batches, link, partial(_watch, lm, batches), to_extend)
        try:
            _end(running, lm, saver, link)
        except Exception as error:
            if not is_disk_full(error):
                raise
            with suppress(Held):  # there may be room for a checkpoint where there was none for activations or an SAE
                running.keep()
            raise held_by_disk(error, running.checkpoint) from error
    return running.lost


def _end(running: Running, lm: LM, saver: Saver, link: Link) -> None:
    """Train, unless the job is to be finalized, and save."""
    ended: list[Trained] = []
    try:
        if not link.finalize:
            _train_until_asked(running, link)
        if ended := _ended(running):
            saver.save(ended, running.one_pass, _bench(running, lm, link))
    except Asked as asked:
        running.keep()
        if asked.what == "stop" and link.asked == "stop":  # and not by a signal, which leaves no time
            _leave_as_they_are(ended or _ended(running), running, lm, saver, link)
        raise


def _train_until_asked(running: Running, link: Link) -> None:
    """Train to the end, or until the job is to be finalized."""
    try:
        running.train()
    except Asked as asked:
        if asked.what != "finalize":
            raise
        running.keep()


def _ended(running: Running) -> list[Trained]:
    """The autoencoders as they are; their trainers, with Adam's moments, make room for the measuring."""
    if not running.training.step:
        return []
    found = trained(running.training, running.one_pass, running.batches, running.checkpoint)
    running.training.trainers.clear()
    return found


def _leave_as_they_are(some: Sequence[Trained], running: Running, lm: LM, saver: Saver, link: Link) -> None:
    """Save usable autoencoders of a training that is stopped, soon: the daemon waits, but not long."""
    asked, link.asked = link.asked, None  # heard; the model must be read once more
    try:
        if some:
            saver.save(some, running.one_pass, _bench(running, lm, link, FEW_TOKENS), finished=False)
    finally:
        link.asked = link.asked or asked


def _bench(running: Running, lm: LM, link: Link, tokens: int = HELD_OUT_TOKENS) -> Bench:
    """What the SAEs of a pass are measured on; ``tokens`` at most."""
    batches, windows = running.batches, running.one_pass.source.windows
    splice = _splice(running.one_pass, lm, batches, min(tokens, SPLICE_TOKENS))
    return Bench(batches.harvest, held_out_windows(windows), batches.sample(), link, splice, tokens)


def _watch(lm: LM, batches: ActivationBatches, one_pass: Pass) -> Watch:
    windows = one_pass.source.windows
    hooks = [(one.hook, one.hook_out) for one in one_pass.ones]
    tokens = evaluate_tokens(one_pass.schedule(one_pass.ones[0]).steps * one_pass.spec.batch_tokens)
    splice, held_out = _splice(one_pass, lm, batches, tokens), held_out_windows(windows)
    return Watch(hooks, batches.harvest, windows, held_out, lm, one_pass.spec.order_seed, splice, tokens)


def _splice(one_pass: Pass, lm: LM, batches: ActivationBatches, tokens: int) -> Splice | None:
    """The language model with something in the place of its activations; None when only a part of it is here."""
    source, harvest = one_pass.source, batches.harvest
    if not source.chosen.whole_model:
        return None
    numbers = splice_numbers(source.windows, tokens)
    return Splice(lm, source.windows, numbers, source.hooks, harvest.outlier_norms, harvest.lm_tokens)


def _tell(spec: Train, link: Link, failed: Mapping[str, str] | None = None) -> None:
    """Say what was made and what failed, and keep the checkpoints from which it can be gone on with.

    All others too where the spec asks for more than is usual: they are there to be compared.
    """
    made = [recipe for one in spec.saes() if (recipe := own_recipe(one, spec, link))]
    if not made:
        return
    wants_more = spec.keep_checkpoints > checkpoint.KEPT
    if not wants_more and len(made) == len(spec.saes()) and all(map(_is_finished, made)):
        checkpoint.keep_only(link.run / "checkpoints", {recipe.get("checkpoint") for recipe in made})
    by_pass = list({recipe.get("checkpoint"): recipe for recipe in made}.values())
    result: dict[str, Any] = {name: by_pass[0].get(name) for name in OF_A_PASS}
    if len(by_pass) > 1:
        seconds, tokens = (sum(recipe[name] for recipe in by_pass) for name in ("seconds", "tokens"))
        result |= {"seconds": seconds, "tokens_per_s": tokens / seconds if seconds else None}
        result["peak_bytes"] = max(recipe["peak_bytes"] for recipe in by_pass)
    saes = [{name: recipe.get(name) for name in RESULT} for recipe in made]
    if len(spec.saes()) == 1:
        result |= saes[0] | {"folder": str(link.paths.artifact("sae", spec.name))}
    if failed:
        result["failed"] = [{"sae": name, "message": why} for name, why in failed.items()]
    link.result({**result, "saes": saes})


def _diverged(lost: Mapping[str, str]) -> Refused:
    told = "; ".join(f"{name}: {why}" for name, why in lost.items())
    return Refused(
        f"training diverged, at half the learning rate too ({told}): choose a lower lr, or leave it out; if that does "
        "not help, the hook has values that are not finite",
        field="lr",
    )
