"""What Neuronpedia is given of an SAE: its newest features, and what they say of themselves there."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Any

from mistudiod.engine.formats.about import About
from mistudiod.facts import UnknownHook, parse_hook
from mistudiod.neuronpedia import records
from mistudiod.neuronpedia.names import Names, model_called
from mistudiod.pages import Pages
from mistudiod.specs import is_hub_id
from mistudiod.worker.extractions import extractions, newest_store
from mistudiod.worker.link import Link, Refused
from mistudiod.worker.shared import Shared

# Of a point in a block: what Neuronpedia calls such activations, and how sets of them begin.
_KINDS = {
    "hook_resid_pre": ("Residual", "res"),
    "hook_resid_post": ("Residual", "res"),
    "hook_attn_out": ("Attention Out", "att"),
    "attn.hook_z": ("Attention Out", "att-z"),
    "hook_mlp_out": ("MLP", "mlp"),
    "mlp.hook_in": ("MLP In", "mlp-in"),
    "mlp.hook_post": ("MLP Neurons", "mlp-post"),
}
_INSTRUCT = ("-it", "-instruct", "-chat")  # ends of the names of models that were taught to follow instructions
_NOT_KNOWN = "unknown"


def source_of(shared: Shared, link: Link) -> tuple[Pages, records.About]:
    """Raises Refused when no features were extracted from the SAE as it is now, or it has no name there."""
    name = shared.name
    pages = newest_store(name, shared.sha256, shared.sae.d_sae, link)
    if pages is None:
        others = "; those that there are, are of other weights: extract them again" if extractions(name, link) else ""
        raise Refused(
            f"no features of {name} as it is now have been extracted{others}: mistudio feature extract {name}", "sae"
        )
    try:
        return pages, about_of(shared, pages)
    except ValueError as error:
        raise Refused(f"{name} cannot be put on Neuronpedia: {error}", "sae") from error


def about_of(shared: Shared, pages: Pages) -> records.About:
    """What the export says of itself, from what is known here. Raises ValueError for what has no name there."""
    about, model, imported = shared.about, shared.model, shared.imported or {}
    kind, point = _kind(about)
    source = str(imported.get("source") or "")
    from_hub = is_hub_id(source.partition(":")[0])
    repo = source.partition(":")[0] if from_hub else None
    maker = repo.partition("/")[0] if repo else "miStudio"
    layers, neurons = model.get("n_layers"), model.get("d_mlp")
    if not isinstance(layers, int) or not isinstance(neurons, int):
        raise ValueError(f"the model {model.get('name')} is not here: add it again")
    called = model_called(shared.hub_model or str(model.get("name")))
    return records.About(
        names=Names(called, about.layer, f"{point}-{_slug(shared.name)}"),
        hook=about.hook,
        description=f"{kind}, {shared.sae.d_sae:,} features",
        release=_slug(shared.name),
        release_description=f"{shared.name}: {kind}, {shared.sae.d_sae:,} features of {about.model}",
        creator_name=maker,
        layers=layers,
        neurons=neurons,
        owner=shared.hub_model.partition("/")[0] if shared.hub_model else _NOT_KNOWN,
        prompts=pages.rows,
        tokens_in_prompt=pages.context,
        created_at=_made_at(pages),
        dataset=_dataset(shared, pages),
        kind=kind,
        instruct=called.endswith(_INSTRUCT),
        hf_repo=repo,
        hf_folder=str(imported.get("path") or "") or None if repo else None,
    )


def _kind(about: About) -> tuple[str, str]:
    try:
        point = parse_hook(about.hook)[1]
    except UnknownHook as error:
        raise ValueError(str(error)) from None
    kind, short = _KINDS[point]
    return (f"{kind} transcoder", f"tc-{short}") if about.hook_out != about.hook else (kind, short)


def _slug(name: str) -> str:
    """Of an SAE's name: lower-case letters, digits and single dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "sae"


def _made_at(pages: Pages) -> str:
    """When the extraction was, to the second: the same in every export of it."""
    at = datetime.fromtimestamp((pages.folder / "manifest.json").stat().st_mtime, timezone.utc)
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")


def _dataset(shared: Shared, pages: Pages) -> str | None:
    """The Hub's name of the text that was read, where it is that of the training; else the studio's."""
    text: dict[str, Any] = shared.recipe.get("tokenization") or {}
    source = shared.dataset.get("source")
    if text.get("name") == pages.manifest.get("tokenization"):
        return source if isinstance(source, str) and is_hub_id(source) else text.get("dataset")
    return pages.manifest.get("tokenization")
