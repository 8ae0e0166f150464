"""Bring in an SAE that somebody has published: found, matched with its model, fetched, read, saved as ours are.

Its folder is one as training writes it, so extraction, labels and steering work on it; what is not known of it stays
unsaid. The model and the hook are looked for before anything large is fetched.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from mistudiod.engine.formats import Found, Imported, Listing, read
from mistudiod.engine.formats.base import one_line
from mistudiod.engine.formats.pickles import Converted
from mistudiod.engine.rules import TopKRule
from mistudiod.engine.scratch import scratch
from mistudiod.engine.tensor_files import TensorFile
from mistudiod.paths import PARTIAL, is_disk_full, require_space
from mistudiod.specs import AddSae
from mistudiod.worker.hub import answered
from mistudiod.worker.link import Link, Refused
from mistudiod.worker.new_folder import new_folder
from mistudiod.worker.read_recipe import WEIGHTS
from mistudiod.worker.recipe import MODEL_FACTS, job_number, sha256_of, weights_of
from mistudiod.worker.sae_gain import fold_gain
from mistudiod.worker.sae_model import Place, as_read, check_place, find_model, place_of, said_of
from mistudiod.worker.sae_source import SaeSource, open_source, unreadable

SPARSITY = "sparsity.safetensors"
_SMALL_BYTES = 4 << 20  # what lies beside the weights


def run(spec: AddSae, link: Link) -> None:
    """Write ``saes/<name>``; the result is recipe.json, but for what it says of the model's files."""
    final = link.paths.artifact("sae", spec.name)
    recipe = _made_before(final, spec, link) if final.exists() else _made(spec, final, link)
    link.artifact("sae", spec.name)
    link.result({key: value for key, value in recipe.items() if key != "model"} | {"model": recipe["model"]["name"]})


def _made(spec: AddSae, final: Path, link: Link) -> dict[str, Any]:
    source = open_source(spec.source, spec.revision, link)
    found = source.chosen()
    if found.pickle and not spec.allow_pickle:
        of = f"{found.path} of " if found.path else ""
        raise Refused(
            f"{of}{source.place} is a pickle, a file that can hold more than numbers: it is brought in with "
            "--allow-pickle, converted in a process of its own and never executed",
            "allow_pickle",
        )
    said = said_of(found, source.listing)
    if said or spec.model:
        models = find_model(spec, said, link)
        if (hook := as_read(spec.hook or found.hook)) and len(models) == 1:
            check_place(models[0], hook, None, spec)
    if source.far:
        source.far.fetch(found.files)
    final.parent.mkdir(parents=True, exist_ok=True)
    with scratch(final.parent), _readable(source, found, final, link) as listing:
        link.progress("read", 0, 1)
        imported = answered(link, lambda _: _read(listing, found))
        place = place_of(spec, imported, find_model(spec, _all_said(said, imported), link))
        fold_gain(spec, imported, place)
        link.progress("read", 1, 1)
        return _saved(spec, source, imported, place, final, link)


def _all_said(said: list[str], imported: Imported) -> list[str]:
    return list(dict.fromkeys([*said, *([imported.model] if imported.model else [])]))


