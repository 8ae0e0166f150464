"""The largest activation of each feature: of the newest extraction, else found in a short pass and kept."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from mistudiod.engine.extract import spread
from mistudiod.engine.harvest import NoActivations
from mistudiod.engine.maxima import TOKENS, maxima
from mistudiod.engine.tokens import MANIFEST, TokenWindows
from mistudiod.paths import PARTIAL
from mistudiod.worker.extract_source import check_tokenizer, known_norms
from mistudiod.worker.extractions import extractions, newest_store
from mistudiod.worker.link import Refused
from mistudiod.worker.loaded import Loaded, LoadedSae

log = logging.getLogger(__name__)
HELD_OUT_TOKENS = 4 * TOKENS  # of the held-out text, evenly spread: as many as are ever read of it


def maxima_of(name: str, known: LoadedSae, loaded: Loaded, at: str) -> Sequence[float]:
    """Of each feature of a loaded SAE; 0 of one that is dead. ``at``: the field that asks for them. Raises Refused."""
    there = tuple(str(folder) for folder in extractions(name, loaded.link))
    if there not in known.maxima:
        store = newest_store(name, known.sha256, known.sae.d_sae, loaded.link)
        known.maxima = {there: list(store.columns["max"]) if store else _found(name, known, loaded, at)}
    return known.maxima[there]


def held_out_windows(name: str, known: LoadedSae, loaded: Loaded, at: str) -> Tensor:
    """Text that the SAE was not trained on, as it was tokenized for that: (n, T) ids. Raises Refused."""
    tokenization = known.trained.recipe["spec"].get("tokenization")
    if tokenization is None:
        raise Refused(f"{name} was brought in, and which text it was trained on is not known here", at)
    folder = loaded.link.paths.artifact("tokenization", tokenization)
    try:
        windows = TokenWindows(folder)
        check_tokenizer(tokenization, json.loads((folder / MANIFEST).read_text()), known.trained, at)
        if not windows.held_out:
            raise ValueError(f"the tokenization {tokenization} has no held-out text")
    except (ValueError, OSError, Refused) as error:
        raise Refused(f"the text that {name} was trained on is needed, and cannot be used: {error}", at) from error
    return torch.from_numpy(windows.rows(windows.train + spread(windows.held_out, windows.context, HELD_OUT_TOKENS)))


def _found(name: str, known: LoadedSae, loaded: Loaded, at: str) -> list[float]:
    """As a short pass finds them, now or earlier."""
    file, d_sae = loaded.link.paths.maxima(known.sha256), known.sae.d_sae
    kept = _read(file, d_sae)
    if kept is not None:
        return kept
    link, trained = loaded.link, known.trained

    def heard(read: int) -> None:
        link.check()
        link.progress("largest activations", read, TOKENS, "tokens")

    try:
        windows = held_out_windows(name, known, loaded, at)
        norms = known_norms(trained)
        found = maxima(loaded.lm, trained.sae, trained.hook, windows, special_ids([known], loaded), norms, heard=heard)
    except (Refused, NoActivations) as error:
        raise Refused(
            f"how strongly the features of {name} fire is not known: extract features first ({error})", at
        ) from error
    values: list[float] = found.tolist()
    _write(file, {"sae": name, "tokens": TOKENS, "maxima": values})
    return values


def special_ids(saes: Sequence[LoadedSae], loaded: Loaded) -> set[int]:
    """Tokens on which no feature is read or changed: those that the SAEs were not trained on."""
    lists = [known.sae.metadata.get("exclude_special_tokens") for known in saes]
    return {id for one in lists for id in (one if isinstance(one, list) else loaded.lm.tokenizer.all_special_ids)}


def _read(file: Path, d_sae: int) -> list[float] | None:
    try:
        found = json.loads(file.read_text())["maxima"]
        kept = [float(value) for value in found]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return kept if len(kept) == d_sae and all(0 <= value < float("inf") for value in kept) else None


def _write(file: Path, kept: dict[str, object]) -> None:
    partial = file.with_name(f"{PARTIAL}{file.name}-{os.getpid()}")
    try:
        file.parent.mkdir(exist_ok=True)
        partial.write_text(json.dumps(kept))
        partial.replace(file)
    except OSError as error:  # they are found again the next time
        log.warning("%s cannot be written: %s", file, error)
