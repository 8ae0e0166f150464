"""What certifying an SAE has found, as a person reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mistudio import human, output

_SHOWN = 8  # ways of reading it, those of the lowest FVU


def show_certified(result: Mapping[str, Any]) -> None:
    """The ways that were tried, the declared one first, then the verdict."""
    declared, *others = result["tried"]
    others.sort(key=lambda one: float("inf") if one["fvu"] is None else one["fvu"])
    rows = [_row(one) for one in [declared, *others[:_SHOWN]]]
    output.table(["READ", "FVU", "AGAINST DECLARED", "L0", "ALIVE"], rows)
    if len(others) > _SHOWN:
        output.text(f"and {len(others) - _SHOWN} more with a higher FVU")
    output.text("")
    for sentence in result["verdict"]:
        output.text(sentence)
    _show_repair(result["sae"], result)


def show_certificate(sae: Mapping[str, Any]) -> None:
    """What an SAE's certificate says, if it has one."""
    certificate = sae.get("certificate")
    if not certificate:
        return
    output.text("")
    if certificate.get("holds") == "changed":
        output.text(" ".join(map(str, certificate.get("verdict") or [])))
        return
    text = f"on {human.count(certificate.get('tokens'))} tokens of {certificate.get('tokenization')}"
    output.text(f"certified {human.ago(certificate.get('at'))}, {text}:")
    for sentence in certificate.get("verdict") or []:
        output.text(str(sentence))
    _show_repair(sae["name"], certificate)


def _show_repair(sae: str, found: Mapping[str, Any]) -> None:
    """With the names, of which the verdict is kept free. ``sae``: what it is called now."""
    if found.get("repaired"):
        output.text(f"the SAE that is written that way: {found['repaired']}")
    elif found.get("holds") == "other":
        output.text(f"to repair it: mistudio sae certify {sae} --repair")


def _row(one: Mapping[str, Any]) -> list[object]:
    change = _change(one.get("fvu_change"))
    return [one["words"], human.number(one["fvu"], 3), change, human.number(one["l0"], 1), human.share(one["alive"])]


def _change(found: Mapping[str, Any] | None) -> str:
    """Of FVU, with half the width of its interval."""
    if found is None:
        return ""
    half = 50 * (found["high"] - found["low"])
    return f"{100 * found['estimate']:+.1f}% ± {half:.1f}"