@contextmanager
def _readable(source: SaeSource, found: Found, final: Path, link: Link) -> Iterator[Listing]:
    """The source, its pickles converted for as long as the block lasts."""
    if not found.pickle:
        yield source.listing
        return
    folder = final.parent / f"{PARTIAL}pickles-{os.getpid()}"
    folder.mkdir()
    try:
        require_space(folder, 2 * sum(source.listing.size(name) for name in found.files))  # half precision is widened
        yield Converted(source.listing, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _read(listing: Listing, found: Found) -> Imported:
    try:
        return read(listing, found)
    except ValueError as error:
        raise Refused(one_line(str(error)), "source") from error
    except OSError as error:
        if is_disk_full(error):
            raise
        raise unreadable(listing.source, error) from error


def _saved(
    spec: AddSae, source: SaeSource, imported: Imported, place: Place, final: Path, link: Link
) -> dict[str, Any]:
    sae, model = imported.sae, place.model
    if spec.hook and as_read(imported.hook) not in (None, place.hook):
        imported.notes.append(f"Its files say that it reads {imported.hook}; it was brought in for {spec.hook}.")
    metadata = _plain(sae.metadata)
    sae.metadata = metadata if isinstance(metadata, dict) else {}
    sae.metadata |= {"hook_name": place.hook, "model_source": model["source"]}
    sae.metadata.setdefault("model_name", imported.model or model["name"])
    if sae.transcodes:
        sae.metadata["hook_name_out"] = place.hook_out
    size = 4 * sum(tensor.numel() for tensor in (sae.W_enc, sae.W_dec)) + _SMALL_BYTES
    with new_folder(final, size) as partial:
        link.progress("save", 0, 1)
        sparsity = _sparsity(source.listing, imported)
        try:
            answered(link, lambda _: sae.save(partial, sparsity=sparsity))
        except ValueError as error:
            raise Refused(f"{source.place} cannot be kept in the studio's form: {error}", "source") from error
        recipe = answered(link, lambda _: _recipe(spec, source, imported, place, partial, link))
        (partial / "recipe.json").write_text(json.dumps(recipe, indent=1, ensure_ascii=False, allow_nan=False))
        link.progress("save", 1, 1)
    return recipe


def _recipe(
    spec: AddSae, source: SaeSource, imported: Imported, place: Place, folder: Path, link: Link
) -> dict[str, Any]:
    """As of an SAE that was trained, without what nobody knows."""
    sae, found, model = imported.sae, imported.found, place.model
    at = {"hook": place.hook} | ({"hook_out": place.hook_out} if sae.transcodes else {})
    return {
        "job": job_number(link),
        "sae": spec.name,
        "architecture": json.loads((folder / "cfg.json").read_text())["architecture"],
        **at,
        "width": sae.d_sae,
        "k": sae.rule.k if isinstance(sae.rule, TopKRule) else None,
        "spec": at | ({"skip": True} if sae.W_skip is not None else {}),
        "resolved": {},
        "model": {name: model[name] for name in MODEL_FACTS if name in model}
        | {"weights": weights_of(Path(model["path"]))},
        "sae_sha256": sha256_of(folder / WEIGHTS),
        "imported": {
            "source": source.place,
            "revision": source.revision,
            "path": found.path,
            "format": found.format,
            "files": _hashes(source.listing, found),
            "model": imported.model,
            "context": imported.context,
            "bos": imported.bos,
            "declared": _plain(imported.declared),
            "notes": imported.notes,
            "pickle": found.pickle,
            "licence": source.licence,
        },
    }


def _hashes(listing: Listing, found: Found) -> dict[str, str]:
    """Of the files as they were published."""
    try:
        return {name: sha256_of(listing.path(name)) for name in found.files}
    except OSError as error:
        raise unreadable(listing.source, error) from error


def _sparsity(listing: Listing, imported: Imported) -> Tensor | None:
    """Each latent's share of tokens, (d_sae,), where SAELens' file of it lies beside the weights."""
    for name in imported.found.files:
        if PurePosixPath(name).name == SPARSITY:
            with suppress(ValueError, OSError):  # damaged or gone, but nothing that the SAE needs
                logarithms = TensorFile(listing.path(name)).take("sparsity", (imported.sae.d_sae,))
                return torch.pow(10, logarithms).clamp_(max=1.0)
    return None


def _made_before(final: Path, spec: AddSae, link: Link) -> dict[str, Any]:
    """What an earlier run of this job wrote before it was cut off. Raises Refused when the SAE is another's."""
    try:
        found: dict[str, Any] = json.loads((final / "recipe.json").read_text(encoding="utf-8"))
        mine = found["job"] == job_number(link) and spec.source.startswith(found["imported"]["source"])
    except (OSError, ValueError, KeyError, TypeError):
        mine = False
    if not mine:
        raise Refused(f"there is already an SAE called {spec.name}: choose another name, or delete it", "name")
    return found


def _plain(value: object) -> Any:
    """What a maker wrote as JSON can hold it: NaN and Infinity are None."""
    return json.loads(json.dumps(value), parse_constant=lambda _: None)
