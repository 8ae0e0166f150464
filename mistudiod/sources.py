"""Whose file is it? Which paths a job may read, and for whom: one answer for models, datasets and SAEs.

The daemon reads with its own user's rights, so a caller who is somebody else must not name whatever it likes. Such a
caller may name what it has uploaded, and what lies, links followed, in ``<data>/incoming`` or in a folder of the
setting ``allowed_paths``.

What remains: the worker opens a path later than it is checked here, and a model is read in place for as long as it is
registered. Who may write in an allowed folder, which takes an account on this machine, can put a link there meanwhile.
So allowed folders must be writable for trusted users only. Uploads are not concerned: there lie nothing but regular
files that the daemon has made itself.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from mistudiod.errors import Invalid, NotFound, StoreError
from mistudiod.jobs import ENDED, State
from mistudiod.paths import Paths
from mistudiod.specs import (
    AddModel,
    AddSae,
    PreviewModel,
    PreviewSae,
    Spec,
    is_hub_id,
    is_sae_repo,
    sae_file,
    sae_place,
)
from mistudiod.store import Jobs
from mistudiod.uploads import Uploads

log = logging.getLogger("mistudiod.sources")
S = TypeVar("S", bound=Spec)
UPLOAD, BUILTIN, HUB_DATASET = "upload:", "builtin:", "hf://datasets/"
SWEEP_EVERY_S = 60.0
_MAX_ENTRIES = 200_000  # of a folder; more would take seconds to look at
_NEWEST = 1000  # finished jobs among which the reader of an upload is looked for; older uploads end by their age


async def resolve(spec: S, asked_by_same_user: bool, allowed: Collection[Path], paths: Paths, uploads: Uploads) -> S:
    """The spec, when its ``source`` may be read for the caller. Raises Invalid with the field ``source``.

    ``builtin:`` (there is no SAE of that kind) and ``upload:`` stay as they are, the worker knows both; so does a path
    of the daemon's own user. Of anybody else's path the links are followed, so that what was checked is what is opened.
    """
    source, is_sae = getattr(spec, "source", None), isinstance(spec, AddSae | PreviewSae)
    if source is None or (source.startswith(BUILTIN) and not is_sae):
        return spec
    if source.startswith(UPLOAD):
        await _require_complete(sae_place(source)[0] if is_sae else source, uploads)
        return spec
    if asked_by_same_user:
        return spec
    if is_sae:
        if is_sae_repo(sae_place(source)[0]):
            return spec
        return spec.model_copy(update={"source": await asyncio.to_thread(_readable_sae, source, allowed, paths)})
    if is_hub_id(source.removeprefix(HUB_DATASET)):
        return spec if isinstance(spec, AddModel | PreviewModel) else _of_the_hub(spec, source)
    return spec.model_copy(update={"source": str(await asyncio.to_thread(_readable, source, allowed, paths))})


def _of_the_hub(spec: S, source: str) -> S:
    """A dataset of the Hub, beyond doubt: a relative path looks the same, and none of this machine's may be meant."""
    return spec.model_copy(update={"source": HUB_DATASET + source.removeprefix(HUB_DATASET)})


async def _require_complete(source: str, uploads: Uploads) -> None:
    try:
        upload = await uploads.get(source.removeprefix(UPLOAD))
    except NotFound as error:
        raise _refusal(f"{error.message}: a job has used it, or it was removed after 7 days; send it again") from None
    if not upload["complete"]:
        raise _refusal(
            f"the upload {upload['name']} is not complete: {upload['received_bytes']:,} of {upload['bytes']:,} bytes "
            "are here; send the rest"
        )


def _refusal(message: str) -> Invalid:
    return Invalid(message, {"source": message})


def _readable_sae(source: str, allowed: Collection[Path], paths: Paths) -> str:
    """As ``_readable``, with what is named in the folder. Beside a file its configs are read: no link may lead out."""
    place, named = sae_file(source)
    path = _readable(place, allowed, paths, source)
    if not path.is_dir():
        may_read = _rule(allowed, paths)
        if any(is_link and not may_read(Path(os.path.realpath(one))) for one, is_link, _ in _entries(path.parent)):
            raise _refusal(f"beside {path} lies a link that leads out of what may be read: remove the link")
    return str(path) if named is None else f"{path}:{named}"


