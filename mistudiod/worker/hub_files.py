"""Which files of a repository a model needs, and whether they can be read: asked before they are fetched."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mistudiod.facts import FAMILIES
from mistudiod.hub_cache import CONFIG, SMALL_FILES, TOKENIZER, weight_names
from mistudiod.worker.hub import endpoint, page
from mistudiod.worker.link import Refused

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack")
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_MAX_CONFIG_BYTES = 10 << 20


@dataclass(frozen=True)
class File:
    name: str
    size: int  # bytes
    etag: str  # sha256 of a file in LFS, else git's sha1 of the blob
    is_lfs: bool


def needed(id: str, siblings: list[Any]) -> list[File]:
    """Which of the repository's files a model needs; raises Refused when it is not one that can be read."""
    found = {one.rfilename: one for one in siblings}
    if CONFIG not in found:
        raise Refused(f"{id} has no {CONFIG}: it is not a model of the transformers library", "source")
    weights = weight_names(found)
    if not weights and any(name.endswith(_PICKLES) for name in found):
        raise Refused(
            f"{id} has its weights only as pickles, which can run code when they are read: choose a repository with "
            "model.safetensors, or save it so with save_pretrained and add the folder",
            "source",
        )
    if not weights:
        raise Refused(
            f"{id} has no weights that can be read: there is no model.safetensors at {page('model', id)}", "source"
        )
    if TOKENIZER not in found:
        raise Refused(
            f"{id} has no {TOKENIZER}: save model and tokenizer (as a fast one) to a folder, and add that", "source"
        )
    names = [*(name for name in found if name in SMALL_FILES), *weights]
    return [_file(found[name]) for name in names]


def _file(sibling: Any) -> File:
    lfs = sibling.lfs
    if sibling.size is None:
        raise no_hub()
    return File(sibling.rfilename, int(sibling.size), hash_of(lfs.sha256 if lfs else sibling.blob_id), bool(lfs))


def hash_of(said: object) -> str:
    """A hash becomes the name of a file: it must be one."""
    if not isinstance(said, str) or not _HASH.fullmatch(said):
        raise no_hub()
    return said


def no_hub() -> Refused:
    return Refused(
        f"what answers at {endpoint()} is not the Hub, perhaps a log-in page of this network: open it in a browser, "
        "then retry",
        "source",
    )


def refuse_unknown(source: str, folder: Path) -> None:
    """Raises Refused for a config of a type that is not known, above all when only code of its own could read it.

    Of a model of the Hub this is asked before its weights are fetched. What else can be wrong ``facts`` says.
    """
    try:
        with (folder / CONFIG).open("rb") as file:
            config = json.loads(file.read(_MAX_CONFIG_BYTES))
    except (OSError, ValueError, RecursionError):
        return
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind in list(FAMILIES):
        return
    known = f"the known types are {', '.join(FAMILIES)}"
    if isinstance(config, dict) and "auto_map" in config:
        raise Refused(
            f"{source} can only be read by code of its own (auto_map), which miStudio never runs: choose another "
            f"model; {known}",
            "source",
        )
    raise Refused(f"{source} holds a model of type {str(kind)[:100]!r}, which is not known: {known}", "source")
