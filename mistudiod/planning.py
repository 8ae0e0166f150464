"""Plans on this machine, as it is now: what the pure planner is fed with, and what it is to remember."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

from mistudiod import __version__, budget, oom, planner
from mistudiod.abilities import Abilities, versions
from mistudiod.errors import Invalid, NotFound, StudioError, TooMany
from mistudiod.facts import PRECISIONS, ModelFacts, UnknownHook, UnknownModel, check_hook, known_facts
from mistudiod.index import Index
from mistudiod.kept_activations import Kept, model_key, tokenization_key, windows_there
from mistudiod.measurements import Measurements
from mistudiod.monitor import Monitor, Sample
from mistudiod.paths import Paths
from mistudiod.plan_answer import Plan
from mistudiod.plan_choices import LEAST_MICRO_TOKENS, NAMES
from mistudiod.plan_measured import Measured, key
from mistudiod.plan_model import Precision
from mistudiod.plan_train import Choices, like, run_of
from mistudiod.specs import Train

log = logging.getLogger("mistudiod.planning")
Job = Mapping[str, Any]
_FIRST_READING_S, _LOOK_AGAIN_S = 10.0, 0.05  # a wedged GPU driver takes 2 s of it
# Parts that are there while the model is at work, besides its weights; of the runtime torch's allocator knows nothing.
_BESIDE_A_PASS = ("runtime", "buffer", "sae", "gradients", "optimizer", "step", "reserve")
_NUMBERS = ("context", "train_windows", "held_out_windows")  # that a plan needs of a tokenization
_AT = "%Y-%m-%dT%H:%M:%S.%fZ"  # of jobs.now
_LEAST_TOKENS = {"forward_tokens": 128, "micro_tokens": LEAST_MICRO_TOKENS}


class DoesNotFit(StudioError):
    """A job would take more memory than there is."""

    code, status = "out_of_memory", 409


class Planning:
    def __init__(
        self, paths: Paths, index: Index, measurements: Measurements, monitor: Monitor, abilities: Abilities
    ) -> None:
        self._paths, self._index, self._measurements = paths, index, measurements
        self._monitor, self._abilities = monitor, abilities
        self._freed_at = -math.inf  # of time.monotonic()

    def freed(self) -> None:
        """A worker has ended: what was read of memory before is not true any more."""
        self._freed_at = time.monotonic()

    async def plan(self, spec: Train, settled: Mapping[str, Any] | None = None) -> Plan:
        """The plan of a training on this machine now; raises NotFound, Invalid and TooMany.

        ``settled``: automatic choices that were made before and must stay.
        """
        tokenization, model, facts = await self._read(spec)
        free, able = await self.here(spec.precision)
        keys = await asyncio.to_thread(_keys, spec, model, int(tokenization["context"]), free)
        remembered = await self._measurements.of(set(keys.values()))
        choices, tokens = await self._extended(spec)
        stored = await asyncio.to_thread(_stored, self._paths, spec, Path(str(model["path"])), tokenization, facts)
        before = planner.Before({**choices, **(settled or {})}, tokens, stored)
        try:
            by_precision = {precision: remembered[one] for precision, one in keys.items()}
            return await asyncio.to_thread(
                planner.plan, spec, facts, tokenization, free, by_precision, able, before
            )  # some 0.1 s when there are many ways to look for
        except UnknownHook as error:
            raise _refusal("hook", str(error)) from None
        except UnknownModel as error:
            raise _refusal("precision", str(error)) from None

    async def here(self, precision: str | None) -> tuple[budget.Budget, planner.Abilities]:
        """What a worker may take on this machine now, and what it can do; raises TooMany, and Invalid for a precision
        that does not work here.
        """
        sample = await self._sample()
        found = await self._abilities.found([gpu["name"] for gpu in sample["gpus"]])
        if found and precision and (why_not := found["precisions"].get(precision)):
            raise _refusal("precision", str(why_not))
        if found is None or found["device"] == "cpu":
            sample = {**sample, "gpus": []}
        free = await asyncio.to_thread(budget.now, sample)
        return free, planner.PLAIN if found is None else _able(found)

    async def for_job(self, job: Job, goes_on: bool) -> dict[str, Any] | None:
        """What is written down of a job's plan before its worker is started; None when none can be made.

        What a checkpoint, from which it ``goes_on``, or a restart hangs on stays as it was chosen. Raises DoesNotFit.
        """
        if job["kind"] != "train":
            return None
        before = job["plan"] or {}
        settled = _settled(before) if goes_on or before.get("restarts") else None
        try:
            made = await self.plan(Train.model_validate(job["spec"]), settled)
        except StudioError as error:  # the worker finds out the same, and says it better
            log.info("job %s: no plan: %s", job["id"], error)
            kept: dict[str, Any] | None = job["plan"]
            return kept
        if made.fits is False:
            raise DoesNotFit(made.verdict)
        return {**made.about(), "restarts": before.get("restarts", 0)}

    async def remember(self, job: Job) -> None:
        """Learn from a job that is done what it took."""
        result, plan = job["result"] or {}, job["plan"] or {}
        if job["kind"] != "train" or not result.get("peak_bytes") or not plan:
            return
        spec = Train.model_validate(job["spec"])
        tokenization, model, facts = await self._read(spec)
        device = budget.Budget(**plan["budget"])
        run = run_of(spec, facts, tokenization, device.device)
        values = {name: choice["value"] for name, choice in plan["choices"].items()}
        if not set(NAMES) <= values.keys():  # an older version's, whose formula was another
            return
        keys = await asyncio.to_thread(_keys, spec, model, int(tokenization["context"]), device)
        timed = job["attempts"] == 1 and result.get("seconds") is not None
        took = Measured(
            **like(run, Choices(**values)),
            peak_bytes=int(result["peak_bytes"]),
            formula_bytes=int(plan["formula_bytes"]),
            tokens_per_s=result.get("tokens_per_s"),
            other_s=max(0.0, _seconds(job) - float(result["seconds"])) if timed else None,
        )
        await self._measurements.add(keys[values["precision"]], took)

    async def _extended(self, spec: Train) -> tuple[dict[str, Any], int]:
        """Choices that the SAE was trained with which is to be trained further, and its tokens."""
        if spec.extends is None:
            return {}, 0
        try:
            recipe = await self._index.get("sae", spec.extends)
        except NotFound as error:
            raise _refusal("extends", error.message) from None
        resolved = recipe.get("resolved") or {}
        return {name: resolved[name] for name in NAMES if name in resolved}, int(recipe.get("tokens") or 0)

    async def _read(self, spec: Train) -> tuple[dict[str, Any], dict[str, Any], ModelFacts]:
        tokenization = await self._index.get("tokenization", spec.tokenization)
        if not all(isinstance(tokenization.get(name), int) for name in _NUMBERS):
            raise _refusal("tokenization", f"the tokenization {spec.tokenization} is damaged: make it again")
        try:
            model = await self._index.get("model", str(tokenization.get("model")))
            return tokenization, model, known_facts(model)
        except NotFound as error:
            again = f"{error.message}: add the model of {spec.tokenization} again"
            raise _refusal("tokenization", again) from None
        except UnknownModel as error:
            raise _refusal("tokenization", str(error)) from None

    async def _sample(self) -> Sample:
        """The monitor's newest reading, begun after the last worker's end. Right after one there is none."""
        for _ in range(int(_FIRST_READING_S / _LOOK_AGAIN_S)):
            if self._monitor.history and self._monitor.began > self._freed_at:
                return self._monitor.history[-1]
            await asyncio.sleep(_LOOK_AGAIN_S)
        raise TooMany("the machine has not been read yet: ask again in a few seconds")


def told(plan: Mapping[str, Any]) -> dict[str, Any]:
    """What a worker is told of its job's plan: the choices, and which of them to make better by measuring."""
    choices = {name: choice["value"] for name, choice in plan["choices"].items()}
    budget, automatic = plan["budget"], plan["choices"]["forward_tokens"]["automatic"]
    if budget["device"] == "cpu" or budget["free_bytes"] is None or not automatic or plan["measured"]:
        return choices
    later = sum(part["bytes"] for part in plan["parts"] if part["part"] in _BESIDE_A_PASS)
    size = {"budget_bytes": budget["free_bytes"] - later, "unified": budget["device"] == "unified"}
    return {**choices, "size": size}


