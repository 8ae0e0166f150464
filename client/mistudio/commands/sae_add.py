"""``mistudio sae add`` and ``preview``: SAEs that others have published."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import click

from mistudio import human, names, output
from mistudio.api import Artifact
from mistudio.certified import show_certificate
from mistudio.evaluated import show_evaluation
from mistudio.options import Call, SpecVerb, pass_call, source_argument
from mistudio.sources import sae_parts, settled_sae
from mistudio.watch import sending, showing, start

Row = dict[str, Any]
_L0S = 12  # of a line
_BESIDE = ("certificate", "evaluation")  # fields that are shown below the others


@click.command("add", cls=SpecVerb, kind="add_sae", derived={"name": "from SOURCE"})
@source_argument
@pass_call
def add(call: Call, /, source: str, remote_path: bool, name: str | None, **fields: Any) -> None:
    """Bring in a published SAE: owner/name of the Hub, a folder or a file, each with :PATH when it holds several."""
    name = name or names.of_published(*sae_parts(source))
    if not remote_path:
        with sending("upload") as told:
            source = settled_sae(call.client, source, name, told)
    start(call, "add_sae", {"source": source, "name": name, **fields}, showing(show_sae))


@click.command("preview", cls=SpecVerb, kind="preview_sae")
@source_argument
@pass_call
def preview(call: Call, /, source: str, remote_path: bool, **fields: Any) -> None:
    """List the SAEs of SOURCE by layer, width and L0, before any of them is fetched."""
    given = {name: value for name, value in fields.items() if value is not None}
    try:
        found = call.client.preview_sae(source, remote_path, **given)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if call.json:
        output.data(found)
        return
    output.record({name: found.get(name) for name in ("source", "revision", "licence") if found.get(name)})
    output.text("")
    output.table(list(_COLUMNS), [[value(group) for value in _COLUMNS.values()] for group in _groups(found["saes"])])
    left_out = f", the last {human.count(found['left_out'])} of which are not shown" if found["left_out"] else ""
    output.note(
        f"{human.count(found['count'])} SAE{'s' * (found['count'] != 1)}{left_out}; to bring one in: "
        f"mistudio sae add {_example(found)}"
    )


def _groups(saes: Sequence[Row]) -> list[list[Row]]:
    """Those of a layer, width, hook and format stand together, in the order in which they come."""
    groups: dict[tuple[object, ...], list[Row]] = {}
    for one in saes:
        groups.setdefault(tuple(one[name] for name in ("layer", "width", "hook", "format")), []).append(one)
    return list(groups.values())


def _l0s(group: Sequence[Row]) -> str:
    known = [f"{one['l0']:g}" for one in group if one["l0"] is not None]
    more = f" … {known[-1]}" if len(known) > _L0S else ""
    return ", ".join(known[:_L0S]) + more or human.UNKNOWN


def _path(group: Sequence[Row]) -> str:
    """The folder that all lie in, and how many there are."""
    paths = [str(one["path"] or ".") for one in group]
    if len(paths) == 1:
        return paths[0]
    return f"{os.path.commonpath(paths) or '.'}/… ({len(paths)})"


_COLUMNS = {
    "LAYER": lambda group: human.count(group[0]["layer"]),
    "WIDTH": lambda group: human.count(group[0]["width"]),
    "L0": _l0s,
    "HOOK": lambda group: group[0]["hook"],
    "FORMAT": lambda group: group[0]["format"] + " (pickle)" * group[0]["pickle"],
    "EACH": lambda group: human.size(group[0]["bytes"]),
    "PATH": _path,
}


def _example(found: Mapping[str, Any]) -> str:
    place = found["source"]
    if not found["saes"]:
        return str(place)
    first = found["saes"][0]
    named = "" if found["count"] == 1 else f":{first['path'] or '.'}"
    return f"{place}{named}{' --allow-pickle' * first['pickle']}"


def show_sae(sae: Artifact) -> None:
    """Its fields, of one that was brought in where from, then what its certificate and evaluation say."""
    if sae.get("imported"):
        _show_imported(sae)
    else:
        output.record({name: value for name, value in sae.items() if name not in _BESIDE})
    show_certificate(sae)
    show_evaluation(sae)


def _show_imported(sae: Artifact) -> None:
    imported = sae["imported"]
    declared = imported.get("declared") or {}
    output.record(
        {
            "name": sae["name"],
            "id": sae["id"],
            "source": imported["source"] + f":{imported['path']}" * bool(imported["path"]),
            **{fact: imported[fact] for fact in ("revision", "licence") if imported.get(fact)},
            "format": imported["format"] + ", converted from a pickle" * bool(imported.get("pickle")),
            "model": sae["model"]["name"],
            "hook": sae.get("hook"),
            **({"hook out": sae["hook_out"]} if sae.get("hook_out") else {}),
            "architecture": sae.get("architecture"),
            "width": human.count(sae.get("width")),
            **({"k": sae["k"]} if sae.get("k") else {}),
            **{f"{name}, as its maker says": value for name, value in declared.items()},
            "folder": sae["folder"],
            "job": sae["job"],
            "added": human.ago(sae["created_at"]),
            **{said: sae[said] for said in ("tags", "note", "earlier") if sae.get(said)},
        }
    )
    for note in imported.get("notes") or ():
        output.text(f"  {note}")
