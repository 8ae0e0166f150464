"""Going on with the training of an SAE: from which checkpoint, and what must be as it was."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from mistudiod import about
from mistudiod.engine import checkpoint
from mistudiod.engine.checkpoint import Checkpoint
from mistudiod.paths import PARTIAL
from mistudiod.specs import Train
from mistudiod.worker.link import Link, Refused
from mistudiod.worker.read_recipe import trained_as
from mistudiod.worker.train_begin import FORMAT, Pass
from mistudiod.worker.train_source import Source

# Of the spec: what may be another when a training goes on, because it says how long and with what means.
MAY_DIFFER = {
    *("name", "extends", "preset", "tokens", "steps", "checkpoint_every_s", "keep_checkpoints", "evaluate_every"),
    *("saes_at_once", "whole_model", "forward_tokens", "micro_tokens", "threads"),
}
_SETTLED = ("precision", "buffer_tokens")  # that the plan may have chosen


def extending(spec: Train, source: Source, link: Link) -> Source:
    """The source with what the training of ``spec.extends`` has settled. Raises Refused, naming the field."""
    recipe = _recipe(spec, link)
    try:
        before = Train.model_validate(recipe["spec"])
    except (KeyError, ValueError):
        raise Refused(f"{spec.extends} was made by another version: its training cannot go on", "extends") from None
    now = spec.only(spec.saes()[0])
    for field in Train.model_fields:
        if field not in MAY_DIFFER and field not in _SETTLED and getattr(before, field) != getattr(now, field):
            raise _differs(spec, field, getattr(before, field), getattr(now, field))
    settled = {field: recipe["resolved"][field] for field in _SETTLED}
    for field, value in settled.items():
        if getattr(spec, field) not in (None, "auto", value):
            raise _differs(spec, field, value, getattr(spec, field))
    return replace(source, chosen=replace(source.chosen, **settled))


def checkpoint_to_extend(one_pass: Pass, link: Link) -> Checkpoint:
    """The newest one of the training that ``spec.extends`` is of, in which that has the name that it has now.

    Raises Refused when it is gone, or as far already.
    """
    spec, name = one_pass.spec, one_pass.spec.extends
    recipe = _recipe(spec, link)
    was = trained_as(recipe)
    folder = link.paths.run(recipe["job"] or 0) / "checkpoints"

    def fits(said: dict[str, Any]) -> bool:
        return said.get("made_of", {}).get("format") == FORMAT and was in said["saes"]

    found = checkpoint.latest(folder, fits)
    if found is None:
        raise Refused(f"the checkpoint of {name} is gone with its job: train it anew", "extends")
    if found.about["made_of"]["tokenization"] != one_pass.source.tokenization:
        raise Refused(f"{spec.tokenization} was made anew since {name} was trained: train it anew", "tokenization")
    steps = one_pass.schedule(one_pass.ones[0]).steps
    if steps <= found.about["step"]:
        field, had = ("steps", found.about["step"]) if spec.steps else ("tokens", found.about["tokens"])
        raise Refused(f"{name} has been trained on {had:,} {field} already: ask for more than that in all", field)
    saes = [name if one == was else "" for one in found.about["saes"]]  # another of them may have been called so then
    return replace(found, about={**found.about, "saes": saes})


def origin(spec: Train, link: Link) -> dict[str, Any] | None:
    """What the recipe says of the SAE that was gone on with."""
    if spec.extends is None:
        return None
    recipe = _recipe(spec, link)
    return {"sae": spec.extends, "job": recipe["job"], "tokens": recipe["tokens"], "steps": recipe["steps"]}


def _recipe(spec: Train, link: Link) -> dict[str, Any]:
    assert spec.extends is not None
    path = _folder(spec.extends, link) / "recipe.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise Refused(f"there is no SAE called {spec.extends}", "extends") from None
    except (OSError, ValueError) as error:
        raise Refused(f"{path} is damaged: {error}", "extends") from error
    return found


def _folder(name: str, link: Link) -> Path:
    """Of the SAE of a name; where there is none, the only one that was called so when the training began."""
    folder = link.paths.artifact("sae", name)
    if folder.exists():
        return folder
    saes = [path.parent for path in folder.parent.glob(f"*/{about.ABOUT}") if not path.parent.name.startswith(PARTIAL)]
    found = [sae for sae in saes if name in about.read(sae).get("earlier", ())]
    return found[0] if len(found) == 1 else folder


def _differs(spec: Train, field: str, before: object, now: object) -> Refused:
    told = [str(value[0] if isinstance(value, list) and len(value) == 1 else value) for value in (before, now)]
    return Refused(f"{spec.extends} was trained with {field} {told[0]}, not {told[1]}: leave it as it was", field)