def halved(plan: Mapping[str, Any]) -> dict[str, Any] | None:
    """The plan with half as much at a time, for a worker that ran out of memory; None when that was done enough.

    The whole model goes first, and with it the first half. Only what was chosen automatically is changed, and never
    what a checkpoint hangs on: with the buffer the order of the text would change.
    """
    if plan["restarts"] >= oom.RESTARTS:
        return None
    choices = dict(plan["choices"])
    whole = choices.get("whole_model")
    if whole and whole["automatic"] and whole["value"]:
        choices["whole_model"] = {**whole, "value": False}
    for name, least in _LEAST_TOKENS.items():
        choice = choices[name]
        smaller = oom.halved(choice["value"], plan["restarts"], least) if choice["automatic"] else None
        if smaller is not None:
            choices[name] = {**choice, "value": smaller}
    if choices == plan["choices"]:
        return None
    return {**plan, "choices": choices, "restarts": plan["restarts"] + 1}


def _settled(before: Mapping[str, Any]) -> dict[str, Any]:
    return {name: choice["value"] for name, choice in before.get("choices", {}).items() if choice["automatic"]}


def _stored(
    paths: Paths, spec: Train, model: Path, tokenization: Mapping[str, Any], facts: ModelFacts
) -> dict[str, int]:
    """Bytes of the activations that are to be kept and are there already, by precision."""
    form, context = spec.keep_activations, int(tokenization["context"])
    if form == "no":
        return {}
    windows = int(tokenization["train_windows"]) + int(tokenization["held_out_windows"])
    try:
        names = model_key(model), tokenization_key(paths.artifact("tokenization", spec.tokenization))
        found = {}
        for precision in PRECISIONS:
            kept = [
                Kept(names[0], precision, names[1], hook, form, windows, context, check_hook(facts, hook))
                for hook in spec.hooks
            ]
            there = [windows_there(one.folder(paths.activations), one) * one.window_bytes for one in kept]
            found[precision] = sum(there)
        return found
    except (OSError, ValueError):  # the worker finds out the same, and says it better; so does the plan of a wrong hook
        return {}


def _able(found: Mapping[str, Any]) -> planner.Abilities:
    names: tuple[Precision, ...] = get_args(Precision)
    return planner.Abilities(tuple(name for name in names if found["precisions"].get(name, "") is None))


def _keys(spec: Train, model: Mapping[str, Any], context: int, device: budget.Budget) -> dict[str, str]:
    """Of each precision: what must be the same for a measurement to hold."""
    named = f"{device.device} {device.name} {device.total_bytes}"
    installed = {"mistudio": __version__} | {name: version or "" for name, version in versions().items()}
    return {one: key(model, one, context, spec.hooks, named, installed) for one in PRECISIONS}


def _seconds(job: Job) -> float:
    began, ended = (datetime.strptime(str(job[name]), _AT) for name in ("started_at", "ended_at"))
    return (ended - began).total_seconds()


def _refusal(field: str, message: str) -> Invalid:
    return Invalid(message, {field: message})
