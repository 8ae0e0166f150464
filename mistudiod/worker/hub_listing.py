"""A repository of the Hub as readers of SAEs look at it: names and sizes at once, small files and headers as they are
asked for, weights when they are wanted, into the machine's Hugging Face cache.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status, validate_repo_id

from mistudiod.engine.formats.base import (
    LOOKED_INTO,
    MAX_FILES,
    MAX_TEXT_BYTES,
    FolderListing,
    Listing,
    as_text,
    tensors_of,
)
from mistudiod.engine.formats.npz import Npz
from mistudiod.engine.formats.pickled import SUFFIXES, shapes_in
from mistudiod.hub_cache import MAIN, cache_folder, find_cached, is_offline, write_ref
from mistudiod.paths import join
from mistudiod.worker.far_file import FarFile, FarFiles
from mistudiod.worker.hub import HTTP_ERROR, TIMEOUT_S, answered, endpoint, offline, persisted, refusal
from mistudiod.worker.hub_download import Download, repo_info
from mistudiod.worker.hub_files import File, hash_of, no_hub
from mistudiod.worker.licence import licence_in, licence_of
from mistudiod.worker.link import Link, Refused

CONFIGS = (".json", ".yaml", ".yml")
_BUFFER_BYTES = 1 << 15
_AT_ONCE = 16  # files that are looked into
_SMALL_BYTES = 1 << 16
# What readers look at of a file of weights.
_LOOKS: dict[str, Callable[[Listing, str], object]] = {
    ".safetensors": tensors_of,
    ".npz": Npz,
    **dict.fromkeys(SUFFIXES, shapes_in),
}
T = TypeVar("T")


class Repository(Listing, Protocol):
    """A listing that knows its commit, and what its card says of the licence."""

    revision: str
    licence: str | None

    def look_ahead(self, names: Sequence[str]) -> None:
        """Readers will look into these files."""

    def fetch(self, names: Sequence[str]) -> None:
        """Bring these files here."""


def repository(id: str, revision: str | None, link: Link) -> Repository:
    """Raises Refused with the reason, Asked at once."""
    try:
        validate_repo_id(id)
    except HFValidationError as error:
        raise Refused(f"{id} cannot be a repository of the Hub: {error}", "source") from error
    if not is_offline(os.environ):
        return HubListing(id, revision, link)
    cached = find_cached(cache_folder(os.environ), id, revision)
    if cached is None:
        raise offline("SAE", id)
    return _CachedListing(id, cached.path, cached.revision)


class HubListing:
    """At one commit; whatever it is asked raises Refused with the reason and, at once, Asked."""

    def __init__(self, id: str, revision: str | None, link: Link) -> None:
        self.source, self._link = id, link
        link.progress("ask the Hub", 0, 1)
        info = self._asked(lambda: repo_info(id, revision, link))
        self.revision = hash_of(info.sha)
        self.licence = licence_of(info.card_data or {})
        self._asked_for = revision or MAIN
        self._files = {file.name: file for file in self._asked(self._tree)}
        self._names = list(self._files)
        self._far, self._open = FarFiles(id, self.revision, link, "SAE"), dict[str, BinaryIO]()
        self._here: Path | None = None  # folder of the snapshot, once something of it was fetched
        link.progress("ask the Hub", 1, 1)

    def names(self) -> Sequence[str]:
        return self._names

    def size(self, name: str) -> int:
        return self._file(name).size

    def read(self, name: str, start: int, n: int) -> bytes:
        """What was read last of each file is remembered."""
        file = self._open.get(name)
        if file is None:
            far = FarFile(self.size(name), partial(self._far.fetch, name))
            file = self._open[name] = io.BufferedReader(far, _BUFFER_BYTES)
        file.seek(start)
        return file.read(n)

    def text(self, name: str, limit: int = MAX_TEXT_BYTES) -> str:
        return as_text(name, self.read(name, 0, limit + 1), limit)

    def look_ahead(self, names: Sequence[str]) -> None:
        """Ask at once for what readers may ask one after the other, each answered in tenths of a second: of each kind
        of file the first, as many as they look into at most. What is wrong with a file they will find out.
        """
        tasks: list[Callable[[], object]] = []
        for suffix, look in _LOOKS.items():
            found = sorted(name for name in names if name.endswith(suffix))
            tasks += [partial(look, self, name) for name in found[:LOOKED_INTO]]
        small = sorted(name for name in names if name.endswith(CONFIGS) and self.size(name) <= _SMALL_BYTES)
        tasks += [partial(self.text, name) for name in small[:LOOKED_INTO]]
        with ThreadPoolExecutor(_AT_ONCE, "look ahead") as pool:
            for done in [pool.submit(task) for task in tasks]:
                with contextlib.suppress(ValueError):
                    done.result()

    def path(self, name: str) -> Path:
        self.fetch([name])
        assert self._here
        return self._here / name

    def fetch(self, names: Sequence[str]) -> None:
        """Bring them into the cache, whole or as far as they come before a stop. Raises DiskFull."""
        files = [self._file(name) for name in names]
        cache = cache_folder(os.environ)
        download = Download(self.source, self.revision, cache, self._link)
        self._asked(lambda: download.fetch(download.missing(files)))
        if self._here is None and self._asked_for != self.revision:
            with contextlib.suppress(OSError):  # a cache that is only read has no need of it
                write_ref(cache, self.source, self._asked_for, self.revision)
        self._here = download.folder

    def _file(self, name: str) -> File:
        if name not in self._files:
            raise ValueError(f"{self.source} has no file {name}")
        return self._files[name]

    def _tree(self) -> list[File]:
        """Page by page: what is said of a repository with its files breaks off at many thousand."""
        headers = build_hf_headers(token=self._link.secret("hf") or False)

        def page(url: str) -> tuple[list[Any], str | None]:
            answer = get_session().get(url, headers=headers, timeout=TIMEOUT_S, follow_redirects=True)
            hf_raise_for_status(answer)
            return answer.json(), answer.links.get("next", {}).get("url")

        url: str | None = f"{endpoint()}/api/models/{self.source}/tree/{self.revision}?recursive=true"
        files: list[File] = []
        while url is not None:
            try:
                entries, url = answered(self._link, lambda gone, at=url: persisted(lambda: page(at), gone))  # type: ignore[misc]
                files += [_file(one) for one in entries if one["type"] == "file" and _is_plain(one["path"])]
            except (ValueError, KeyError, TypeError) as error:
                raise no_hub() from error
            if len(files) > MAX_FILES:
                raise Refused(f"{self.source} has more than {MAX_FILES:,} files, too many to look at", "source")
        return files

    def _asked(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except (HTTP_ERROR, OSError) as error:
            refused = refusal(error, "SAE", self.source, self._link.secret("hf"))
            if refused is None:
                raise
            raise refused from error


class _CachedListing(FolderListing):
    """What the machine's cache has of a repository, while the Hub is not asked."""

    def __init__(self, id: str, folder: Path, revision: str) -> None:
        super().__init__(folder)
        self.source, self.revision, self.licence = id, revision, licence_in(folder)

    def look_ahead(self, names: Sequence[str]) -> None:
        """It lies here."""

    def fetch(self, names: Sequence[str]) -> None:
        """They are here."""


def _file(entry: Any) -> File:
    lfs = entry.get("lfs")
    return File(str(entry["path"]), int(entry["size"]), hash_of(lfs["oid"] if lfs else entry["oid"]), bool(lfs))


def _is_plain(path: str) -> bool:
    """Whether a name can lie nowhere but below its folder."""
    try:
        join(Path("/"), path)
    except ValueError:
        return False
    return True
