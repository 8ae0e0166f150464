"""What a job has found, as a person reads it: of a training that made several SAEs a line for each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mistudio import human, output

Result = Mapping[str, Any]
_NOT_FIELDS = ("saes", "failed", "verdict", "density")  # shown otherwise, or not at all
_COLUMNS: dict[str, tuple[str, Any]] = {
    "SAE": ("sae", str),
    "HOOK": ("hook", str),
    "ARCHITECTURE": ("architecture", str),
    "WIDTH": ("width", human.count),
    "K": ("k", human.count),
    "FVU": ("fvu", human.number),
    "L0": ("l0", lambda x: human.number(x, 1)),
    "ALIVE": ("alive", human.share),
    "CE RECOVERED": ("ce_recovered_zero", human.share),
}


def show(result: Result, plan: Result | None) -> None:
    """The fields; of several SAEs a table, and what the whole job took. Then those that failed, and the verdicts."""
    found = with_peaks(result, plan)
    saes = several(found)
    if saes:
        _table(saes)
        output.text("")
    elif found.get("saes"):
        found = {**found["saes"][0], **found}  # a worker may say of the only one as it does of several
    output.record({name: value for name, value in found.items() if name not in _NOT_FIELDS})
    for one in found.get("failed") or ():
        output.note(f"{one.get('sae')} failed: {one.get('message')}")
    for line in _verdicts(saes or [found]):
        output.text(line)


def several(result: Result | None) -> list[Mapping[str, Any]]:
    """Of each SAE what was found, where there are several or some have failed; else nothing."""
    saes = [one for one in (result or {}).get("saes") or () if isinstance(one, Mapping)]
    return saes if len(saes) > 1 or (result or {}).get("failed") else []


def with_peaks(result: Result, plan: Result | None) -> dict[str, Any]:
    """A result for a person: the memory that the job took beside that which its plan predicted."""
    if plan is None or not result.get("peak_bytes"):
        return dict(result)
    peak = f"{human.size(result['peak_bytes'])} of memory, {human.size(plan['peak_bytes'])} predicted"
    return {name: value for name, value in result.items() if name != "peak_bytes"} | {"peak": peak}


def _table(saes: list[Mapping[str, Any]]) -> None:
    columns = {title: about for title, about in _COLUMNS.items() if any(about[0] in one for one in saes)}
    rows = [
        [human.UNKNOWN if one.get(key) is None else shown(one[key]) for key, shown in columns.values()] for one in saes
    ]
    output.table(list(columns), rows)


def _verdicts(saes: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for one in saes:
        said = one.get("verdict") or []
        for sentence in [said] if isinstance(said, str) else said:
            yield f"{one['sae']}: {sentence}" if len(saes) > 1 else str(sentence)
