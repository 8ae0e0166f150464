"""What a session will take, before its process is started."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, get_args

from mistudiod import plan_steer
from mistudiod.budget import Device
from mistudiod.errors import OutOfMemory
from mistudiod.facts import ModelFacts, UnknownHook, UnknownModel, check_hook, known_facts
from mistudiod.index import Index
from mistudiod.plan_model import OF_DTYPE, Precision
from mistudiod.plan_steer import SaeSize, SteerPlan
from mistudiod.planning import Planning
from mistudiod.wanted import Wanted

log = logging.getLogger("mistudiod.session")
TOKENS = 512  # of the text that must have room, with its prompt; the worker sizes every request anew


async def planned(planning: Planning, index: Index, wanted: Wanted) -> SteerPlan | None:
    """None when none can be made: the worker finds out the same, and says it better.

    Raises Invalid for a precision that does not work here, and OutOfMemory when not even one short text has room
    beside what is to be loaded.
    """
    try:
        facts = known_facts(await index.get("model", wanted.model))
        saes = [_size(facts, await index.get("sae", name)) for name in wanted.saes]
        budget, able = await planning.here(wanted.precision)
        precision = _precision(wanted.precision, facts, budget.device)
        tokens = min(TOKENS, facts.context)
        made = await asyncio.to_thread(plan_steer.plan, facts, precision, saes, 1, tokens, budget, able)
    except (UnknownModel, UnknownHook, LookupError, TypeError, ValueError) as error:
        log.info("no plan of a session with %s: %s", wanted, error)
        return None
    if made.rows_at_once < 1:
        raise OutOfMemory(made.verdict)
    return made


def _size(facts: ModelFacts, recipe: Mapping[str, Any]) -> SaeSize:
    """Raises UnknownHook, and LookupError, TypeError or ValueError for a recipe that does not say."""
    spec = recipe["spec"]
    reads, writes = str(spec["hook"]), str(spec.get("hook_out") or spec["hook"])
    return SaeSize(check_hook(facts, reads), int(recipe["width"]), check_hook(facts, writes), bool(spec.get("skip")))


def _precision(asked: str | None, facts: ModelFacts, device: Device) -> Precision:
    """As the worker chooses it when nobody has: as the weights lie there; half precision is slow on most CPUs."""
    found = {name: name for name in get_args(Precision)}.get(asked or facts.quantized)
    return found or ("fp32" if device == "cpu" else OF_DTYPE.get(facts.dtype, "fp32"))
