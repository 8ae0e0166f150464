"""Publish an SAE on the Hub: what is there already is not sent again, and what is there otherwise stays.

Sent are SAELens' folder and its card. The repository is looked at first, and the commit is made on top of what was
seen: what somebody else has put there meanwhile is not lost.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from mistudiod.hub_cache import is_offline
from mistudiod.specs import Push
from mistudiod.worker.hub import page
from mistudiod.worker.hub_push import Outgoing, Repository, outgoing
from mistudiod.worker.link import Link, Refused
from mistudiod.worker.push_files import published
from mistudiod.worker.shared import CARD


def run(spec: Push, link: Link) -> None:
    """The result says of each file whether it was new, the same or other there, and the commit that holds them all."""
    if is_offline(os.environ):
        raise Refused(
            "miStudio is offline, so nothing can be published: unset the setting offline and the variable "
            "HF_HUB_OFFLINE, then retry the job",
            "repo",
        )
    _check_repo(spec.repo)
    top = PurePosixPath(spec.path)
    repository = Repository(spec.repo, link)
    with published(spec.sae, link) as folder, outgoing(_named(folder, top), link) as ours:
        link.progress("ask the Hub", 0, 1)
        repository.require_token()
        found = repository.look()
        states = _states(ours, found)
        _refuse(spec, found, states)
        if spec.dry_run:
            card = (folder / CARD).read_text(encoding="utf-8")
            link.result({**_result(spec, ours, states, found), "card": card})
            return
        if found is None:
            repository.make(spec.private)
        sha = _send(spec, repository, ours, states)
        seen = repository.look(sha)
        _check_there(spec, ours, seen)
        link.result({**_result(spec, ours, states, seen), "made": found is None, "commit": sha})


def _send(spec: Push, repository: Repository, ours: list[Outgoing], states: dict[str, str]) -> str:
    """The commit that holds all files."""
    before = repository.look()
    if before is None or (spec.private and not before.private):
        raise Refused(f"{spec.repo} is not as it was made: look at {page('model', spec.repo)}, then retry", "repo")
    if _states(ours, before) != {one.title: states[one.title] for one in ours}:
        raise Refused(f"{page('model', spec.repo)} was changed meanwhile: retry the job, which looks again", "repo")
    left = [one for one in ours if states[one.title] != "same"]
    if not left:
        return str(before.sha)
    return repository.send(left, str(before.sha), spec.message or f"{spec.sae}, a sparse autoencoder")


def _states(ours: list[Outgoing], found: Any | None) -> dict[str, str]:
    """Of each file whether it is ``new``, the ``same`` there, or ``other``."""
    there = {one.rfilename: one for one in found.siblings or ()} if found else {}
    return {
        one.title: "new" if one.title not in there else "same" if one.is_at(there[one.title]) else "other"
        for one in ours
    }


def _refuse(spec: Push, found: Any | None, states: dict[str, str]) -> None:
    """Raises Refused for a repository that cannot be what was asked for."""
    if found is not None and spec.private and not found.private:
        raise Refused(
            f"{spec.repo} is there already, and everybody sees it: make it private at "
            f"{page('model', spec.repo)}/settings, or publish without private",
            "private",
        )
    others = [name for name, state in states.items() if state == "other"]
    if others and not spec.overwrite:
        raise Refused(
            f"{spec.repo} has other files in the place of {', '.join(others)}: publish under another name or path, or "
            "with overwrite, which replaces them",
            "overwrite",
        )


def _check_there(spec: Push, ours: list[Outgoing], seen: Any | None) -> None:
    wrong = [name for name, state in _states(ours, seen).items() if state != "same"]
    if wrong:
        raise Refused(
            f"{', '.join(wrong)} did not come to {spec.repo} as sent: see whether its .gitignore leaves them out, then "
            "retry the job",
            "repo",
        )


def _result(spec: Push, ours: list[Outgoing], states: dict[str, str], found: Any | None) -> dict[str, Any]:
    """``sent_bytes``: of what was or, of a dry run, would be new there."""
    files = [{"file": one.title, "bytes": one.bytes, "sha256": one.sha256, "state": states[one.title]} for one in ours]
    return {
        "sae": spec.sae,
        "repo": spec.repo,
        "url": page("model", spec.repo),
        "private": spec.private if found is None else bool(found.private),
        "made": found is None,
        "files": files,
        "sent_bytes": sum(one.bytes for one in ours if states[one.title] != "same"),
        "dry_run": spec.dry_run,
    }


def _check_repo(id: str) -> None:
    try:
        validate_repo_id(id)
    except HFValidationError as error:
        raise Refused(f"{id} cannot be a repository of the Hub: {error}", "repo") from error


def _named(folder: Path, top: PurePosixPath) -> dict[str, Path]:
    """Name in the repository → file."""
    return {str(top / place.name): place for place in sorted(folder.iterdir())}
