"""Register a language model: see that the folder holds one, and note what it is.

The weights stay where they are, those of the Hub in this machine's Hugging Face cache. Those of an uploaded model,
which would go with the upload, become the model's own.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

from tokenizers import Tokenizer

import mistudiod.demo
from mistudiod.facts import UnknownModel, hook_names, read_facts
from mistudiod.specs import AddModel, is_hub_id
from mistudiod.worker.chat_template import has_chat_template
from mistudiod.worker.hub_files import refuse_unknown
from mistudiod.worker.hub_model import in_cache
from mistudiod.worker.licence import licence_in
from mistudiod.worker.link import Link, Refused
from mistudiod.worker.new_folder import new_folder
from mistudiod.worker.uploaded import is_upload, keep, place

BUILTIN = {"pico": Path(mistudiod.demo.__file__).parent / "pico"}
_LONG = ("hooks", "tree")  # would not always fit in a line of a worker's
_OWN = "files"  # folder of the weights that came by upload


def run(spec: AddModel, link: Link) -> None:
    """Write ``models/<name>/model.json``; what it says is the job's result, but for its long lists."""
    final = link.paths.artifact("model", spec.name)
    if final.exists():
        found = _registered(final, spec)
    else:
        folder, revision = _found(spec, link)
        link.progress("read", 0, 1)
        found = describe(folder, spec, revision)
        link.check()
        if is_upload(spec.source):
            found["path"] = str(final / _OWN)
            _write(final, found, folder)
        else:
            _write(final, found)
        link.progress("read", 1, 1)
    link.artifact("model", spec.name)
    link.result({fact: value for fact, value in found.items() if fact not in _LONG})


def describe(folder: Path, spec: AddModel, revision: str | None) -> dict[str, object]:
    """What ``model.json`` says; ``revision`` is the sha of a model of the Hub. Raises Refused."""
    refuse_unknown(spec.source, folder)
    try:
        facts = read_facts(folder)
    except UnknownModel as error:
        raise Refused(str(error), field="source") from error
    _check_tokenizer(folder)
    known = {"name": spec.name, "source": spec.source, "revision": revision, "path": str(folder)}
    about = {"licence": licence_in(folder), "chat_template": has_chat_template(folder)}
    return known | asdict(facts) | about | {"hooks": hook_names(facts)}


def _found(spec: AddModel, link: Link) -> tuple[Path, str | None]:
    """The model's folder on this machine, and the commit of one that is from the Hub."""
    if is_hub_id(spec.source):
        return in_cache(spec.source, spec.revision, link)
    return local_folder(spec.source, link), None


def local_folder(source: str, link: Link) -> Path:
    """Of a model that is not of the Hub. Raises Refused."""
    if source.startswith("builtin:"):
        name = source.removeprefix("builtin:")
        if name not in BUILTIN:
            known = ", ".join(f"builtin:{known}" for known in BUILTIN)
            raise Refused(f"there is no {source}: the models that come with miStudio are {known}", field="source")
        return BUILTIN[name]
    path = os.path.expanduser(place(source, link))
    if not os.path.isabs(path):
        raise Refused(f"{source} is neither an absolute path nor the id of a model of the Hub, as org/name", "source")
    if not os.path.isdir(path):
        raise Refused(f"{source} is not a folder on this machine", field="source")
    return Path(path).resolve()


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
    with new_folder(final, len(text.encode())) as partial:
        if own:
            keep(own, partial / _OWN)
        (partial / "model.json").write_text(text, encoding="utf-8")
