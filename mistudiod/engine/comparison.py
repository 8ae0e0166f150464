"""What it means that SAEs differ on the same documents: paired differences with their intervals, in sentences.

Documents are drawn once for all SAEs, so that what is hard about a document is hard for each of them, and the interval
is of the difference itself. Where it holds 0, chance alone may have made the difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mistudiod.engine.by_document import LEAST_UNITS, Bootstrap, Figure, LossSums, Sums, difference

SHOWN = {"fvu": ("FVU", ""), "ce_delta": ("ΔCE", " nats"), "kl": ("KL", " nats")}  # lower is better in each
SMALLEST, ROUNDING = 1e-6, 1e-4  # that the order of additions may change of a figure, and as a share of it
LEVEL_MISSES = 20  # of so many intervals of 95 % one lies off by chance
Estimate = dict[str, Any]  # {"value": float | None, "interval": [low, high] | None}, JSON-ready; of differences "least"
Differences = dict[str, Estimate]


@dataclass(frozen=True)
class Measured:
    """An SAE on the documents that all of a comparison are measured on."""

    name: str
    rebuilds: str  # what: its hook_out, and how the text is read where that differs
    sums: Sums
    losses: LossSums

    def figures(self) -> dict[str, Figure]:
        return self.sums.figures() | self.losses.figures()


def estimate(figure: Figure, bootstrap: Bootstrap) -> Estimate:
    value, interval = bootstrap.value(figure), bootstrap.interval(figure)
    if not math.isfinite(value):
        return {"value": None, "interval": None}
    return {"value": value, "interval": None if interval is None else list(interval)}


def differences(a: Measured, b: Measured, of_tokens: Bootstrap, of_losses: Bootstrap) -> Differences:
    """a less b, of L0 and of SHOWN; no FVU where they rebuild different things."""
    ours, theirs = a.figures(), b.figures()
    draws = {"l0": of_tokens, **({"fvu": of_tokens} if a.rebuilds == b.rebuilds else {})}
    found = {}
    for name, bootstrap in {**draws, "ce_delta": of_losses, "kl": of_losses}.items():
        size = max(abs(bootstrap.value(figures[name])) for figures in (ours, theirs))
        least = {"least": SMALLEST + ROUNDING * size}
        found[name] = estimate(difference(ours[name], theirs[name]), bootstrap) | least
    return found


def better(found: Estimate) -> int:
    """Of a figure that is to be low: -1 when a is better, 1 when b is; 0 when there is no interval, or it comes as near
    to 0 as ``least``, which rounding may make.
    """
    low, high = found["interval"] or (0.0, 0.0)
    return -1 if high < -found["least"] else 1 if low > found["least"] else 0


def dominates(found: Differences) -> int:
    """-1 when a loses less (FVU) at no more latents (L0), 1 when b does, 0 when neither does."""
    if "fvu" not in found:
        return 0
    loses_less, fewer = better(found["fvu"]), better(found["l0"])
    return loses_less if loses_less != -fewer else 0


def verdict(a: Measured, b: Measured, l0: tuple[float, float], found: Differences, documents: int) -> list[str]:
    """Which is better at what and by how much. ``l0`` of both."""
    said = []
    if a.rebuilds != b.rebuilds:
        said.append(
            f"FVU is not compared: {a.name} rebuilds {a.rebuilds}, {b.name} rebuilds {b.rebuilds}; what each costs the "
            "model is."
        )
    if found["l0"]["interval"] is None:
        said.append(
            f"For intervals there must be {LEAST_UNITS} documents, and there {'is' if documents == 1 else 'are'} "
            f"{documents}: no difference can be told from chance."
        )
        return said
    told = [name for name in SHOWN if name in found and found[name]["interval"]]
    clear = {name: side for name in told if (side := better(found[name]))}
    same = [name for name in told if name not in clear]
    for name, side in clear.items():
        times = f", {_at(*l0[::-side])}" if name == "fvu" else ""
        who = (a if side < 0 else b).name
        said.append(f"{who} has the lower {SHOWN[name][0]}, by {_amount(name, found[name])}{times}.")
    if same:
        what = "" if len(same) == len(SHOWN.keys() & found) else f" in {' and '.join(SHOWN[name][0] for name in same)}"
        held = ", ".join(f"{SHOWN[name][0]} {_range(found[name])}{SHOWN[name][1]}" for name in same)
        said.append(
            f"{a.name} and {b.name} are indistinguishable{what} on this data: what they differ by may be 0 ({held})."
        )
    said += _without_interval(found, {"fvu": documents, **dict.fromkeys(("ce_delta", "kl"), len(a.losses.tokens))})
    return said + _sparser(a, b, l0, found, bool(clear.get("fvu")))


def front(names: Sequence[str], pairs: Mapping[tuple[str, str], Differences]) -> list[str]:
    """Those that no other dominates."""
    beaten = {(b if side < 0 else a) for (a, b), found in pairs.items() if (side := dominates(found))}
    return [name for name in names if name not in beaten]


def together(names: Sequence[str], pairs: Mapping[tuple[str, str], Differences]) -> list[str]:
    """What is said of more than two."""
    if len(names) < 3:
        return []
    kept = front(names, pairs)
    shown = sum(name in found and bool(found[name]["interval"]) for found in pairs.values() for name in SHOWN)
    if not shown:
        return []
    said = []
    if all("fvu" in found and found["fvu"]["interval"] for found in pairs.values()):
        rest = [name for name in names if name not in kept]
        beaten = f"; {_listed(rest)} {'is' if len(rest) == 1 else 'are'} beaten by one that loses less at no more L0"
        said.append(f"Not beaten by any: {_listed(kept)}{beaten if rest else ''}.")
    misses = f"about {max(1, round(shown / LEVEL_MISSES))}" if 2 * shown >= LEVEL_MISSES else "fewer than one"
    said.append(f"{shown} intervals of 95 % are looked at, of which {misses} would miss 0 by chance alone.")
    return said


def _without_interval(found: Differences, documents: Mapping[str, int]) -> list[str]:
    """What cannot be told from chance. ``documents``: how many each figure comes of; losses are of fewer windows."""
    lacking: dict[int, list[str]] = {}
    for name, count in documents.items():
        if name in found and found[name]["interval"] is None:
            lacking.setdefault(count, []).append(SHOWN[name][0])
    return [
        f"{_listed(names)} come{'s' if len(names) == 1 else ''} of {count} document{'' if count == 1 else 's'}"
        f"{f', fewer than {LEAST_UNITS}' if count < LEAST_UNITS else ''}: there is no interval, and no difference in "
        f"{'it' if len(names) == 1 else 'them'} can be told from chance."
        for count, names in lacking.items()
    ]


def _sparser(a: Measured, b: Measured, l0: tuple[float, float], found: Differences, fvu_differs: bool) -> list[str]:
    """Who wins at what price, where that is to be said."""
    fewer, dominant = better(found["l0"]), dominates(found)
    if dominant:
        one, other = (a, b) if dominant < 0 else (b, a)
        return [f"{one.name} dominates {other.name}: it loses less at no more latents."]
    if not fewer:
        return []
    one, other, at = (a, b, l0) if fewer < 0 else (b, a, l0[::-1])
    if fvu_differs:
        return [f"Neither dominates: {other.name} loses less, {one.name} needs fewer latents."]
    return [f"{one.name} needs fewer latents: L0 {at[0]:.1f}, {other.name} {at[1]:.1f}."]


def _at(mine: float, others: float) -> str:
    if others <= 0 or abs(mine / others - 1) < 0.005:
        return f"at the same L0 ({mine:.1f})"
    return f"at {mine / others:.2f} times the L0 ({mine:.1f} to {others:.1f})"


def _amount(name: str, found: Estimate) -> str:
    """``0.031 (0.029 to 0.033)``, without a sign."""
    low, high = sorted(map(abs, found["interval"]))
    return f"{abs(found['value']):.3g} ({low:.3g} to {high:.3g}){SHOWN[name][1]}"


def _range(found: Estimate) -> str:
    return " to ".join(f"{end:.2g}".replace("-", "−") for end in found["interval"])


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
