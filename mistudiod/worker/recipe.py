"""What is written down beside an SAE: where it belongs (cfg.json) and all that made it (recipe.json)."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path
from typing import Any

import numpy
import safetensors
import torch
import transformers

import mistudiod
from mistudiod.specs import Train

HASHED_BYTES = 1 << 30  # weights up to here are named by their sha256, larger ones by their size alone


def metadata(
    spec: Train, tokenization: dict[str, Any], model: dict[str, Any], tokens: int, precision: str
) -> dict[str, object]:
    """The ``metadata`` of a SAELens cfg.json: which activations the SAE is for, in SAELens' keys where there are."""
    policy = tokenization["policy"]
    return {
        "model_name": model["name"],
        "model_source": model["source"],
        "model_precision": precision,
        "hook_name": spec.hook[0],
        **({"hook_name_out": spec.hook_out} if spec.hook_out else {}),
        "hook_head_index": None,
        "prepend_bos": policy["bos"] is not None,
        "context_size": tokenization["context"],
        "exclude_special_tokens": tokenization["special_ids"],
        "sequence_separator_token": policy["separator"],
        "disable_concat_sequences": False,
        "dataset_path": tokenization["dataset"],
        "tokenization": tokenization["name"],
        "training_tokens": tokens,
    }


def recipe(
    job: int | None,
    spec: Train,
    tokenization: dict[str, Any],
    model: dict[str, Any],
    resolved: dict[str, object],
    measures: dict[str, object],
) -> dict[str, Any]:
    """What recipe.json says: ``measures`` is what came out, ``resolved`` what the spec left open."""
    return {
        "job": job,
        **measures,
        "spec": spec.model_dump(),
        "resolved": resolved,
        "tokenization": tokenization,
        "model": {name: model[name] for name in ("name", "source", "path", "family", "dtype", "parameters")}
        | {"weights": _weights(Path(model["path"]))},
        "versions": {
            "mistudio": mistudiod.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "safetensors": safetensors.__version__,
            "numpy": numpy.__version__,
        },
    }


def _weights(folder: Path) -> dict[str, dict[str, object]]:
    """Size and sha256 of each weight file; no sha256 when there is much to read."""
    files = sorted(folder.glob("*.safetensors"))
    hashed = sum(file.stat().st_size for file in files) <= HASHED_BYTES
    return {file.name: {"bytes": file.stat().st_size, "sha256": _sha256(file) if hashed else None} for file in files}


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
