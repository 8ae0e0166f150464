"""The newest features of an SAE, with their labels, as the folder that Neuronpedia imports: checked, or not there."""

from __future__ import annotations

import logging
import re
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mistudiod.engine.formats.about import About
from mistudiod.facts import UnknownHook, parse_hook
from mistudiod.neuronpedia import records
from mistudiod.neuronpedia.names import Names
from mistudiod.neuronpedia.validate import validate
from mistudiod.neuronpedia.write import write
from mistudiod.pages import Pages
from mistudiod.specs import is_hub_id
from mistudiod.worker.extractions import newest_store
from mistudiod.worker.link import Link, Refused
from mistudiod.worker.new_folder import new_folder
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
_NAMED = {"gpt2": "gpt2-small"}  # there, a model that the Hub calls otherwise
_NOT_KNOWN = "unknown"
_TIMES_PAGES = 3  # a compressed export is smaller than the pages of the store that it is made of
log = logging.getLogger(__name__)


def write_neuronpedia(shared: Shared, final: Path, link: Link) -> list[str]:
    """Make ``final`` with ``{model}/{layer}-{set}/`` in it. Returns what is to be said of it.

    Raises Refused when no features were extracted from the SAE as it is now, it has no name there, or the export is
    not as the importer wants it; then nothing is left.
    """
    pages = newest_store(shared.name, shared.sha256, shared.sae.d_sae, link)
    if pages is None:
        raise Refused(
            f"no features of {shared.name} as it is now have been extracted: mistudio feature extract {shared.name}",
            "sae",
        )
    try:
        about = about_of(shared, pages)
    except ValueError as error:
        raise Refused(f"{shared.name} cannot be put on Neuronpedia: {error}", "sae") from error
    labels = {one["feature"]: one for one in shared.labels}
    needed = _TIMES_PAGES * (pages.folder / "pages.bin").stat().st_size
    with new_folder(final, needed, replaces=True) as partial:
        folder = partial / about.names.model / about.names.source
        folder.mkdir(parents=True)

        def heard(done: int) -> None:
            link.check()
            link.progress("write", done, pages.d_sae, "features")

        try:
            counts = write(folder, pages, about, labels, heard)
        except ValueError as error:
            raise Refused(f"the features of {shared.name} cannot be exported: {error}", "sae") from error
        _validate(folder, about, link)
    rows = ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
    return [f"It is called {about.names.model}/{about.names.source} there: {rows}.", "It breaks none of the rules."]


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
    return records.About(
        names=Names(_model(shared), about.layer, f"{point}-{_slug(shared.name)}"),
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
        hf_repo=repo,
        hf_folder=str(imported.get("path") or "") or None if repo else None,
    )


def _validate(folder: Path, about: records.About, link: Link) -> None:
    """Raises Refused with the first of what is wrong; all of it is in the log."""

    def heard(file: str) -> None:
        link.check()
        link.progress(f"check {file.partition('/')[0]}", 0)

    found = validate(folder, about.creator, heard)
    for one in found:
        log.error("%s: %s, line %s: %s", one.rule, one.file or "the folder", one.line, one.message)
    if found:
        first, more = found[0], f", and {len(found) - 1} more in the log" if len(found) > 1 else ""
        at = f"{first.file or 'the folder'}{f', line {first.line}' if first.line else ''}"
        raise Refused(
            f"the export breaks a rule of Neuronpedia's ({first.rule}): {at}: {first.message}{more}", "format"
        )


def _kind(about: About) -> tuple[str, str]:
    try:
        point = parse_hook(about.hook)[1]
    except UnknownHook as error:
        raise ValueError(str(error)) from None
    kind, short = _KINDS[point]
    return (f"{kind} transcoder", f"tc-{short}") if about.hook_out != about.hook else (kind, short)


def _model(shared: Shared) -> str:
    name = (shared.hub_model or str(shared.model.get("name"))).rpartition("/")[2].lower()
    return _NAMED.get(name, name)


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
