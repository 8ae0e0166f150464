"""What a model is, as a person reads it: its sizes, its bytes in each precision, its hooks, its modules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from mistudio import human, output

Model = dict[str, Any]


def show_model(model: Model) -> None:
    output.record(_about(model))
    if not _is_whole(model):
        output.note(_older(model))
        return
    output.text("")
    rows = [[name, human.size(size), _of_part(model, name)] for name, size in model["weight_bytes"].items()]
    output.table(["PRECISION", "WEIGHTS", "A BLOCK"], rows)
    output.text("")
    blocks = f"blocks.0-{model['n_layers'] - 1}" if model["n_layers"] > 1 else "blocks.0"
    output.table(["HOOK", "WIDTH"], [[f"{blocks}.{point}", width] for point, width in model["hook_widths"].items()])
    output.note(f"every hook: mistudio model show {model['name']} --hooks; its modules: --tree")


def show_preview(found: Model) -> None:
    """What ``POST /api/models/preview`` answers."""
    about = {
        "source": found["source"],
        "revision": found["revision"],
        "licence": found["licence"],
        "gated": f"access is asked for at {found['page']}" if found["gated"] else None,
        "family": found["family"],
        "layers": found["n_layers"],
        "d_model": found["d_model"],
        "hooks": human.count(found["hooks"]),
        "parameters": human.count(found["parameters"]),
        "stored as": f"{found['quantized'] or found['dtype'] or human.UNKNOWN}, {human.size(found['size_bytes'])}",
        "to download": human.size(found["missing_bytes"]) if found["missing_bytes"] else "nothing: it is here",
    }
    output.record({name: value for name, value in about.items() if value is not None})
    if found["weight_bytes"]:
        output.text("")
        output.table(["PRECISION", "WEIGHTS"], [[name, human.size(n)] for name, n in found["weight_bytes"].items()])
    if found["why"]:
        output.note(f"it cannot be added: {found['why']}")


def show_hooks(model: Model) -> None:
    widths = model.get("hook_widths") or {}
    rows = [[hook, widths.get(hook.split(".", 2)[2])] for hook in model.get("hooks") or []]
    output.table(["HOOK", "WIDTH"], rows)


def show_tree(model: Model) -> None:
    """A line for each module, with the weights that it holds itself. Raises UsageError when they were not noted."""
    if not _is_whole(model):
        raise click.UsageError(_older(model))
    output.table(["MODULE", "PARAMETERS", "WEIGHTS"], _lines(model["tree"], model["family"], 0))


def _about(model: Model) -> dict[str, object]:
    return {
        "name": model["name"],
        "id": model["id"],
        "source": model.get("source"),
        "revision": model.get("revision"),
        "licence": model.get("licence"),
        "family": model.get("family"),
        "layers": model.get("n_layers"),
        "d_model": model.get("d_model"),
        "heads": _heads(model),
        "neurons": f"{human.count(model.get('d_mlp'))} a block" if "d_mlp" in model else None,
        "context": human.amount(model.get("context"), "tokens") if "context" in model else None,
        "vocabulary": human.count(model.get("vocab_size")),
        "parameters": human.count(model.get("parameters")),
        "stored as": f"{model.get('quantized') or model.get('dtype')}, {human.size(model.get('size_bytes'))}",
        "path": model.get("path"),
        "folder": model["folder"],
        "job": model["job"],
        "added": human.ago(model["created_at"]),
    }


def _heads(model: Model) -> str | None:
    if "n_heads" not in model:
        return None
    fewer = f", {model['n_kv_heads']} of keys and values" if model["n_kv_heads"] != model["n_heads"] else ""
    return f"{model['n_heads']}{fewer}, {model['d_head']} wide"


def _of_part(model: Model, precision: str) -> str:
    return human.size(model["parts"]["block"]["weight_bytes"][precision])


def _lines(module: Model, name: str, depth: int) -> Iterator[list[str]]:
    times = f" ({module['times']} alike)" if module["times"] > 1 else ""
    weights = [one for one in module["children"] if one["dtype"]]
    shown = ", ".join(f"{one['name']} {one['dtype']} {_shape(one['shape'])}".rstrip() for one in weights)
    yield [f"{'  ' * depth}{name}{times}", human.count(module["parameters"]), shown]
    for child in module["children"]:
        if not child["dtype"]:
            yield from _lines(child, child["name"], depth + 1)


def _shape(shape: list[int] | None) -> str:
    return "×".join(map(str, shape)) if shape is not None else ""


def _is_whole(model: Model) -> bool:
    return all(model.get(fact) is not None for fact in ("weight_bytes", "parts", "hook_widths", "tree"))


def _older(model: Model) -> str:
    return (
        f"an older miStudio added {model['name']} and noted less of it; to see all, remove it and add it again "
        f"(mistudio model rm {model['name']}, then mistudio model add {model.get('source')} --name {model['name']})"
    )
