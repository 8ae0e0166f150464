"""What is measured of the SAEs of a training on its way, for a line and for a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mistudio import human

Values = Mapping[str, float | None]


def _one_digit(x: float | None) -> str:
    return human.number(x, 1)


_IN_LINE = {"fvu": human.number, "l0": _one_digit, "dead": human.share}
_COLUMNS = {
    "FVU": ("fvu", human.number),
    "L0": ("l0", _one_digit),
    "DEAD": ("dead", human.share),
    "HELD-OUT FVU": ("eval_fvu", human.number),
    "CE RECOVERED": ("ce_recovered_zero", human.share),
}
_HELD_OUT = {
    "eval_fvu": ("FVU", human.number),
    "eval_l0": ("L0", _one_digit),
    "eval_cosine": ("cosine", human.number),
    "ce_delta": ("ΔCE (nats)", human.number),
    "ce_recovered_zero": ("CE recovered", human.share),
    "ce_recovered_mean": ("beside the mean", human.share),
    "kl": ("KL", human.number),
}


def held_out(values: Values) -> str:
    """``FVU 0.125, L0 31.9, …``; empty when nothing was measured on held-out text."""
    shown = [f"{name} {show(x)}" for key, (name, show) in _HELD_OUT.items() if (x := values.get(key)) is not None]
    return ", ".join(shown)


class Measures:
    """The newest of each SAE; what is measured more seldom stays until it is measured again."""

    def __init__(self) -> None:
        self.step: int | None = None
        self._of: dict[str | None, dict[str, float | None]] = {}
        self.tokens_per_s: float | None = None

    def take(self, metric: Mapping[str, Any]) -> None:
        """``{"step", "sae", "values"}``, as the API has it; a studio of version 0.3 names no SAE."""
        self.step = metric["step"]
        values = metric["values"]
        self._of.setdefault(metric.get("sae"), {}).update(values)
        self.tokens_per_s = values.get("tokens_per_s") or self.tokens_per_s

    @property
    def saes(self) -> list[str]:
        return [sae for sae in self._of if sae is not None]

    @property
    def several(self) -> bool:
        return len(self.saes) > 1

    def parts(self) -> Iterator[str]:
        """``fvu 0.500``, or of several SAEs from the least to the most."""
        if self.several:
            yield f"{len(self.saes)} SAEs"
        for name, show in _IN_LINE.items():
            found = [x for values in self._of.values() if (x := values.get(name)) is not None]
            if found:
                least, most = show(min(found)), show(max(found))
                yield f"{name} {least}" if least == most else f"{name} {least} to {most}"

    def lines(self) -> list[str]:
        """A table of several SAEs, in the order of their names; of a single one nothing."""
        if not self.several:
            return []
        columns = {
            title: about for title, about in _COLUMNS.items() if any(about[0] in values for values in self._of.values())
        }
        rows = [["  SAE", *columns]]
        for sae in sorted(self.saes):
            rows.append([f"  {sae}", *(show(self._of[sae].get(key)) for key, show in columns.values())])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
