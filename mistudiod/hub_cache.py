"""The machine's Hugging Face cache: where it is and which models lie in it. Standard library only.

Layout: https://huggingface.co/docs/huggingface_hub/guides/manage-cache. Names and sizes are looked at, no file is read
but the few bytes of a ref: what is in a foreign file is for a worker to find out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mistudiod.paths import join

MAIN = "main"  # the branch that is meant when none is named
CONFIG, TOKENIZER = "config.json", "tokenizer.json"
# What a model needs beside its weights; README.md because the licence stands there.
SMALL_FILES = frozenset(
    f"{CONFIG} generation_config.json {TOKENIZER} tokenizer_config.json special_tokens_map.json added_tokens.json "
    "vocab.json vocab.txt merges.txt tokenizer.model spiece.model chat_template.jinja chat_template.json README.md "
    "model.safetensors.index.json".split()
)
_SINGLE = "model.safetensors"
_SHARD = re.compile(r"model-(\d+)-of-(\d+)\.safetensors")
_SHA = re.compile(r"[0-9a-f]{40}")
_TRUE = {"1", "ON", "YES", "TRUE"}
_REF_BYTES = 100


@dataclass(frozen=True)
class CachedModel:
    id: str  # on the Hub, as org/name
    revision: str  # sha of the commit
    refs: tuple[str, ...]  # branches and tags that were at this commit when they were last asked for
    path: Path  # folder of the snapshot
    size_bytes: int  # of the weights that are there
    is_whole: bool  # config, tokenizer and all weights are there: it can be added without the Hub


def is_offline(environ: Mapping[str, str]) -> bool:
    """Whether the Hub must not be asked, by the variables that huggingface_hub obeys."""
    return (environ.get("HF_HUB_OFFLINE") or environ.get("TRANSFORMERS_OFFLINE") or "").upper() in _TRUE


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Where huggingface_hub keeps what it downloads, by the variables that it obeys."""
    home = environ.get("HF_HOME") or os.path.join(
        environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache"), "huggingface"
    )
    hub = environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE") or os.path.join(home, "hub")
    return Path(os.path.abspath(os.path.expandvars(os.path.expanduser(hub))))


def repo_folder(cache: Path, id: str) -> Path:
    """Where all that the cache has of a model lies."""
    return cache / f"models--{id.replace('/', '--')}"


def weight_names(names: Iterable[str]) -> list[str]:
    """Of the names in a model's folder those of its weights: one file, or its shards; copies of them left out."""
    found = sorted(names)
    return [_SINGLE] if _SINGLE in found else [name for name in found if _SHARD.fullmatch(name)]


def cached_models(environ: Mapping[str, str]) -> list[CachedModel]:
    """Every snapshot of a model in the machine's cache that has a config, by id and revision."""
    found = []
    for repo in _folders(cache_folder(environ)):
        kind, _, id = repo.name.partition("--")
        if kind == "models" and id:
            id = id.replace("--", "/")
            found += [cached for cached in _snapshots(repo, id) if (cached.path / CONFIG).is_file()]
    return sorted(found, key=lambda cached: (cached.id.lower(), cached.revision))


def find_cached(cache: Path, id: str, revision: str | None) -> CachedModel | None:
    """The snapshot of a branch, tag or commit; of the only commit that is there when none is named. None: not there."""
    repo = repo_folder(cache, id)
    snapshots = {cached.revision: cached for cached in _snapshots(repo, id)}
    sha = revision if revision in snapshots else _read_ref(repo, revision or MAIN)
    if revision is None and sha not in snapshots and len(snapshots) == 1:
        return next(iter(snapshots.values()))
    return snapshots.get(sha or "")


def write_ref(cache: Path, id: str, revision: str, sha: str) -> None:
    """Note that a branch or tag is at a commit, as every other user of the cache expects it."""
    path = join(repo_folder(cache, id) / "refs", revision)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    partial.write_text(sha)
    partial.replace(path)


def _snapshots(repo: Path, id: str) -> list[CachedModel]:
    refs: dict[str, list[str]] = {}
    for path in sorted((repo / "refs").rglob("*")):
        name = str(path.relative_to(repo / "refs"))
        refs.setdefault(_read_ref(repo, name) or "", []).append(name)
    return [_snapshot(folder, id, refs) for folder in _folders(repo / "snapshots") if _SHA.fullmatch(folder.name)]


def _snapshot(folder: Path, id: str, refs: Mapping[str, list[str]]) -> CachedModel:
    sizes = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
    weights = weight_names(sizes)
    return CachedModel(
        id=id,
        revision=folder.name,
        refs=tuple(refs.get(folder.name, ())),
        path=folder,
        size_bytes=sum(sizes[name] for name in weights),
        is_whole=CONFIG in sizes and TOKENIZER in sizes and _are_all(weights),
    )


def _are_all(weights: list[str]) -> bool:
    """Whether no shard is missing; their names tell how many there are."""
    shards = [match for match in map(_SHARD.fullmatch, weights) if match]
    return bool(weights) and (not shards or {int(shard[1]) for shard in shards} == set(range(1, int(shards[0][2]) + 1)))


def _read_ref(repo: Path, name: str) -> str | None:
    try:
        with join(repo / "refs", name).open() as file:
            sha = file.read(_REF_BYTES).strip()
    except (OSError, ValueError):  # not there, or not text
        return None
    return sha if _SHA.fullmatch(sha) else None


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:
        return []
