"""Show which features of an SAE fire on which token of a text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mistudiod.engine.hooks import layers_needed
from mistudiod.engine.inspect import Reading, read
from mistudiod.engine.lm import LM, load_lm
from mistudiod.engine.precision import NoPrecision
from mistudiod.engine.token_bytes import token_bytes
from mistudiod.events import MAX_LINE_BYTES
from mistudiod.facts import UnknownModel
from mistudiod.pages import Pages
from mistudiod.specs import Inspect
from mistudiod.vocabulary import whole_texts
from mistudiod.worker.extract_source import hooks_read, known_norms
from mistudiod.worker.link import Link, Refused
from mistudiod.worker.recipe import sha256_of
from mistudiod.worker.trained import Trained, open_trained

_RESULT_BYTES = MAX_LINE_BYTES * 3 // 4  # a line has it, and secrets that are starred out may lengthen it


def run(spec: Inspect, link: Link) -> None:
    """The result is {sae, top, tokens: [{id, text, special, outlier, features: [{index, value}]}], pooled: [{index,
    max, tokens, peak}], left_out, l0}.

    ``top``: how many features of a token are shown at most, fewer than asked for where the result had no room for
    them. ``left_out``: how many features fire on the text and were ignored; ``l0`` counts them.
    """
    link.progress("load model", 0, 1)
    trained = open_trained(spec.sae, link)
    densities = _densities(spec, link, trained) if spec.ignore_denser is not None else None
    try:
        layers = max(map(layers_needed, hooks_read(trained)))
        lm = load_lm(Path(trained.model["path"]), trained.device, trained.precision, layers)
    except (UnknownModel, NoPrecision) as error:
        raise Refused(str(error), "sae") from error
    link.progress("load model", 1, 1)
    link.check()
    reading, left_out = _read(spec, trained, lm), 0
    l0 = reading.l0
    if densities is not None:
        reading, left_out = reading.without(densities > spec.ignore_denser)
    pooled = {"pooled": reading.pooled(), "left_out": left_out, "l0": round(l0, 3)}
    link.result({"sae": spec.sae, **_tokens(reading, lm, spec.top, _size(pooled)), **pooled})


def _read(spec: Inspect, trained: Trained, lm: LM) -> Reading:
    metadata = trained.sae.metadata
    ids = lm.text_ids(spec.text, metadata.get("prepend_bos") is not False)
    if len(ids) > lm.facts.context:
        raise Refused(
            f"the text has {len(ids)} tokens, but {trained.model['name']} reads only {lm.facts.context}: shorten it",
            "text",
        )
    special = metadata.get("exclude_special_tokens")
    special_ids = special if isinstance(special, list) else lm.tokenizer.all_special_ids
    return read(lm, trained.sae, trained.hook, ids, special_ids, known_norms(trained))


def _tokens(reading: Reading, lm: LM, top: int, other_bytes: int) -> dict[str, Any]:
    """``top`` and ``tokens`` of the result, with as many features of each token as there is room for."""
    texts = whole_texts(token_bytes(lm.tokenizer, reading.ids))
    names, rows = ("id", "text", "special", "outlier"), (reading.ids, texts, reading.special, reading.outlier)
    tokens: list[dict[str, Any]] = [dict(zip(names, row, strict=True)) for row in zip(*rows, strict=True)]
    while top:
        for token, features in zip(tokens, reading.features(top), strict=True):
            token["features"] = features
        if _size(tokens) + other_bytes <= _RESULT_BYTES:
            return {"top": top, "tokens": tokens}
        top = top * 3 // 4
    raise Refused(f"the text has {len(tokens)} tokens, more than an answer has room for: give about half of it", "text")


def _size(result: object) -> int:
    return len(json.dumps(result, ensure_ascii=False).encode())


def _densities(spec: Inspect, link: Link, trained: Trained) -> Tensor:
    """The share of tokens on which each feature fires, (d_sae,): by the newest extraction, else by the training."""
    artifact = link.paths.artifact("sae", spec.sae)
    sha256 = trained.recipe.get("sae_sha256") or sha256_of(artifact / "sae_weights.safetensors")
    for folder in _extractions(link.paths.folder("features") / spec.sae):
        try:
            pages = Pages(folder)
        except ValueError:
            continue  # of an older miStudio
        if pages.manifest.get("sae_sha256") == sha256 and pages.d_sae == trained.sae.d_sae:
            return torch.tensor([pages.density(index) for index in range(pages.d_sae)])
    try:
        sparsity = load_file(artifact / "sparsity.safetensors")["sparsity"]
    except (OSError, SafetensorError, KeyError):
        raise Refused(
            f"how often the features of {spec.sae} fire is not known yet: extract them first", "ignore_denser"
        ) from None
    return 10**sparsity


def _extractions(folder: Path) -> Iterator[Path]:
    """The extractions of an SAE, the newest first."""
    numbered = [path for path in folder.glob("*") if path.name.isdigit()]
    yield from sorted(numbered, key=lambda path: int(path.name), reverse=True)
