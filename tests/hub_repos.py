"""The repositories of the tests' Hub, and how its API describes them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import struct
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

LFS_SUFFIXES = (".safetensors", ".bin", ".parquet", ".arrow", ".gz", ".zst", ".zip", ".pt", ".h5")
LFS_BYTES = 10 << 20  # larger files are in LFS whatever they are called
_DATE = "2024-01-01T00:00:00.000Z"


@dataclass(frozen=True)
class File:
    path: str  # in the repository
    place: Path
    size: int  # bytes
    sha1: str  # as git names the blob
    sha256: str

    @property
    def is_lfs(self) -> bool:
        return self.path.endswith(LFS_SUFFIXES) or self.size > LFS_BYTES

    @property
    def etag(self) -> str:
        return self.sha256 if self.is_lfs else self.sha1

    def entry(self) -> dict[str, Any]:
        """As ``tree`` and ``paths-info`` list it."""
        found: dict[str, Any] = {"type": "file", "oid": self.sha1, "size": self.size, "path": self.path}
        if self.is_lfs:
            found["lfs"] = {"oid": self.sha256, "size": self.size, "pointerSize": 134}
        return found

    def sibling(self, blobs: bool) -> dict[str, Any]:
        """As ``info`` lists it."""
        found: dict[str, Any] = {"rfilename": self.path}
        if blobs:
            found |= {"size": self.size, "blobId": self.sha1}
            if self.is_lfs:
                found["lfs"] = {"sha256": self.sha256, "size": self.size, "pointerSize": 134}
        return found


@dataclass
class Repo:
    kind: str  # models or datasets
    id: str
    gated: bool = False
    private: bool = False
    commits: dict[str, dict[str, File]] = field(default_factory=dict)  # sha → path → file
    messages: dict[str, str] = field(default_factory=dict)  # sha → first line of the commit's message
    refs: dict[str, str] = field(default_factory=dict)  # branch or tag → sha

    @property
    def owner(self) -> str:
        return self.id.partition("/")[0]

    def commit(self, revision: str) -> str | None:
        sha = self.refs.get(revision, revision)
        return sha if sha in self.commits else None

    def add(self, folder: Path) -> str:
        """Commit what ``folder`` holds to main; returns the sha."""
        places = sorted(place for place in folder.rglob("*") if place.is_file())
        files = {path: file_at(path, place) for place in places for path in [str(place.relative_to(folder))]}
        return self.commit_files(files)

    def newest(self) -> tuple[str, dict[str, File]]:
        """The sha of main's commit, and a copy of its files."""
        sha = self.refs["main"]
        return sha, dict(self.commits[sha])

    def commit_files(self, files: dict[str, File], message: str = "") -> str:
        """Let main be a commit of these files; returns the sha."""
        listing = json.dumps([self.id, [(path, file.etag) for path, file in files.items()], *filter(None, [message])])
        sha = hashlib.sha1(listing.encode()).hexdigest()
        self.commits[sha], self.messages[sha] = files, message
        self.refs["main"] = sha
        return sha


def file_at(path: str, place: Path) -> File:
    """The file of a repository that lies on this machine at ``place``."""
    size = place.stat().st_size
    sha1, sha256 = hashlib.sha1(b"blob %d\0" % size), hashlib.sha256()
    with place.open("rb") as opened:
        while piece := opened.read(1 << 20):
            sha1.update(piece)
            sha256.update(piece)
    return File(path, place, size, sha1.hexdigest(), sha256.hexdigest())


def entries(files: dict[str, File], top: str, recursive: bool) -> list[dict[str, Any]]:
    """Files and folders below the folder ``top``."""
    found: dict[str, dict[str, Any]] = {}
    start = f"{top}/" if top else ""
    for file in files.values():
        if not file.path.startswith(start):
            continue
        names = file.path.removeprefix(start).split("/")
        for depth in range(1, len(names) if recursive else min(len(names), 2)):
            path = start + "/".join(names[:depth])
            found[path] = {"type": "directory", "oid": hashlib.sha1(path.encode()).hexdigest(), "size": 0, "path": path}
        if recursive or len(names) == 1:
            found[file.path] = file.entry()
    return [found[path] for path in sorted(found)]


def info(repo: Repo, sha: str, files: dict[str, File], blobs: bool) -> dict[str, Any]:
    card = _card(files)
    tags = [f"license:{card['license']}"] if "license" in card else []
    return {
        "_id": hashlib.sha1(repo.id.encode()).hexdigest()[:24],
        "id": repo.id,
        **({"modelId": repo.id} if repo.kind == "models" else {}),
        "author": repo.id.partition("/")[0],
        "sha": sha,
        "private": repo.private,
        "gated": "manual" if repo.gated else False,
        "disabled": False,
        "createdAt": _DATE,
        "lastModified": _DATE,
        "downloads": 0,
        "likes": 0,
        "tags": tags,
        **({"cardData": card} if card else {}),
        **(_of_model(files) if repo.kind == "models" else {}),
        "siblings": [file.sibling(blobs) for file in files.values()],
    }


def _of_model(files: dict[str, File]) -> dict[str, Any]:
    """What the Hub reads out of a model's config and the headers of its weights, and tells of closed ones too."""
    found: dict[str, Any] = {}
    if "config.json" in files:
        with contextlib.suppress(ValueError):
            config = json.loads(files["config.json"].place.read_text())
            found["config"] = {"model_type": config["model_type"]} if "model_type" in config else {}
    if "model.safetensors" in files:
        content = files["model.safetensors"].place
        with content.open("rb") as file, contextlib.suppress(ValueError, struct.error):  # a file that is none
            length = min(struct.unpack("<Q", file.read(8))[0], content.stat().st_size)
            numbers: Counter[str] = Counter()
            for name, tensor in json.loads(file.read(length)).items():
                if name != "__metadata__":
                    numbers[tensor["dtype"]] += math.prod(tensor["shape"])
            found["safetensors"] = {"parameters": dict(numbers), "total": sum(numbers.values())}
    return found


def _card(files: dict[str, File]) -> dict[str, Any]:
    """The YAML at the top of README.md."""
    text = files["README.md"].place.read_text() if "README.md" in files else ""
    parts = text.split("---\n", 2)
    return dict(yaml.safe_load(parts[1])) if text.startswith("---\n") and len(parts) == 3 else {}
