"""Which of the studio's models an SAE reads, by what the SAE says of it; and whether its hook fits there."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mistudiod.engine.formats import Found, Imported, Listing
from mistudiod.engine.formats.base import words
from mistudiod.facts import UnknownHook, UnknownModel, check_hook, hook_names, parse_hook, read_facts
from mistudiod.specs import AddSae, is_hub_id
from mistudiod.worker.link import Link, Refused
from mistudiod.worker.trained import read_model

# Whose models go by a name without an owner, as TransformerLens calls them; by how the name begins.
_OWNERS = (
    ("gpt2", "openai-community"),
    ("distilgpt2", "distilbert"),
    ("pythia", "EleutherAI"),
    ("gemma", "google"),
    ("meta-llama", "meta-llama"),
    ("llama", "meta-llama"),
    ("qwen", "Qwen"),
    ("mistral", "mistralai"),
    ("deepseek", "deepseek-ai"),
)
_RENAMED = {
    "gpt2-small": "openai-community/gpt2",
    "mistral-7b": "mistralai/Mistral-7B-v0.1",
    "meta-llama/meta-llama-3.1-8b": "meta-llama/Llama-3.1-8B",
}
_LISTED = 8


@dataclass(frozen=True)
class Place:
    """Where in a model of the studio an SAE lies: ``model`` is its model.json."""

    model: dict[str, Any]
    hook: str
    hook_out: str


def said_of(found: Found, listing: Listing) -> list[str]:
    """What the files say of the model without the weights: as its maker calls it, and where that has it from."""
    names = [found.model] if found.model else []
    for name in found.files:
        if PurePosixPath(name).name == "cfg.json":  # SAELens' own, and what this studio writes into it
            try:
                metadata = json.loads(listing.text(name)).get("metadata")
            except (ValueError, AttributeError, RecursionError):
                continue
            if isinstance(metadata, dict):
                names += [one for one in (words(metadata.get("model_source")),) if one]
    return list(dict.fromkeys(names))


def find_model(spec: AddSae, said: Sequence[str], link: Link) -> list[dict[str, Any]]:
    """model.json of those that it may be: the one that is named, else all that go by what the SAE says.

    Raises Refused, with how to add it, when none is here.
    """
    if spec.model is not None:
        model = read_model(spec.model, link)
        if model is None:
            raise Refused(f"there is no model called {spec.model}: add it first", "model")
        return [model]
    models = [model for path in sorted(link.paths.folder("model").glob("*/model.json")) if (model := _read(path, link))]
    here = ", ".join(str(model["name"]) for model in models[:_LISTED]) or "none"
    if not said:
        raise Refused(
            f"its files do not say which model it reads: name it with --model (the studio has {here})",
            "model",
        )
    for same in (_same_source, _same_name):
        if matching := [model for model in models if any(same(model, one) for one in said)]:
            return matching
    known = hub_id(said[0])
    add = f"add it with mistudio model add {known}" if is_hub_id(known) and "/" in known else "add that model"
    raise Refused(
        f"it reads the model {said[0][:200]}, which is not in the studio: {add}, or say which one it is with --model "
        f"(the studio has {here})",
        "model",
    )


def hub_id(name: str) -> str:
    """A model's id on the Hub: gpt2-small → openai-community/gpt2; the name as it is when nobody's is known."""
    if renamed := _RENAMED.get(name.lower()):
        return renamed
    owner = next((owner for start, owner in _OWNERS if name.lower().startswith(start)), None)
    return f"{owner}/{name}" if owner and "/" not in name else name


def place_of(spec: AddSae, imported: Imported, models: Sequence[dict[str, Any]]) -> Place:
    """The one of ``models`` in which the SAE's hook is, and of the SAE's width. Raises Refused."""
    hook = as_read(spec.hook or imported.hook)
    if hook is None:
        names = ", ".join(_hooks_of(models[0], imported.sae.d_in)) or "none of that width"
        raise Refused(
            f"its files do not say which hook it reads: name it with --hook; {models[0]['name']} has, "
            f"{imported.sae.d_in} wide: {names}",
            "hook",
        )
    hook_out = _hook_out(spec, imported, hook)
    fitting: list[dict[str, Any]] = []
    wrong: Refused | None = None
    for model in models:
        try:
            check_place(model, hook, imported.sae.d_in, spec)
            check_place(model, hook_out, imported.sae.d_out, spec)
        except Refused as refused:
            wrong = wrong or refused
        else:
            fitting.append(model)
    if wrong and not fitting:
        raise wrong
    if len(fitting) > 1:
        names = ", ".join(str(model["name"]) for model in fitting[:_LISTED])
        raise Refused(f"it may be an SAE of several models here: say with --model which of {names}", "model")
    return Place(fitting[0], hook, hook_out)


def as_read(hook: str | None) -> str | None:
    """A hook as the models here have it: what goes into the MLP, of what the norm in front of it gives without its
    weight; any other stays.
    """
    return re.sub(r"^(blocks\.\d+)\.ln2\.hook_normalized$", r"\1.mlp.hook_in", hook) if hook else None


def check_place(model: dict[str, Any], hook: str, width: int | None, spec: AddSae) -> None:
    """Raises Refused unless the model has the hook, so many numbers wide."""
    field = "hook" if spec.hook else "model" if spec.model else "source"
    try:
        wide = check_hook(read_facts(Path(model["path"])), hook)
    except UnknownModel as error:
        raise Refused(str(error), "model") from error
    except UnknownHook as error:
        said = str(error) if spec.hook else f"it lies at {hook[:200]}, and {error}; name another with --hook"
        raise Refused(f"{said} (the model is {model['name']})", field) from error
    if width not in (None, wide):
        raise Refused(
            f"it has vectors of {width:,} numbers, and those at {hook} of {model['name']} have {wide:,}: "
            "it is an SAE of another model, or of another hook (--model and --hook name them)",
            field,
        )


def _hook_out(spec: AddSae, imported: Imported, hook: str) -> str:
    """Of a transcoder that does not say it, what the MLP adds behind the hook that it reads."""
    if not imported.sae.transcodes:
        return hook
    if imported.hook_out and hook == as_read(imported.hook):
        return imported.hook_out
    block, _, point = hook.removeprefix("blocks.").partition(".")
    if point in ("mlp.hook_in", "hook_resid_mid", "hook_mlp_in"):
        out = f"blocks.{block}.hook_mlp_out"
        imported.notes.append(f"That it writes to {out} is taken from where it reads.")
        return out
    raise Refused(f"it is a transcoder, and nothing says where what it reads at {hook} is written to", "hook")


def _hooks_of(model: dict[str, Any], width: int) -> list[str]:
    """Hooks of that width, those of all blocks in one: ``blocks.0-5.hook_resid_post``."""
    try:
        facts = read_facts(Path(model["path"]))
    except (UnknownModel, ValueError):
        return []
    points = dict.fromkeys(parse_hook(hook)[1] for hook in hook_names(facts) if check_hook(facts, hook) == width)
    last = facts.n_layers - 1
    return [f"blocks.{f'0-{last}' if last else 0}.{point}" for point in points]


def _same_source(model: dict[str, Any], said: str) -> bool:
    """gpt2, gpt2-small and openai-community/gpt2 are one."""
    return hub_id(str(model.get("source"))).lower() == hub_id(said).lower()


def _same_name(model: dict[str, Any], said: str) -> bool:
    """A folder, or the studio's own name, that is called so; a model of the Hub is what its id says."""
    source = str(model.get("source"))
    last = PurePosixPath(hub_id(said)).name.lower()
    names = {str(model["name"]).lower()} if not is_hub_id(source) else set()
    return bool({last, said.lower()} & (names | {PurePosixPath(source).name.lower() if source.startswith("/") else ""}))


def _read(path: Path, link: Link) -> dict[str, Any] | None:
    return read_model(path.parent.name, link)
