"""An SAE as it is given to others: its weights, what was measured of it, and no path of this machine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mistudiod.engine.formats.about import About
from mistudiod.engine.formats.writers import check, write
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.specs import is_hub_id
from mistudiod.worker.link import Link, Refused
from mistudiod.worker.read_recipe import WEIGHTS, check_weights, read_recipe, sha256_of

CARD, LABELS, SPARSITY = "README.md", "feature_labels.json", "sparsity.safetensors"
_PATHS = ("model_source", "dataset_path")  # of cfg.json's metadata, what may be a path of this machine
Found = dict[str, Any]


@dataclass(frozen=True)
class Shared:
    """``model``, ``dataset``, ``certificate``, ``evaluation``: what their files say, empty where there are none.
    ``sha256``: of the weights. ``labels``: of each feature that has one, as ``labels.shown`` gives them.
    """

    name: str
    folder: Path
    sae: SparseAutoencoder
    sha256: str
    recipe: Found
    model: Found
    dataset: Found
    certificate: Found
    evaluation: Found
    labels: Sequence[Found]

    @property
    def hub_model(self) -> str | None:
        """The model's repository on the Hub."""
        return _hub_id(self.model.get("source"))

    @property
    def imported(self) -> Found | None:
        """Where it is from when it was not trained here."""
        found = self.recipe.get("imported")
        return found if isinstance(found, dict) else None

    @property
    def figures(self) -> Found:
        """What was measured here: at the end of the training, or else when it was certified as it lies here."""
        if self.recipe.get("fvu") is not None:
            return self.recipe
        declared = self.certificate.get("declared")
        return declared if isinstance(declared, dict) else {}

    @property
    def about(self) -> About:
        spec, resolved = self.recipe.get("spec") or {}, self.recipe.get("resolved") or {}
        hook = str(self.recipe.get("hook") or spec.get("hook") or self.sae.metadata.get("hook_name"))
        trained = self.imported is None
        return About(
            name=self.name,
            hook=hook,
            hook_out=str(self.recipe.get("hook_out") or spec.get("hook_out") or hook),
            model=self.hub_model or self.model.get("name"),
            family=self.model.get("family"),
            context=_whole(self.sae.metadata.get("context_size")),
            l0=self.figures.get("l0"),
            lr=resolved.get("lr") if trained else None,
            steps=self.recipe.get("steps") if trained else None,
            seed=spec.get("seed") if trained else None,
        )


def open_shared(name: str, labels: Sequence[Found], link: Link) -> Shared:
    """Raises Refused when there is no such SAE, or it is damaged."""
    folder, recipe = link.paths.artifact("sae", name), read_recipe(name, link)
    try:
        sae = SparseAutoencoder.load(folder)
    except ValueError as error:
        raise Refused(str(error), "sae") from error
    sha256 = check_weights(folder, recipe)
    known = recipe.get("model") or {}
    model = {**known, **_json(link.paths.artifact("model", str(known.get("name"))) / "model.json")}
    text = recipe.get("tokenization") or {}
    dataset = _json(link.paths.artifact("dataset", str(text.get("dataset"))) / "dataset.json") if text else {}
    beside = (_of_this_sae(folder, name, sha256) for name in ("certificate.json", "evaluation.json"))
    shared = Shared(name, folder, sae, sha256, recipe, model, dataset, *beside, labels)
    sae.metadata = _public(shared)
    return shared


def write_layout(shared: Shared, layout: str, folder: Path) -> list[str]:
    """The weights in a layout of others, with the firing shares where SAELens keeps them, and what features are called.

    Returns what was folded or has no place there. Raises Refused for a layout that cannot hold the SAE.
    """
    try:
        check(layout, shared.sae)
    except ValueError as error:
        raise Refused(f"{shared.name} cannot be written as {layout}: {error}", "format") from error
    notes = write(layout, shared.sae, folder, shared.about)
    if layout == "saelens" and (shared.folder / SPARSITY).is_file():
        shutil.copyfile(shared.folder / SPARSITY, folder / SPARSITY)
    if shared.labels:
        found = {"sae": shared.name, "sae_sha256": shared.sha256, "labels": shared.labels}
        text = json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False)
        (folder / LABELS).write_bytes(text.encode("utf-8", "backslashreplace"))  # half a surrogate pair is \udc80
    return notes


def _public(shared: Shared) -> dict[str, object]:
    """The metadata of cfg.json without a path of this machine, the model as the Hub calls it."""
    kept = {
        key: value
        for key, value in shared.sae.metadata.items()
        if key not in _PATHS or (isinstance(value, str) and not value.startswith(("/", "~", ".", "upload:")))
    }
    if shared.hub_model:
        kept["model_name"] = shared.hub_model
    if data := _hub_id(shared.dataset.get("source")):
        kept["dataset_path"] = data
    return kept


def _of_this_sae(folder: Path, name: str, weights: str) -> Found:
    """What a file beside an SAE says; nothing where it is of the SAE as it was before. ``weights``: their sha256."""
    found = _json(folder / name)
    hashed = (found.get("sha256") or {}).get("sae") or {}
    there = {
        file: weights if file == WEIGHTS else sha256_of(folder / file) for file in hashed if (folder / file).is_file()
    }
    return {} if any(hashed[file] != sha256 for file, sha256 in there.items()) else found


def _json(path: Path) -> Found:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _hub_id(source: object) -> str | None:
    return source if isinstance(source, str) and is_hub_id(source) else None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def licence_of(about: Mapping[str, Any]) -> str | None:
    """As a model.json, a dataset.json or an imported SAE says it."""
    found = about.get("licence")
    return found if isinstance(found, str) and found else None
