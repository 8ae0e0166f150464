"""What must be in memory for a request: a model in a precision, and SAEs of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mistudiod.errors import Invalid, NotFound
from mistudiod.index import Index
from mistudiod.specs import Calibrate, Complete, Edit, Load, Steer

Ask = Steer | Calibrate | Complete | Load


@dataclass(frozen=True)
class Wanted:
    """``precision`` None: whatever the model is loaded in, or is usual for it."""

    model: str
    saes: tuple[str, ...] = ()
    precision: str | None = None

    def __str__(self) -> str:
        return f"{self.model} in {self.precision}" if self.precision else self.model


async def wanted_of(index: Index, spec: Ask) -> Wanted:
    """What a request reads. Raises NotFound, and Invalid naming both models when an SAE is of another."""
    if isinstance(spec, Load):
        return await wanted(index, spec.model, spec.saes, spec.precision, "saes")
    if isinstance(spec, Complete):
        if any(edit.sae is None for edit in spec.steering):
            raise _refusal("steering", "every edit must name its SAE here")
        return await wanted(index, spec.model, _saes(spec.steering), spec.precision, "steering")
    edits = spec.steering if isinstance(spec, Steer) else []
    return await wanted(index, None, [spec.sae, *_saes(edits)], spec.precision, "steering")


async def wanted(
    index: Index, model: str | None, saes: Sequence[str], precision: str | None, field: str = "saes"
) -> Wanted:
    """``model`` None: that of the first SAE, which ``field`` of the request names. Without a precision it is that in
    which the first SAE was trained. Raises NotFound, Invalid.
    """
    recipes = [await index.get("sae", name) for name in dict.fromkeys(saes)]
    if model is None:
        if not recipes:
            raise _refusal("model", "name a model, or SAEs of one")
        name = _model_of(recipes[0], field)
    else:
        name = str((await index.get("model", model))["name"])
    for recipe in recipes:
        if (other := _model_of(recipe, field)) != name:
            whose = f"of {recipes[0]['name']}" if model is None else "asked for"
            raise _refusal(field, f"the SAE {recipe['name']} is of the model {other}, not of {name}, the one {whose}")
    try:
        await index.get("model", name)
    except NotFound:
        message = f"the model {name} that {recipes[0]['name']} was trained on is not here: add it again"
        raise NotFound(message, {field: message}) from None
    trained = recipes[0].get("resolved") if recipes else None
    usual = trained.get("precision") if isinstance(trained, Mapping) else None
    return Wanted(name, tuple(str(recipe["name"]) for recipe in recipes), precision or usual)


def _saes(edits: Sequence[Edit]) -> list[str]:
    return [edit.sae for edit in edits if edit.sae is not None]


def _model_of(recipe: Mapping[str, Any], field: str) -> str:
    model = recipe.get("model")
    name = model.get("name") if isinstance(model, Mapping) else None
    if not isinstance(name, str):
        raise _refusal(field, f"the SAE {recipe['name']} does not say of which model it is")
    return name


def _refusal(field: str, message: str) -> Invalid:
    return Invalid(message, {field: message})
