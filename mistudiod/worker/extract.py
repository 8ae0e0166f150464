"""Find the texts on which an SAE's latents fire most, and keep examples of the strongest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mistudiod.engine.extract import Extraction
from mistudiod.engine.hooks import layers_needed
from mistudiod.engine.lm import LM, PASS_TOKENS, load_lm
from mistudiod.engine.precision import NoPrecision
from mistudiod.engine.tokens import TokenWindows
from mistudiod.facts import UnknownModel
from mistudiod.specs import Extract
from mistudiod.worker.link import Link, Refused
from mistudiod.worker.new_folder import new_folder
from mistudiod.worker.trained import Trained, open_trained

BEFORE, AFTER = 16, 8  # tokens of an example around its strongest one


def run(spec: Extract, link: Link) -> None:
    """Write ``features/<sae>/<job>/``: a manifest, and a line for each feature that has examples."""
    name = f"{spec.sae}/{link.run.name}"
    final = link.paths.artifact("features", name)
    if not final.exists():
        _extract(spec, link, final)
    link.artifact("features", name)
    link.result(json.loads((final / "manifest.json").read_text()))


def _extract(spec: Extract, link: Link, final: Path) -> None:
    link.progress("load model", 0, 1)
    trained = open_trained(spec.sae, link)
    windows = _windows(trained, link)
    try:
        lm = load_lm(Path(trained.model["path"]), trained.device, trained.precision, layers_needed(trained.hook))
    except (UnknownModel, NoPrecision) as error:
        raise Refused(str(error), "sae") from error
    link.progress("load model", 1, 1)
    extraction = _read_text(spec, link, trained, windows, lm)
    chosen = extraction.strongest(spec.features).tolist()
    lines = []
    for done, latent in enumerate(chosen):
        link.check()
        feature = _feature(latent, extraction, trained, windows, lm)
        lines.append(json.dumps(feature, ensure_ascii=False, allow_nan=False))
        link.progress("examples", done + 1, len(chosen), "features")
    manifest = {
        "sae": spec.sae,
        "id": link.run.name,
        "job": int(link.run.name) if link.run.name.isdigit() else None,
        "features": len(lines),
        "tokens": extraction.tokens,
        "alive": (extraction.fired > 0).double().mean().item(),
        "tokenization": trained.recipe["spec"]["tokenization"],
    }
    with new_folder(final, 1 << 20) as partial:
        (partial / "features.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        (partial / "manifest.json").write_text(json.dumps(manifest, indent=1, allow_nan=False))


def _windows(trained: Trained, link: Link) -> TokenWindows:
    name = trained.recipe["spec"]["tokenization"]
    try:
        return TokenWindows(link.paths.artifact("tokenization", name))
    except ValueError as error:
        raise Refused(f"the tokenization {name} that the SAE was trained on is not here: {error}", "sae") from error


def _read_text(spec: Extract, link: Link, trained: Trained, windows: TokenWindows, lm: LM) -> Extraction:
    """One pass over evenly spread training windows, as many as hold ``spec.tokens``."""
    count = min(windows.train, -(-spec.tokens // windows.context))
    numbers = np.linspace(0, windows.train - 1, count).round().astype(np.int64)
    extraction = Extraction(trained.sae.d_sae, spec.examples, trained.device)
    size = max(1, PASS_TOKENS[trained.device.type] // windows.context)
    for start in range(0, count, size):
        link.check()
        rows = windows.rows(numbers[start : start + size])  # (n, T)
        kept = torch.from_numpy(np.argwhere(~windows.special_mask(rows))).to(trained.device)  # (tokens, 2)
        x = lm.activations(torch.from_numpy(rows), trained.hook)[kept[:, 0], kept[:, 1]].float()
        which = torch.from_numpy(numbers[start : start + size]).to(trained.device)[kept[:, 0]]
        extraction.add(*trained.sae.encode_active(x), which, kept[:, 1])
        link.progress("read text", min(start + size, count) * windows.context, count * windows.context, "tokens")
    return extraction


def _feature(latent: int, extraction: Extraction, trained: Trained, windows: TokenWindows, lm: LM) -> dict[str, Any]:
    fired = int(extraction.fired[latent])
    examples = []
    for window, position in zip(extraction.window[latent].tolist(), extraction.position[latent].tolist(), strict=True):
        if window >= 0:
            examples.append(_example(latent, window, position, trained, windows, lm))
    return {
        "index": latent,
        "max": extraction.best[latent, 0].item(),
        "mean": extraction.total[latent].item() / fired,
        "density": fired / extraction.tokens,
        "examples": examples,
    }


def _example(
    latent: int, window: int, position: int, trained: Trained, windows: TokenWindows, lm: LM
) -> dict[str, Any]:
    """Tokens around ``position`` of a window, and the latent's activation on each."""
    row = windows.rows([window])[0]  # (T,)
    values = trained.sae.encode(lm.activations(torch.from_numpy(row[None]), trained.hook)[0].float())[:, latent]
    first, last = max(0, position - BEFORE), min(len(row), position + AFTER + 1)
    shown = [i for i in range(first, last) if row[i] not in windows.special_ids]
    return {
        "tokens": [lm.tokenizer.decode([int(row[i])]) for i in shown],
        "activations": [round(values[i].item(), 4) for i in shown],
        "peak": shown.index(position),
        "window": window,
        "position": position,
    }