def _readable(source: str, allowed: Collection[Path], paths: Paths, shown: str | None = None) -> Path:
    """The path without links. The refusal is the same whether there is such a file or not: nobody can probe for it.

    ``shown``: what a refusal calls it.
    """
    refusal = _refusal(
        f"{(shown or source)[:200]!r} may not be read from here: upload it, put it into {paths.incoming} on the "
        "studio's machine, or have its folder added to the setting allowed_paths there"
    )
    if not source.startswith("/"):
        raise refusal
    try:
        path = Path(os.path.realpath(source))
    except (OSError, ValueError):  # a NUL in it, say
        raise refusal from None
    may_read = _rule(allowed, paths)
    if not may_read(path):
        raise refusal
    if path.is_dir():
        _refuse_links_out(path, may_read)
    return path


def _rule(allowed: Collection[Path], paths: Paths) -> Callable[[Path], bool]:
    """Whether a path without links may be read: in a folder that is allowed, and not in the studio's own."""
    data, incoming = Path(os.path.realpath(paths.data)), Path(os.path.realpath(paths.incoming))
    roots = [Path(os.path.realpath(folder)) for folder in allowed]

    def may_read(path: Path) -> bool:
        if path.is_relative_to(incoming):
            return True
        # Nor a folder that holds the data folder: the studio's tokens and secrets lie there.
        if path.is_relative_to(data) or data.is_relative_to(path):
            return False
        return any(path.is_relative_to(root) for root in roots)

    return may_read


def _refuse_links_out(top: Path, may_read: Callable[[Path], bool]) -> None:
    """Raises Invalid for a link, at any depth and through any links, that leads to what may not be read."""
    seen: set[Path] = set()
    waiting, entries = [top], 0
    while waiting:
        folder = waiting.pop()
        if folder in seen:
            continue
        seen.add(folder)
        for path, is_link, is_folder in _entries(folder):
            entries += 1
            if entries > _MAX_ENTRIES:
                raise _refusal(f"{top} has more than {_MAX_ENTRIES:,} files: name a folder further down")
            if is_link:
                path = Path(os.path.realpath(path))
                if not may_read(path):
                    raise _refusal(f"{top} holds a link that leads out of what may be read: remove the link")
                is_folder = path.is_dir()
            if is_folder:
                waiting.append(path)


def _entries(folder: Path) -> list[tuple[Path, bool, bool]]:
    try:
        with os.scandir(folder) as found:
            return [(Path(one.path), one.is_symlink(), one.is_dir(follow_symlinks=False)) for one in found]
    except OSError:  # it cannot be read, and so the worker will say
        return []


async def unfinished(jobs: Jobs) -> set[str]:
    """The sources of all jobs that have not ended."""
    found = set()
    for job in await jobs.in_state(*(set(State) - ENDED)):
        try:
            found.add(_source_of(await jobs.get(job)))
        except NotFound:  # it was removed meanwhile
            continue
    return found


def _source_of(job: Mapping[str, Any]) -> str:
    """Of an upload without what is named in it."""
    return sae_place(str(job["spec"].get("source")))[0]


async def let_go(uploads: Uploads, jobs: Jobs, job: int) -> None:
    """Remove the upload that a job has used, before the job is removed: nothing else tells of it. Raises NotFound."""
    found = await jobs.get(job)
    if found["state"] == State.DONE and (source := _source_of(found)).startswith(UPLOAD):
        try:
            await uploads.sweep(await unfinished(jobs), {source})
        except OSError as error:
            log.warning("the upload of job %s cannot be removed: %s", job, error)


async def sweep(uploads: Uploads, jobs: Jobs) -> list[str]:
    """Remove the uploads that jobs have used, and those that nobody has touched for 7 days; returns their ids."""
    if not await uploads.all():
        return []
    done = {_source_of(job) for job in await jobs.newest(_NEWEST, state=State.DONE)}
    removed = await uploads.sweep(await unfinished(jobs), done)
    for id in removed:
        log.info("removed the upload %s", id)
    return removed


async def sweeping(uploads: Uploads, jobs: Jobs) -> None:
    """Sweep once a minute until cancelled."""
    while True:
        try:
            await sweep(uploads, jobs)
        except (OSError, StoreError) as error:
            log.warning("the uploads cannot be swept: %s", error)
        await asyncio.sleep(SWEEP_EVERY_S)
