"""The specs of the SAE library: SAEs brought in, proved, written in other formats, and published."""

from __future__ import annotations

import os
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from mistudiod.specs.base import Name, Spec, check_name
from mistudiod.specs.data import is_revision

SAE_SOURCE = (
    "owner/name of a repository of the Hub, also owner/name:path of one SAE in it; a folder or file of the studio's "
    "machine"
)
Format = Literal["saelens", "sparsify", "dictionary_learning", "gemma_scope_npz", "neuronpedia", "saedashboard", "zip"]
_REPO = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*/[A-Za-z0-9_][A-Za-z0-9._-]*")


_PLACE = re.compile(rf"(upload:[0-9a-f]{{32}}|{_REPO.pattern})(?::(.*))?", re.DOTALL)


def sae_place(source: str) -> tuple[str, str | None]:
    """A source's repository or upload, and what is named in it; of a path of a disk all, and None: see ``sae_file``."""
    match = _PLACE.fullmatch(source)
    return (match[1], match[2]) if match else (source, None)


def sae_file(source: str) -> tuple[str, str | None]:
    """A source's folder or file on this machine, ``~`` as it stands, and what is named in it: ``/saes/gpt2:layer_3``.

    What comes after a colon is part of a name that there is.
    """
    place, colon, path = source.rpartition(":")
    try:
        return (place, path) if colon and not os.path.lexists(os.path.expanduser(source)) else (source, None)
    except ValueError:  # a NUL in it
        return source, None


def is_sae_repo(place: str) -> bool:
    return _REPO.fullmatch(place) is not None


def _revision(revision: str | None, info: ValidationInfo) -> str | None:
    if revision is not None and not is_revision(revision):
        raise ValueError("must be the name of a branch or tag, or the sha of a commit")
    source = info.data.get("source")  # absent when it was wrong itself
    if revision is not None and source is not None and not is_sae_repo(sae_place(source)[0]):
        raise ValueError("is for a repository of the Hub: leave it out")
    return revision


Revision = Annotated[str | None, AfterValidator(_revision)]


def _repo(text: str) -> str:
    if not _REPO.fullmatch(text):
        raise ValueError("must be owner/name, as the repository is called on the Hub")
    return text


_FORBIDDEN = (".", "..", ".git", ".cache")  # names in a path of a repository


def _folder(path: str) -> str:
    if any(name in _FORBIDDEN for name in path.split("/")) or path.startswith("/") or re.search(r"[\\\0\r\n]", path):
        raise ValueError("must be a plain folder of the repository, as sae/blocks.8, or be left out for its top")
    return path


class AddSae(Spec):
    """Bring in an SAE that somebody has published, or a file of one."""

    kind: Literal["add_sae"] = "add_sae"
    source: str = Field(min_length=1, max_length=4096, description=SAE_SOURCE)
    name: Name = Field(description="what to call it")
    model: Name | None = Field(
        None, description="the studio's name of the model that it reads; found by what the SAE says when not given"
    )
    hook: str | None = Field(
        None, max_length=200, description="TransformerLens' name of what it reads, where the files do not say it"
    )
    revision: Revision = Field(None, max_length=200, description="branch, tag or commit of a repository of the Hub")
    allow_pickle: bool = Field(
        False, description="also .pt and .pth: converted in a process of their own, and never executed"
    )


class PreviewSae(Spec):
    """See which SAEs there are in a source. A preview: nothing is stored, and of the Hub no weights are downloaded."""

    kind: Literal["preview_sae"] = "preview_sae"
    source: str = Field(min_length=1, max_length=4096, description=SAE_SOURCE)
    revision: Revision = Field(None, max_length=200, description="branch, tag or commit of a repository of the Hub")


class Certify(Spec):
    """Run an SAE on held-out text, in each way in which it may have been meant, and say which holds."""

    kind: Literal["certify"] = "certify"
    sae: Name = Field(description="name of the SAE")
    tokenization: Name | None = Field(
        None, description="the text; that of its training when not given, else the newest of its model"
    )
    tokens: int = Field(4096, ge=512, le=1_000_000, description="held-out tokens to run it on")
    repair: bool = Field(
        False, description="where another way holds, also write the SAE as it was meant, under its name with -repaired"
    )

    @property
    def repaired(self) -> str:
        """What the SAE as it was meant is called."""
        return f"{self.sae}-repaired"

    @model_validator(mode="after")
    def _has_room_for_the_name(self) -> Certify:
        if self.repair:
            try:
                check_name(self.repaired)
            except ValueError:
                raise ValueError(f"{self.repaired} would be too long a name for the SAE as it was meant") from None
        return self


class Export(Spec):
    """Write an SAE as another library reads it."""

    kind: Literal["export"] = "export"
    sae: Name = Field(description="name of the SAE")
    format: Format = Field("saelens", description="whose format")
    labels: bool = Field(True, description="what its features are called goes with it")


class Push(Spec):
    """Publish an SAE on the Hub, with its card; what is there otherwise stays."""

    kind: Literal["push"] = "push"
    sae: Name = Field(description="name of the SAE")
    repo: Annotated[str, AfterValidator(_repo)] = Field(description="owner/name of the repository, made when missing")
    path: Annotated[str, AfterValidator(_folder)] = Field(
        "", max_length=500, description="folder in the repository; its top when empty"
    )
    private: bool = Field(False, description="nobody else sees a repository that is made")
    message: str | None = Field(None, min_length=1, max_length=500, description="of the commit")
    overwrite: bool = Field(False, description="take the place of files of another content")
    dry_run: bool = Field(False, description="only say what would be uploaded")


class Upload(Spec):
    """Put the newest features of an SAE, with their labels, on Neuronpedia by its own interface."""

    kind: Literal["upload"] = "upload"
    sae: Name = Field(description="name of the SAE")
    model_id: str | None = Field(
        None,
        min_length=2,
        max_length=32,
        description="what Neuronpedia calls the model; by its name when not given",
    )
    set: str | None = Field(
        None, min_length=1, max_length=64, description="set of sources there; made of hook and SAE when not given"
    )
    description: str | None = Field(None, min_length=1, max_length=128, description="of the set, where it is made")
    labels: bool = Field(True, description="what its features are called goes with it")
