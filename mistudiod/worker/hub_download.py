"""Files of a repository of the Hub in this machine's Hugging Face cache: each fetched once, whole or not at all.

huggingface_hub knows the Hub and the cache; the bytes are fetched here, because its own download begins again when its
process has ended, and cannot be stopped. What has come lies as ``blobs/<etag>.incomplete`` until it is whole and its
hash is the one that the Hub states.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from huggingface_hub import HfApi, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.utils import WeakFileLock, build_hf_headers, get_session, hf_raise_for_status

from mistudiod.hub_cache import repo_folder
from mistudiod.paths import require_space
from mistudiod.worker.hub import TIMEOUT_S, Gone, answered, endpoint, persisted
from mistudiod.worker.hub_files import File, no_hub
from mistudiod.worker.link import Link, Refused

_READ_BYTES = 1 << 20


def repo_info(id: str, revision: str | None, link: Link, files: bool = False) -> Any:
    """What the Hub says of a model's repository; ``files``: of each with its size and hash too.

    Raises what huggingface_hub does, and Refused when it is not the Hub that answers.
    """
    api = HfApi(endpoint=endpoint(), token=link.secret("hf") or False)

    def ask() -> Any:
        try:
            return api.model_info(id, revision=revision, files_metadata=files, timeout=TIMEOUT_S)
        except (ValueError, KeyError, TypeError) as error:
            raise no_hub() from error

    return answered(link, lambda gone: persisted(ask, gone))


class Download:
    """Files of a model's repository, at one commit, on their way into the cache. ``token``: None for nobody's.

    Raises what huggingface_hub does, Refused with the reason, and Asked within a second of a stop.
    """

    def __init__(self, id: str, sha: str, cache: Path, link: Link) -> None:
        self._id, self._sha, self._cache, self._link = id, sha, cache, link
        self._token = link.secret("hf")
        self._total = 0  # bytes of all files
        self._come = 0  # bytes of them that are here

    @property
    def folder(self) -> Path:
        """Of the snapshot, where each file lies under its name."""
        return repo_folder(self._cache, self._id) / "snapshots" / self._sha

    def missing(self, files: Sequence[File]) -> list[File]:
        """Those that are not here yet, for which there is room. Raises DiskFull before the first byte has come."""
        missing = [file for file in files if not self._is_here(file)]
        self._total = sum(file.size for file in files)
        self._come = self._total - sum(file.size for file in missing)
        self._require_space(missing)
        return missing

    def fetch(self, files: Sequence[File]) -> None:
        """Of those that were missing."""
        for file in files:
            answered(self._link, lambda gone, file=file: self._fetch_one(file, gone), self._tell)  # type: ignore[misc]

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
            token=self._token or False,
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
        headers = build_hf_headers(token=self._token or False) | {"Accept-Encoding": "identity"}
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
