"""Show which features of an SAE fire on which token of a text."""

from __future__ import annotations

import json
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mistudiod.engine.inspect import Reading, read
from mistudiod.engine.lm import LM
from mistudiod.engine.token_bytes import token_bytes
from mistudiod.specs import Inspect
from mistudiod.vocabulary import whole_texts
from mistudiod.worker.extract_source import hooks_read, known_norms
from mistudiod.worker.extractions import newest_store
from mistudiod.worker.link import Link, Refused
from mistudiod.worker.trained import Trained, load_model, open_trained

_RESULT_BYTES = 393_216  # what a page can show, and far less than a line may have


def run(spec: Inspect, link: Link) -> None:
    """The result is {sae, top, tokens: [{id, text, special, outlier, features: [{index, value}]}], pooled: [{index,
    max, tokens, peak}], left_out, l0}.

    ``top``: how many features of a token are shown at most, fewer than asked for where the result had no room for
    them. ``left_out``: how many features fire on the text and were ignored; ``l0`` counts them.
    """
    trained = open_trained(spec.sae, link)
    densities = _densities(spec, link, trained) if spec.ignore_denser is not None else None
    lm = load_model(trained, hooks_read(trained), link)
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
    pages = newest_store(spec.sae, trained.sha256, trained.sae.d_sae, link)
    if pages is not None:
        return torch.tensor([pages.density(index) for index in range(pages.d_sae)])
    try:
        sparsity = load_file(trained.folder / "sparsity.safetensors")["sparsity"]
    except (OSError, SafetensorError, KeyError):
        raise Refused(
            f"how often the features of {spec.sae} fire is not known yet: extract them first", "ignore_denser"
        ) from None
    return 10**sparsity
