"""A preview: what a model is and what it would take, before any of its weights is fetched."""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from mistudiod.facts import ModelFacts, Stored, UnknownModel, parse_header, read_facts
from mistudiod.hub_cache import CONFIG, cache_folder, find_cached, is_offline, repo_folder
from mistudiod.specs import PreviewModel, is_hub_id
from mistudiod.worker.add_model import local_folder
from mistudiod.worker.far_file import FarFiles
from mistudiod.worker.hub import HTTP_ERROR, offline, page, refusal
from mistudiod.worker.hub_download import repo_info
from mistudiod.worker.hub_files import File, hash_of, needed, refuse_unknown
from mistudiod.worker.licence import licence_in, licence_of
from mistudiod.worker.link import Link, Refused

_SHOWN = ("family", "n_layers", "d_model", "context", "vocab_size", "parameters", "dtype", "quantized", "size_bytes")
_WEIGHTS = ".safetensors"


def run(spec: PreviewModel, link: Link) -> None:
    """The result is {source, revision, licence, page, gated, why, missing_bytes, hooks, weight_bytes} and the facts of
    ``_SHOWN``; null is what there is not, or nobody can say without access.

    ``page`` is that of the Hub where access is asked for, ``gated`` whether it has to be. ``why`` is the sentence for
    a model that cannot be added as things stand. ``missing_bytes`` are those that adding it would download.
    """
    told: dict[str, object] = dict.fromkeys((*_SHOWN, "revision", "licence", "page", "gated", "why", "hooks"))
    told |= {"weight_bytes": None, "missing_bytes": 0}
    found = _of_the_hub(spec, link) if is_hub_id(spec.source) else _of_folder(local_folder(spec.source, link), spec)
    link.result(told | found | {"source": spec.source})


def _of_folder(folder: Path, spec: PreviewModel) -> dict[str, object]:
    refuse_unknown(spec.source, folder)
    try:
        return _shown(read_facts(folder)) | {"licence": licence_in(folder)}
    except UnknownModel as error:
        raise Refused(str(error), "source") from error


def _shown(facts: ModelFacts) -> dict[str, object]:
    known: dict[str, object] = {name: getattr(facts, name) for name in _SHOWN}
    return known | {"weight_bytes": facts.weight_bytes, "hooks": facts.n_layers * len(facts.hook_widths)}


def _of_the_hub(spec: PreviewModel, link: Link) -> dict[str, object]:
    id = spec.source
    try:
        validate_repo_id(id)
    except HFValidationError as error:
        raise Refused(f"{id} cannot be a model of the Hub: {error}", "source") from error
    if is_offline(os.environ):
        cached = find_cached(cache_folder(os.environ), id, spec.revision)
        if cached is None or not cached.is_whole:
            raise offline("model", id)
        return _of_folder(cached.path, spec) | {"revision": cached.revision, "page": page("model", id)}
    return _Far(id, spec.revision, link).found()


class _Far:
    """A model on the Hub, of which the config and the headers of the weights are read and nothing else."""

    def __init__(self, id: str, revision: str | None, link: Link) -> None:
        self._id, self._link = id, link
        self._token = link.secret("hf")
        self._info = self._asked(partial(repo_info, id, revision, link, files=True))
        self._sha = hash_of(self._info.sha)
        self._far = FarFiles(id, self._sha, link, "model")

    def found(self) -> dict[str, object]:
        told: dict[str, object] = {
            "revision": self._sha,
            "licence": licence_of(self._info.card_data or {}),
            "page": page("model", self._id),
            "gated": bool(self._info.gated),
        }
        try:
            files = needed(self._id, self._info.siblings)
        except Refused as refused:
            return told | {"why": str(refused)}
        weights = [file for file in files if file.name.endswith(_WEIGHTS)]
        told |= {
            "size_bytes": sum(file.size for file in weights),
            "missing_bytes": sum(file.size for file in files if not self._is_here(file)),
        }
        try:
            return told | _shown(self._facts(files, weights))
        except Refused as refused:
            return told | self._counted() | {"why": str(refused)}

    def _asked(self, ask: Any) -> Any:
        try:
            return ask()
        except (HTTP_ERROR, OSError) as error:
            refused = refusal(error, "model", self._id, self._token)
            raise (refused or error) from error

    def _is_here(self, file: File) -> bool:
        return (repo_folder(cache_folder(os.environ), self._id) / "snapshots" / self._sha / file.name).is_file()

    def _counted(self) -> dict[str, object]:
        """What the Hub itself says of a model whose files may not be read."""
        config, counted = self._info.config or {}, self._info.safetensors
        return {"family": config.get("model_type"), "parameters": counted.total if counted else None}

    def _facts(self, files: list[File], weights: list[File]) -> ModelFacts:
        """Raises Refused, for the same reasons as adding it would."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            config = next(file for file in files if file.name == CONFIG)
            (folder / CONFIG).write_bytes(self._far.fetch(CONFIG, 0, config.size))
            refuse_unknown(self._id, folder)
            try:
                tensors: dict[str, Stored] = {}
                for file in weights:
                    tensors |= self._header(file)
                return read_facts(folder, (sum(file.size for file in weights), tensors))
            except UnknownModel as error:
                raise Refused(str(error).replace(str(folder), self._id), "source") from error

    def _header(self, file: File) -> dict[str, Stored]:
        opened = self._far.open(file.name, file.size)

        def read(start: int, n: int) -> bytes:
            opened.seek(start)
            return opened.read(n)

        return parse_header(Path(self._id) / file.name, file.size, read)
