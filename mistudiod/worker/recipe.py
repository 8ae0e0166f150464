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
from mistudiod.engine.tokens import TOKENS
from mistudiod.specs import Train
from mistudiod.worker.link import Link
from mistudiod.worker.read_recipe import sha256_of

HASHED_BYTES = 1 << 30  # files up to here, together, are named by their sha256, larger ones by their size alone
SOURCES = Path(mistudiod.__file__).parent
MODEL_FACTS = ("name", "source", "revision", "path", "family", "dtype", "parameters")  # of model.json
MADE_BY = ("engine", "worker", "specs")  # folders of the code that makes an SAE


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


def origins(tokenization: dict[str, Any], tokens: Path, model: dict[str, Any]) -> dict[str, Any]:
    """What an SAE comes from, each file with its size and, where there is not too much to read, its sha256.

    ``tokens``: the folder of the tokenization. The same for all SAEs of a job; reads the files.
    """
    folder = Path(model["path"])
    named = {name: model[name] for name in MODEL_FACTS if name in model}
    return {
        "tokenization": tokenization,
        "data": _hashed([tokens / TOKENS]),
        "model": named | {"weights": weights_of(folder)},
        "code": {"sha256": code_sha256()},
        "versions": {
            "mistudio": mistudiod.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "safetensors": safetensors.__version__,
            "numpy": numpy.__version__,
        },
        "machine": {"cpu": _cpu(), "system": platform.platform()},
    }


def job_number(link: Link) -> int | None:
    """The job's id, which its folder is named after; None when the folder is not one of the daemon's."""
    return int(link.run.name) if link.run.name.isdigit() else None


def code_sha256() -> str:
    """Of the sources that make an SAE, with their names."""
    digest = hashlib.sha256()
    for path in sorted(path for folder in MADE_BY for path in (SOURCES / folder).rglob("*.py")):
        digest.update(f"{path.relative_to(SOURCES).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _cpu() -> str | None:
    """As the kernel calls it; ARM's has no name there."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


def weights_of(folder: Path) -> dict[str, dict[str, object]]:
    """Of each file of a model's weights its bytes and, where there is not too much to read, its sha256."""
    return _hashed(sorted(folder.glob("*.safetensors")))


def _hashed(files: list[Path]) -> dict[str, dict[str, object]]:
    hashed = sum(file.stat().st_size for file in files) <= HASHED_BYTES
    return {file.name: {"bytes": file.stat().st_size, "sha256": sha256_of(file) if hashed else None} for file in files}
