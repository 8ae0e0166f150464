"""A model of the Hub in this machine's Hugging Face cache: only the files that it needs."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from mistudiod.hub_cache import MAIN, SMALL_FILES, cache_folder, find_cached, is_offline, write_ref
from mistudiod.worker.hub import HTTP_ERROR, is_unreachable, offline, refusal
from mistudiod.worker.hub_download import Download, repo_info
from mistudiod.worker.hub_files import hash_of, needed, refuse_unknown
from mistudiod.worker.link import Link, Refused


def in_cache(id: str, revision: str | None, link: Link) -> tuple[Path, str]:
    """The folder of the model's snapshot, fetched when it is not whole there, and the sha of its commit.

    Raises Refused with the reason, DiskFull before the first byte of the weights, Asked within a second of a stop.
    """
    try:
        validate_repo_id(id)
    except HFValidationError as error:
        raise Refused(f"{id} cannot be a model of the Hub: {error}", "source") from error
    cache = cache_folder(os.environ)
    cached = find_cached(cache, id, revision)
    if cached and cached.is_whole and (is_offline(os.environ) or revision == cached.revision):
        return cached.path, cached.revision
    if is_offline(os.environ):
        raise offline("model", id)
    model = _Model(id, revision, cache, link)
    try:
        return model.run()
    except (HTTP_ERROR, OSError) as error:
        refused = refusal(error, "model", id, model.token)
        if refused is None:
            raise
        if cached and cached.is_whole and is_unreachable(error):
            here = f"this machine has it at the commit {cached.revision}, which --revision takes without a network"
            refused = Refused(f"{refused}; {here}", "source")
        raise refused from error


class _Model:
    """One model on its way into the cache."""

    def __init__(self, id: str, revision: str | None, cache: Path, link: Link) -> None:
        self._id, self._revision, self._cache, self._link = id, revision, cache, link
        self.token = link.secret("hf")

    def run(self) -> tuple[Path, str]:
        self._link.progress("ask the Hub", 0, 1)
        info = repo_info(self._id, self._revision, self._link, files=True)
        sha = hash_of(info.sha)
        download = Download(self._id, sha, self._cache, self._link)
        missing = download.missing(needed(self._id, info.siblings))
        download.fetch([file for file in missing if file.name in SMALL_FILES])
        refuse_unknown(self._id, download.folder)
        download.fetch([file for file in missing if file.name not in SMALL_FILES])
        if self._revision != sha:
            with contextlib.suppress(OSError):  # a cache that is only read has no need of it
                write_ref(self._cache, self._id, self._revision or MAIN, sha)
        return download.folder, sha
