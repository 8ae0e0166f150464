"""The four rows about an export, checked one by one and against each other."""

from __future__ import annotations

from pathlib import Path

from mistudiod.neuronpedia import names
from mistudiod.neuronpedia.checks import KNOWN, Row, Wrong, nulls, number, text
from mistudiod.neuronpedia.findings import Findings
from mistudiod.neuronpedia.lines import lines, row


def check(folder: Path, creator: str, findings: Findings) -> dict[str, Row]:
    """The rows by name; one that cannot be read is empty."""
    found = {name: _read(folder, name, findings) for name in KNOWN}
    for name, one in found.items():
        if one:
            for rule, message in _alone(name, one, creator):
                findings.add(rule, f"{name}.jsonl", 1, message)
    if all(found.values()):
        for name, message in _together(folder, found):
            findings.add("names", name, 1 if name else None, message)
    return found


def _read(folder: Path, name: str, findings: Findings) -> Row:
    path, first = folder / f"{name}.jsonl", Row()
    if not path.is_file():
        findings.add("files", path.name, None, "is missing")
        return first
    count = 0
    try:
        for line in lines(path):
            if line.strip():
                count += 1
                if count == 1:
                    first = row(line)
                    for rule, message in text(line, first):
                        findings.add(rule, path.name, count, message)
    except ValueError as error:
        findings.add("json", path.name, count or 1, str(error))
        return Row()
    if count != 1:
        findings.add("meta", path.name, None, f"has {count:,} lines, not one")
    elif not first:
        findings.add("meta", path.name, 1, "says nothing")
    return first


def _alone(name: str, one: Row, creator: str) -> Wrong:
    yield from nulls(name, one)
    for key in sorted(one.keys() - KNOWN[name]):
        yield "meta", f"the table has no {key[:60]!r}"
    if one.get("creatorId") not in (None, creator):
        yield "creator", f"creatorId is {str(one['creatorId'])[:60]!r}, not {creator!r}"
    if name == "source" and one.get("inferenceHosts"):
        yield "hosts", "inferenceHosts is not empty"
    if name == "model":
        for key in ("defaultSourceSetName", "defaultSourceId"):
            if one.get(key) is not None:
                yield "order", f"{key} is imported after the model: set it when the source is there"
        for key in ("layers", "neuronsPerLayer"):
            value = one.get(key)
            if value is not None and not (number(value) and value > 0):
                yield "layers", f"{key} is {str(value)[:60]!r}"
        if one.get("owner") is not None and not str(one["owner"]).strip():
            yield "layers", "owner is empty"


def _together(folder: Path, found: dict[str, Row]) -> list[tuple[str, str]]:
    """Which names are none, or differ from place to place: (file, what is wrong)."""
    release, model, of_set, source = (found[name] for name in ("release", "model", "sourceset", "source"))
    wrong = []
    try:
        known = names.parse(str(model.get("id")), str(source.get("id")))
    except ValueError as error:
        return [("source.jsonl", str(error))]
    try:
        names.check_release(str(release.get("name")))
    except ValueError as error:
        wrong.append(("release.jsonl", str(error)))
    for file, key, value, expected in (
        ("sourceset.jsonl", "modelId", of_set.get("modelId"), known.model),
        ("sourceset.jsonl", "name", of_set.get("name"), known.set),
        ("sourceset.jsonl", "releaseName", of_set.get("releaseName"), release.get("name")),
        ("source.jsonl", "modelId", source.get("modelId"), known.model),
        ("source.jsonl", "setName", source.get("setName"), known.set),
    ):
        if value is not None and value != expected:
            wrong.append((file, f"{key} is {str(value)[:60]!r}, not {str(expected)[:60]!r}"))
    layers = model.get("layers")
    if known.layer is not None and number(layers) and 0 < int(layers or 0) <= known.layer:
        wrong.append(("source.jsonl", f"a model of {layers} layers has no layer {known.layer}"))
    place = f"{folder.resolve().parent.name}/{folder.resolve().name}"
    if place != f"{known.model}/{known.source}":
        wrong.append(("", f"the folder is {place}, not {known.model}/{known.source}"))
    return wrong
