"""A dataset of the Hub: which files its configuration and split consist of, and what is said of it. No code of its own.

The library datasets knows the cards and the naming of files; the rows are read here, as those of local files are:
its own streaming holds whole row groups, of a million rows perhaps, and needs a further package for zstd.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from datasets.exceptions import DataFilesNotFoundError
from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url

from mistudiod.hub_cache import is_offline
from mistudiod.worker.far_file import FarFiles
from mistudiod.worker.hub import HTTP_ERROR, TIMEOUT_S, answered, endpoint, offline, page, persisted, refusal
from mistudiod.worker.hub_only import ask_nobody_else, require_own
from mistudiod.worker.link import Link, Refused
from mistudiod.worker.source_files import IN_WORDS, SourceFile, fault, first_line, format_of

_SHOWN = 30  # names in a sentence


class Unchosen(Refused):
    """The dataset has several configurations, none of which was asked for."""

    def __init__(self, message: str, configs: list[str]) -> None:
        super().__init__(message.encode(errors="replace").decode(), "config")
        self.configs = configs


@dataclass(frozen=True)
class HubDataset:
    """``documents`` is what the card says, None when it says nothing."""

    id: str
    revision: str  # sha of the commit
    licence: str | None
    config: str
    configs: list[str]
    split: str
    splits: list[str]
    documents: int | None
    files: list[SourceFile]


def find(id: str, config: str | None, split: str | None, link: Link, or_first: bool = False) -> HubDataset:
    """Raises Refused with what there is. ``or_first``: of splits among which none is usual, take the first."""
    if is_offline(os.environ):
        raise offline("dataset", id)
    return _Finder(id, config, split, link).find(or_first)


class _Finder:
    def __init__(self, id: str, config: str | None, split: str | None, link: Link) -> None:
        self._id, self._config, self._split, self._link = id, config, split, link
        self._token = link.secret("hf")

    def find(self, or_first: bool) -> HubDataset:
        info = self._asked(self._info)
        sizes = {one.rfilename: int(one.size) for one in info.siblings}
        self._refuse_code(sizes)
        with tempfile.TemporaryDirectory() as folder:
            builder = self._asked(lambda gone: self._builder(info.sha, Path(folder), gone))
        if isinstance(builder, Refused):
            raise builder
        parts: Mapping[Any, list[str]] = builder.config.data_files
        split = self._chosen([str(name) for name in parts], or_first)
        require_own(self._id, info.sha, list(map(str, parts[split])))
        paths = [str(url).partition(f"@{info.sha}/")[2] for url in parts[split]]
        far = FarFiles(self._id, info.sha, self._link)
        return HubDataset(
            id=self._id, revision=info.sha, licence=_licence(info.card_data),
            config=builder.config.name, configs=list(builder.builder_configs),
            split=split, splits=[str(name) for name in parts], documents=_documents(builder.info, split),
            files=[_file(self._id, path, sizes[path], far) for path in self._readable(paths)],
        )  # fmt: skip

    def _asked(self, work: Any) -> Any:
        try:
            return answered(self._link, work)
        except (HTTP_ERROR, OSError) as error:
            raise refusal(error, "dataset", self._id, self._token) or self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> Refused:
        return fault(f"{self._id} cannot be read as a dataset: {first_line(error)}")

    def _info(self, gone: threading.Event) -> Any:
        api, token = HfApi(endpoint=endpoint(), token=self._token or False), self._token or False
        info = persisted(lambda: api.dataset_info(self._id, files_metadata=True, timeout=TIMEOUT_S), gone)
        if info.gated and info.siblings:  # its description is public, and the library would lose the reason
            name = info.siblings[0].rfilename
            url = hf_hub_url(self._id, name, repo_type="dataset", revision=info.sha, endpoint=endpoint())
            persisted(lambda: get_hf_file_metadata(url, token=token, timeout=TIMEOUT_S), gone)
        return info

    def _refuse_code(self, names: Mapping[str, int]) -> None:
        script = f"{self._id.partition('/')[2]}.py"
        if script in names:
            raise fault(
                f"{self._id} can only be read by code of its own ({script}), which miStudio never runs: look whether "
                f"its files are there as parquet too, under another id or at {page('dataset', self._id)}"
            )

    def _builder(self, sha: str, folder: Path, gone: threading.Event) -> Any:
        """What the library makes of the repository, or a refusal."""
        ask_nobody_else()
        token = self._token or False
        config = datasets.DownloadConfig(cache_dir=folder / "downloads", disable_tqdm=True, token=token)
        known: dict[str, Any] = {"revision": sha, "download_config": config}

        def build() -> Any:
            return datasets.load_dataset_builder(self._id, self._config, cache_dir=str(folder), token=token, **known)

        try:
            return persisted(build, gone)
        except DataFilesNotFoundError:
            return fault(f"{self._id} has no files that could be read: give a dataset of {IN_WORDS} files")
        except (ValueError, RuntimeError) as error:
            try:
                configs = list(datasets.get_dataset_config_names(self._id, **known))
            except (ValueError, RuntimeError):
                return self._unreadable(error)
            known_config = self._config in configs or (self._config is None and len(configs) == 1)
            return self._unreadable(error) if known_config else self._no_config(configs)

    def _no_config(self, configs: list[str]) -> Refused:
        listed = _listed(configs)
        if self._config is None:
            return Unchosen(f"{self._id} has several configurations: say which of {listed}", configs)
        return fault(f"{self._id} has no configuration {self._config!r}; there are: {listed}", "config")

    def _chosen(self, splits: list[str], or_first: bool) -> str:
        if self._split in splits:
            return str(self._split)
        if self._split is not None:
            raise fault(f"{self._id} has no split {self._split!r}; there are: {_listed(splits)}", "split")
        if "train" in splits:
            return "train"
        if len(splits) == 1 or or_first:
            return splits[0]
        raise fault(f"{self._id} has several splits: say which of {_listed(splits)}", "split")

    def _readable(self, paths: list[str]) -> list[str]:
        """Those of a format that is known; raises Refused when there is none."""
        known = [path for path in paths if format_of(path)]
        if not known:
            raise fault(f"{self._id} has only files as {paths[0]}: give a dataset of {IN_WORDS} files")
        return known


def _file(id: str, path: str, size: int, far: FarFiles) -> SourceFile:
    return SourceFile(f"{id}/{path}", path, size, lambda: far.open(path, size))


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(repr, names[:_SHOWN])) + more


def _licence(card: Mapping[str, Any] | None) -> str | None:
    found = (card or {}).get("license")
    if isinstance(found, list):
        return ", ".join(map(str, found)) or None
    if found == "other":
        found = (card or {}).get("license_name") or found
    return None if found is None else str(found)


def _documents(info: Any, split: str) -> int | None:
    known = (info.splits or {}).get(split)
    return int(known.num_examples) if known and known.num_examples else None
