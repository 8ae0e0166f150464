"""What a certificate says: which way of reading an SAE holds, in words with their numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mistudiod.engine.certify import GOOD, Outcome
from mistudiod.engine.splice import NO_FIGURES, Loss
from mistudiod.engine.tried import FAR_GAIN, FAR_OFF, NEAR, Difference, Tried, off

_FAR_FVU = 0.1  # between two figures of FVU


def stated(recipe: Mapping[str, Any]) -> dict[str, float]:
    """L0 and FVU as a recipe.json has them: of an imported SAE as its maker says, else as the training has measured.

    A share of variance explained is left alone: makers mean different things by it. So is what cannot be an L0 or FVU.
    """
    imported = recipe.get("imported")
    said = (imported.get("declared") or {}) if isinstance(imported, Mapping) else recipe
    found = {name: _number(said.get(name)) for name in ("l0", "fvu")}
    return {name: value for name, value in found.items() if value is not None and value > 0}


def holds(outcome: Outcome) -> str:
    """declared: it is read as it was meant; other: another way is better; none: no way explains anything."""
    if outcome.best is not outcome.declared:
        return "other"
    return "declared" if outcome.declared.fvu < 1 else "none"


def figures(tried: Tried, declared: Tried, loss: Loss | None = None) -> dict[str, Any]:
    """Of one way, JSON-ready: an FVU that is no number is None. ``fvu_change``: against the declared way, the share by
    which FVU is higher, and from where to where it lies (95 %).
    """
    return {
        "changes": tried.way.changes,
        "words": tried.way.words,
        "fvu": tried.fvu if tried.fvu < float("inf") else None,
        "fvu_change": None if tried is declared else _change(tried, declared),
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
        found = [f"as declared FVU {_fvu(declared)}; {best.way.words} {_fvu(best)}{_lower(best, declared)}", repair]
        if outcome.alike:
            found.insert(1, "nearly as good: " + "; ".join(f"{one.way.words} {_fvu(one)}" for one in outcome.alike))
    elif holds(outcome) == "none":
        found = [
            f"as declared FVU {_fvu(declared)}, no better than the mean, and none of {others} other ways is better: "
            "is it an SAE of this model and this hook?"
        ]
    else:
        found = [f"as declared FVU {_fvu(declared)}, and none of {others} other ways is better: it holds"]
        if declared.fvu > GOOD:
            found.append("it explains little all the same: is it an SAE of this model and this hook?")
        lowest = min(outcome.tried, key=lambda one: one.fvu)
        if lowest is not declared:
            found.append(_lowest(lowest, declared))
    return [*found, *_beside(best, said, by, best is declared), *_gain(best), *_costs(losses, best is declared)]


def _lowest(one: Tried, declared: Tried) -> str:
    """Why a way of a lower FVU does not count."""
    found = f"{one.way.words} FVU {_fvu(one)}"
    if one.l0 > NEAR * declared.l0:
        return f"{found}, but with an L0 of {one.l0:.1f} instead of {declared.l0:.1f}, which lowers it by itself"
    return f"{found}, which is too little to tell"


def _lower(best: Tried, declared: Tried) -> str:
    """By how much FVU is lower, or that fewer latents make up for it that it is not."""
    change = _change(best, declared)
    if change is None:
        return ""
    if best.fvu >= declared.fvu:
        return f", with an L0 of {best.l0:.1f} instead of {declared.l0:.1f}"
    low, high = (f"{-100 * change[end]:.2g}" for end in ("high", "low"))
    return f", {-100 * change['estimate']:.2g}% lower" + (f" ({low} to {high}%)" if low != high else "")


def _change(tried: Tried, declared: Tried) -> dict[str, float] | None:
    found = Difference.between(tried, declared)
    if not (math.isfinite(found.log) and math.isfinite(found.error)):
        return None
    ends = {"estimate": found.log, "low": found.log - 1.96 * found.error, "high": found.log + 1.96 * found.error}
    return {name: math.expm1(min(log, 700.0)) for name, log in ends.items()}


def _beside(best: Tried, said: Mapping[str, float], by: str, same: bool) -> list[str]:
    """What was measured beside what is said; ``same``: as declared."""
    found = []
    if l0 := said.get("l0"):
        far = ", which is far off" if off(best.l0, l0) > FAR_OFF else ""
        far += ": something else may be wrong as well" if far and not same else ""
        found.append(f"L0 is {best.l0:.1f}, and {by} says {l0:.1f}{far}")
    if (fvu := said.get("fvu")) is not None:
        far = ", which is far off" if abs(best.fvu - fvu) > _FAR_FVU else ""
        found.append(f"FVU is {_fvu(best)}, and {by} says {fvu:.3g}{far}")
    return found


def _gain(best: Tried) -> list[str]:
    """What no way mends: that all of what is rebuilt is too large or too small."""
    if best.fvu >= 1 or best.gain <= 0 or off(best.gain, 1) <= FAR_GAIN:
        return []
    too = f"{1 / best.gain:.2g} times too large" if best.gain < 1 else f"{best.gain:.2g} times too small"
    return [f"what it rebuilds is {too}: the norms of the decoder's rows, left out or folded in twice, would do that"]


def _costs(losses: tuple[Loss | None, Loss | None], same: bool) -> list[str]:
    declared, best = losses
    if best is None:
        return []
    before = "" if same or declared is None else f", as declared {declared.spliced - declared.clean:+.3f}"
    return [f"ΔCE, what the model loses with what is rebuilt: {best.spliced - best.clean:+.3f} nats a token{before}"]


def _fvu(tried: Tried) -> str:
    return f"{tried.fvu:.3g}"


def _number(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return None
    return float(value)
