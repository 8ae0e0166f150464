"""Folders of Neuronpedia's layout v1, of an export of ours or from its bucket, and the labels in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import click

from mistudio import human, output
from mistudio.options import Call

_EXPORT = "release.jsonl"  # which every export has
_LABELS = "explanations"


def exports_of(folder: Path) -> list[Path]:
    """The folder itself when it is one, else those in it: {model}/{source}/, at most two folders down."""
    if (folder / _EXPORT).exists():
        return [folder]
    return sorted(one.parent for depth in ("*", "*/*") for one in folder.glob(f"{depth}/{_EXPORT}")) or [folder]


def take_in(call: Call, ref: str, folder: Path) -> None:
    """Let the labels of a folder be labels of an SAE, and say how many were new. All of the folder is read before the
    first is sent. Raises UsageError, one sentence, for a folder without labels, a damaged one, or one that is of
    more features than the SAE.
    """
    from mistudiod.neuronpedia import read

    one = _with_labels(folder)
    sae = call.client.artifact("sae", ref)
    try:
        skipped = Counter[str]()
        there = sum(1 for _ in read.labels(one, skipped))
        _require_width(sae, one, features := read.width(one, "features"), read.width(one, _LABELS))
        warning = _warning(sae, one, features)
        if warning:
            output.note(warning)
        found: dict[str, Any] = call.client.import_labels(sae["id"], read.labels(one)) if there else _NONE
    except (ValueError, OSError) as error:
        raise click.UsageError(f"{one} cannot be read: {error}") from error
    if call.json:
        output.data({**found, "skipped": dict(skipped), "warning": warning})
    else:
        counts = {**found, **skipped}
        output.note(f"{one}: {', '.join(f'{human.count(n)} {name}' for name, n in counts.items())}")


_NONE = {"imported": 0, "known": 0}


def _with_labels(folder: Path) -> Path:
    found = [one for one in exports_of(folder) if any((one / _LABELS).glob("batch-*.jsonl.gz"))]
    if not found:
        raise click.UsageError(f"there are no labels in {folder}: it has no {_LABELS}/batch-0.jsonl.gz or the like")
    if len(found) > 1:
        places = ", ".join(str(one.relative_to(folder)) for one in found)
        raise click.UsageError(f"{folder} holds several exports ({places}): name one of them")
    return found[0]


def _require_width(sae: Mapping[str, Any], folder: Path, *widths: int) -> None:
    if isinstance(sae.get("width"), int) and max(widths) > sae["width"]:
        raise click.UsageError(
            f"{folder} is of another SAE: it has a feature {max(widths) - 1:,}, and {sae['name']} has features 0 to "
            f"{sae['width'] - 1:,}"
        )


def _warning(sae: Mapping[str, Any], folder: Path, features: int) -> str | None:
    """What speaks against the folder being of this SAE."""
    theirs, ours = _about(folder), _ours(sae)
    if features and "layer" in theirs:
        theirs["features"], ours["features"] = str(features), str(sae.get("width"))
    if "hook" in theirs:
        del theirs["layer"]  # which the hook says
    other = [
        f"{what} {theirs[what]}, not {ours[what]}" for what in theirs if ours.get(what, theirs[what]) != theirs[what]
    ]
    return f"{folder} may be of another SAE than {sae['name']}: {'; '.join(other)}" if other else None


def _about(folder: Path) -> dict[str, str]:
    """Model, layer and hook, as far as the folder says them."""
    from mistudiod.neuronpedia import read

    meta = read.meta(folder)
    label, feature = (
        next((one for _, one in islice(read.rows(folder, kind), 1)), {}) for kind in (_LABELS, "features")
    )
    source = meta.get("source", {}).get("id") or label.get("layer")
    found = {
        "model": meta.get("model", {}).get("id") or label.get("modelId"),
        "layer": str(source).partition("-")[0] if source else None,
        "hook": feature.get("hookName"),
    }
    return {what: str(value) for what, value in found.items() if value}


def _ours(sae: Mapping[str, Any]) -> dict[str, str]:
    """The same of an SAE, as Neuronpedia calls it."""
    from mistudiod.neuronpedia.names import model_called
    from mistudiod.specs import is_hub_id

    model, hook = sae.get("model"), sae.get("hook")
    model = model if isinstance(model, Mapping) else {"name": model}
    source = model.get("source")
    found = {"model": model_called(source if isinstance(source, str) and is_hub_id(source) else str(model.get("name")))}
    if isinstance(hook, str):
        found |= {"hook": hook, "layer": hook.removeprefix("blocks.").partition(".")[0]}
    return found
