"""A model of the Hub in this machine's Hugging Face cache: only the files that are needed, each fetched once.

huggingface_hub knows the Hub and the cache; the bytes are fetched here, because its own download begins again when its
process has ended, and cannot be stopped. What has come lies as ``blobs/<etag>.incomplete`` until it is whole and its
hash is the one that the Hub states.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from pathlib import Path
from typing import Any, BinaryIO

from huggingface_hub import HfApi, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import WeakFileLock, build_hf_headers, get_session, hf_raise_for_status, validate_repo_id

from mistudiod.hub_cache import MAIN, SMALL_FILES, cache_folder, find_cached, is_offline, repo_folder, write_ref
from mistudiod.paths import require_space
from mistudiod.worker.hub import (
    HTTP_ERROR,
    TIMEOUT_S,
    Gone,
    answered,
    endpoint,
    is_unreachable,
    offline,
    persisted,
    refusal,
)
from mistudiod.worker.hub_files import File, hash_of, needed, no_hub, refuse_unknown
from mistudiod.worker.link import Link, Refused

_READ_BYTES = 1 << 20


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
    download = _Download(id, revision, cache, link)
    try:
        return download.run()
    except (HTTP_ERROR, OSError) as error:
        refused = refusal(error, "model", id, download.token)
        if refused is None:
            raise
        if cached and cached.is_whole and is_unreachable(error):
            here = f"this machine has it at the commit {cached.revision}, which --revision takes without a network"
            refused = Refused(f"{refused}; {here}", "source")
        raise refused from error


class _Download:
    """One model on its way into the cache."""

    def __init__(self, id: str, revision: str | None, cache: Path, link: Link) -> None:
        self._id, self._revision, self._cache, self._link = id, revision, cache, link
        self.token = link.secret("hf")
        self._sha = ""
        self._total = 0  # bytes of all files
        self._come = 0  # bytes of them that are here

    def run(self) -> tuple[Path, str]:
        self._link.progress("ask the Hub", 0, 1)
        info = answered(self._link, self._ask)
        self._sha = hash_of(info.sha)
        files = needed(self._id, info.siblings)
        missing = [file for file in files if not self._is_here(file)]
        self._total = sum(file.size for file in files)
        self._come = self._total - sum(file.size for file in missing)
        self._require_space(missing)
        self._fetch([file for file in missing if file.name in SMALL_FILES])
        refuse_unknown(self._id, self._folder)
        self._fetch([file for file in missing if file.name not in SMALL_FILES])
        if self._revision != self._sha:
            with contextlib.suppress(OSError):  # a cache that is only read has no need of it
                write_ref(self._cache, self._id, self._revision or MAIN, self._sha)
        return self._folder, self._sha

    def _ask(self, gone: threading.Event) -> Any:
        return persisted(self._info, gone)

    def _info(self) -> Any:
        api = HfApi(endpoint=endpoint(), token=self.token or False)
        try:
            return api.model_info(self._id, revision=self._revision, files_metadata=True, timeout=TIMEOUT_S)
        except (ValueError, KeyError, TypeError) as error:
            raise no_hub() from error

    @property
    def _folder(self) -> Path:
        return repo_folder(self._cache, self._id) / "snapshots" / self._sha

    def _is_here(self, file: File) -> bool:
        return isinstance(try_to_load_from_cache(self._id, file.name, self._cache, self._sha), str)

    def _require_space(self, missing: list[File]) -> None:
        new = [file for file in missing if not self._blob(file).exists()]  # other revisions may have it
        if not new:
            return
        for folder in (self._blob(new[0]).parent, self._locks):
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                said = error.strerror or type(error).__name__
                raise Refused(
                    f"the Hugging Face cache {self._cache} cannot be written ({said}): set HF_HOME to a folder that "
                    "can be, where the daemon is started",
                    "source",
                ) from error
        require_space(self._cache, sum(file.size - _size(self._partial(file)) for file in new))

    @property
    def _locks(self) -> Path:
        return self._cache / ".locks" / repo_folder(self._cache, self._id).name

    def _blob(self, file: File) -> Path:
        return repo_folder(self._cache, self._id) / "blobs" / file.etag

    def _partial(self, file: File) -> Path:
        return self._blob(file).with_name(f"{file.etag}.incomplete")

    def _fetch(self, files: list[File]) -> None:
        for file in files:
            answered(self._link, lambda gone, file=file: self._fetch_one(file, gone), self._tell)  # type: ignore[misc]

    def _tell(self) -> None:
        self._link.progress("download", self._come, self._total, "bytes")

    def _fetch_one(self, file: File, gone: threading.Event) -> None:
        """Bring the blob into the cache and let huggingface_hub put it under its name."""
        blob = self._blob(file)
        with WeakFileLock(self._locks / f"{file.etag}.lock"):  # the same as huggingface_hub's
            if blob.exists():
                self._come += file.size
            else:
                with self._partial(file).open("ab+") as partial:
                    self._fill(file, partial, gone)
                self._partial(file).replace(blob)
        hf_hub_download(
            self._id,
            file.name,
            revision=self._sha,
            cache_dir=self._cache,
            endpoint=endpoint(),
            token=self.token or False,
        )

    def _fill(self, file: File, partial: BinaryIO, gone: threading.Event) -> None:
        """Append what is missing; from the start when what an earlier job left was not the beginning of this file."""
        was_left = _size(self._partial(file)) > 0
        if self._complete(file, partial, gone) or (was_left and self._complete(file, partial, gone)):
            return
        raise Refused(f"{file.name} of {self._id} came damaged: its hash is not the Hub's; retry the job", "source")

    def _complete(self, file: File, partial: BinaryIO, gone: threading.Event) -> bool:
        """Whether the whole has the hash that the Hub states; nothing of it is kept when it has not."""
        begin = self._come
        digest = hashlib.sha256() if file.is_lfs else hashlib.sha1(b"blob %d\0" % file.size)
        partial.seek(0)
        while piece := partial.read(_READ_BYTES):
            digest.update(piece)
        self._come += partial.tell()
        persisted(lambda: self._append(file, partial, digest, gone), gone, lambda: self._come)
        if partial.tell() == file.size and digest.hexdigest() == file.etag:
            partial.flush()
            os.fsync(partial.fileno())
            return True
        partial.seek(0)
        partial.truncate()
        self._come = begin
        return False

    def _append(self, file: File, partial: BinaryIO, digest: Any, gone: threading.Event) -> None:
        here = partial.tell()
        if here >= file.size:
            return
        headers = build_hf_headers(token=self.token or False) | {"Accept-Encoding": "identity"}
        if here:
            headers["Range"] = f"bytes={here}-"
        url = hf_hub_url(self._id, file.name, revision=self._sha, endpoint=endpoint())
        with get_session().stream("GET", url, headers=headers, timeout=TIMEOUT_S, follow_redirects=True) as answer:
            hf_raise_for_status(answer)
            skip = here if answer.status_code == 200 else 0  # whoever knows no ranges sends it all again
            for piece in answer.iter_bytes():
                if gone.is_set():
                    raise Gone
                skip, piece = max(skip - len(piece), 0), piece[skip:]
                if partial.tell() + len(piece) > file.size:
                    return  # more than there is: the hash will not be the right one
                partial.write(piece)
                digest.update(piece)
                self._come += len(piece)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
