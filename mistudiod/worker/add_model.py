"""Register a language model: check that the folder holds one, and note what it is.

The weights stay where they are; those of an uploaded model, which would go with the upload, become the model's own.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

from tokenizers import Tokenizer

import mistudiod.demo
from mistudiod.facts import UnknownModel, hook_names, read_facts
from mistudiod.paths import PARTIAL, publish, require_space
from mistudiod.specs import AddModel
from mistudiod.worker.link import Link, Refused
from mistudiod.worker.uploaded import is_upload, keep, place

BUILTIN = {"pico": Path(mistudiod.demo.__file__).parent / "pico"}
_OWN = "files"  # folder of the weights that came by upload


def run(spec: AddModel, link: Link) -> None:
    """Write ``models/<name>/model.json``; its contents are the job's result."""
    final = link.paths.artifact("model", spec.name)
    if final.exists():
        found = _registered(final, spec)
    else:
        link.progress("read", 0, 1)
        folder = _folder(spec.source, place(spec.source, link))
        found = describe(folder, spec)
        link.check()
        if is_upload(spec.source):
            found["path"] = str(final / _OWN)
            _write(final, found, folder)
        else:
            _write(final, found)
        link.progress("read", 1, 1)
    link.artifact("model", spec.name)
    link.result(found)


def describe(folder: Path, spec: AddModel) -> dict[str, object]:
    """What ``model.json`` says; raises Refused."""
    try:
        facts = read_facts(folder)
    except UnknownModel as error:
        raise Refused(str(error), field="source") from error
    _check_tokenizer(folder)
    known = {"name": spec.name, "source": spec.source, "path": str(folder)}
    return known | asdict(facts) | {"hooks": hook_names(facts)}


def _folder(source: str, place: str) -> Path:
    """``place`` is where the source lies."""
    if source.startswith("builtin:"):
        name = source.removeprefix("builtin:")
        if name not in BUILTIN:
            known = ", ".join(f"builtin:{known}" for known in BUILTIN)
            raise Refused(f"there is no {source}: the models that come with miStudio are {known}", field="source")
        return BUILTIN[name]
    path = os.path.expanduser(place)
    if os.path.isabs(path) and os.path.isdir(path):
        return Path(path).resolve()
    if os.path.isabs(path):
        raise Refused(f"{source} is not a folder on this machine", field="source")
    if os.path.isdir(path):
        raise Refused(f"{source} is a relative path: give the folder's absolute path", field="source")
    raise Refused(
        f"{source} is not a folder on this machine; downloading from the Hub is not built yet: give a folder",
        field="source",
    )


def _check_tokenizer(folder: Path) -> None:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise Refused(
            f"{folder} has no tokenizer.json: save the model's tokenizer there as a fast tokenizer", field="source"
        )
    try:
        Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more precise
        raise Refused(f"{path} does not hold a tokenizer: {error}", field="source") from error


def _registered(final: Path, spec: AddModel) -> dict[str, object]:
    """What an earlier run of this job wrote before it was cut off."""
    found: dict[str, object] = json.loads((final / "model.json").read_text(encoding="utf-8"))
    if found["source"] != spec.source:
        raise Refused(f"there is already a model called {spec.name}, from {found['source']}", field="name")
    return found


def _write(final: Path, found: dict[str, object], own: Path | None = None) -> None:
    """``own`` is the folder of weights that are to be the model's own."""
    text = json.dumps(found, indent=1, ensure_ascii=False)
    final.parent.mkdir(parents=True, exist_ok=True)
    require_space(final.parent, len(text.encode()))
    partial = final.parent / f"{PARTIAL}{final.name}-{os.getpid()}"
    partial.mkdir()
    try:
        if own:
            keep(own, partial / _OWN)
        (partial / "model.json").write_text(text, encoding="utf-8")
        publish(partial, final)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
