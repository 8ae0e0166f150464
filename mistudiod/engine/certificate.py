"""What a certificate says: which way of reading an SAE holds, in words with their numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mistudiod.engine.certify import Outcome, Tried, off
from mistudiod.engine.splice import NO_FIGURES, Loss

FAR_OFF = 1.5  # times an L0 that a card says, on other text: beyond that it is worth a word
_FAR_FVU = 0.1  # between two figures of FVU


def stated(recipe: Mapping[str, Any]) -> dict[str, float]:
    """L0 and FVU as a recipe.json has them: of an imported SAE as its maker says, else as the training has measured."""
    imported = recipe.get("imported")
    said = (imported.get("declared") or {}) if isinstance(imported, Mapping) else recipe
    found = {name: value for name in ("l0", "fvu") if (value := _number(said.get(name))) is not None}
    explained = _number(said.get("variance_explained"))
    return {"fvu": 1 - explained, **found} if explained is not None else found


def holds(outcome: Outcome) -> str:
    """declared: it is read as it was meant; other: another way is clearly better; none: no way explains anything."""
    if outcome.best is not outcome.declared:
        return "other"
    return "declared" if outcome.declared.fvu < 1 else "none"


def figures(tried: Tried, loss: Loss | None = None) -> dict[str, Any]:
    """Of one way, JSON-ready: an FVU that is no number is None."""
    return {
        "changes": tried.way.changes,
        "words": tried.way.words,
        "fvu": tried.fvu if tried.fvu < float("inf") else None,
        "l0": tried.l0,
        "alive": tried.alive,
        **(loss.figures() if loss else NO_FIGURES),
    }


def sentences(
    outcome: Outcome, said: Mapping[str, float], by: str, losses: tuple[Loss | None, Loss | None], repair: str
) -> list[str]:
    """The verdict. ``by``: who has said what is ``said``; ``losses``: of the declared way and of the best; ``repair``:
    what is to be done about it.
    """
    declared, best, others = outcome.declared, outcome.best, len(outcome.tried) - 1
    if holds(outcome) == "other":
        found = [f"as declared FVU {_fvu(declared)}; {best.way.words} {_fvu(best)}", repair]
        if outcome.alike:
            found.insert(1, "nearly as good: " + "; ".join(f"{one.way.words} {_fvu(one)}" for one in outcome.alike))
    elif holds(outcome) == "none":
        found = [
            f"as declared FVU {_fvu(declared)}, no better than the mean, and none of {others} other ways is clearly "
            "better: is it an SAE of this model and this hook?"
        ]
    else:
        found = [f"as declared FVU {_fvu(declared)}, and none of {others} other ways is clearly better: it holds"]
        lowest = min(outcome.tried, key=lambda one: one.fvu)
        if lowest is not declared:
            found.append(f"{lowest.way.words} FVU {_fvu(lowest)}, which is not enough to tell")
    return [*found, *_beside(best, said, by), *_costs(losses, best is declared)]


def _beside(best: Tried, said: Mapping[str, float], by: str) -> list[str]:
    """What was measured beside what is said."""
    found = []
    if l0 := said.get("l0"):
        far = ", which is far off" if off(best.l0, l0) > FAR_OFF else ""
        found.append(f"{best.l0:.1f} latents fire on a token, and {by} says {l0:.1f}{far}")
    if (fvu := said.get("fvu")) is not None:
        far = ", which is far off" if abs(best.fvu - fvu) > _FAR_FVU else ""
        found.append(f"FVU is {_fvu(best)}, and {by} says {fvu:.2g}{far}")
    return found


def _costs(losses: tuple[Loss | None, Loss | None], same: bool) -> list[str]:
    declared, best = losses
    if best is None:
        return []
    before = "" if same or declared is None else f", as declared {declared.spliced - declared.clean:.2f}"
    return [f"in the place of what it rebuilds it costs the model {best.spliced - best.clean:.2f} nats a token{before}"]


def _fvu(tried: Tried) -> str:
    return f"{tried.fvu:.2g}" if tried.fvu < 1 else f"{tried.fvu:.3g}"


def _number(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return None
    return float(value)
