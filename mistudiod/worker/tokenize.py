"""Turn a dataset into windows of a model's tokens. No torch: the ``tokenizers`` library does it alone.

What a tokenization is made of has a fingerprint. When there is one with the same fingerprint already, of the same
dataset and model by name, it is not made again: the new folder says the same under its own name and shares the file
of tokens with the other (a hard link), so that whoever waits for the new name finds it, and either can be removed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mistudiod.engine.documents import Filters
from mistudiod.engine.packing import Layout, NoFiller, TooLittleText, UnknownToken, pack
from mistudiod.engine.tokens import MANIFEST, TOKENS, TokenWindows, Vocabulary, read_vocabulary
from mistudiod.host import cpu_count
from mistudiod.paths import PARTIAL
from mistudiod.specs import PreviewFilters, Tokenize
from mistudiod.worker.link import Link, Refused
from mistudiod.worker.new_folder import new_folder
from mistudiod.worker.read_recipe import sha256_of
from mistudiod.worker.stored_dataset import StoredDataset, stored_dataset
from mistudiod.worker.tokenize_batches import batches, piece_count
from mistudiod.worker.tokenize_pieces import Encoding
from mistudiod.worker.tokenize_processes import in_order
from mistudiod.worker.tokenize_vocabulary import (
    TokenizedModel,
    read_tokenizer,
    tokenized_model,
)

_BYTES_PER_TOKEN = 3  # of most text and code; only to estimate the space that is needed
_PROCESS_BYTES = 4 << 20  # of text, below which another process takes longer to start than it saves
_FORMAT = 1  # of the fingerprint: another one when the same settings come to mean other windows


def run(spec: Tokenize, link: Link) -> None:
    """Write ``tokens/<name>/``; the result is what tokenization.json says, without the ids of special tokens: some
    models have thousands."""
    final = link.paths.artifact("tokenization", spec.name)
    found = _made_before(final, spec) if final.exists() else _tokenization(spec, link, final)
    link.artifact("tokenization", spec.name)
    link.result({key: value for key, value in found.items() if key != "special_ids"})


def _settings(spec: Tokenize) -> dict[str, Any]:
    return spec.model_dump(exclude={"kind", "name", "dataset", "model"})


def _made_before(final: Path, spec: Tokenize) -> dict[str, Any]:
    """What an earlier run of this job wrote before it was cut off."""
    found: dict[str, Any] = json.loads((final / MANIFEST).read_text(encoding="utf-8"))
    settings = found.get("settings", {"context": found["context"]})  # version 0.1 had no others, and their defaults
    made = Tokenize(dataset=found["dataset"], model=found["model"], name=spec.name, **settings)
    if made != spec:
        same = (made.dataset, made.model, made.context) == (spec.dataset, spec.model, spec.context)
        raise Refused(
            f"there is already a tokenization called {spec.name}, of {made.dataset} for {made.model} "
            f"in windows of {made.context} tokens{', made with other settings' if same else ''}",
            "name",
        )
    return found


def _tokenization(spec: Tokenize, link: Link, final: Path) -> dict[str, Any]:
    dataset, model = stored_dataset(link, spec.dataset), tokenized_model(link, spec.model)
    if model.context is not None and spec.context > model.context:
        raise Refused(f"context {spec.context} is more than the {model.context} that {spec.model} can read", "context")
    encoding = encoding_of(spec, model)
    vocabulary = read_vocabulary(model.folder, read_tokenizer(model.tokenizer_file), model.vocab_size)
    if spec.bos == "always" and vocabulary.leading("always") is None:
        raise Refused(f"{spec.model} has no BOS token for windows to begin with: set bos to auto or never", "bos")
    about = {
        "name": spec.name,
        "dataset": spec.dataset,
        "model": spec.model,
        "settings": _settings(spec),
        "tokenizer_sha256": sha256_of(model.tokenizer_file),
        "fingerprint": _fingerprint(spec, dataset, model, vocabulary, link),
    }
    return _shared(about, link, final) or _tokenize(spec, dataset, encoding, vocabulary, about, link, final)


def _tokenize(
    spec: Tokenize,
    dataset: StoredDataset,
    encoding: Encoding,
    vocabulary: Vocabulary,
    about: dict[str, Any],
    link: Link,
    final: Path,
) -> dict[str, Any]:
    def told(text_bytes: int, tokens: int) -> None:
        link.check()
        if spec.tokens is None:
            link.progress("tokenize", min(text_bytes, dataset.text_bytes), dataset.text_bytes, "bytes")
        else:
            link.progress("tokenize", tokens, spec.tokens, "tokens")

    told(0, 0)
    filters = Filters(
        spec.shortest, spec.longest, spec.drop_duplicates, spec.max_unprintable, spec.must_match is not None
    )
    layout = Layout(spec.context, spec.packing, spec.stride, spec.bos, spec.tokens, spec.held_out, filters)
    processes = min(cpu_count(Path("/")), max(1, dataset.text_bytes // _PROCESS_BYTES))
    try:
        with (
            new_folder(final, _needed_bytes(spec, dataset, vocabulary)) as partial,
            closing(in_order(batches(dataset), encoding, processes, link.check)) as pieces,
        ):
            return pack(pieces, piece_count(dataset), vocabulary, layout, partial, about, told)
    except UnknownToken as error:
        raise Refused(str(error), "model") from error
    except NoFiller as error:
        raise Refused(str(error), "packing") from error
    except TooLittleText as error:
        raise Refused(str(error), error.reason or "dataset") from error


def encoding_of(spec: Tokenize | PreviewFilters, model: TokenizedModel) -> Encoding:
    """Raises Refused for a pattern that is none."""
    for field in ("must_match", "must_not_match"):
        pattern = getattr(spec, field)
        try:
            pc.match_substring_regex(pa.array([""]), pattern=pattern or "")
        except pa.ArrowInvalid as error:
            reason = str(error).removeprefix("Invalid regular expression: ").splitlines()[0]
            raise Refused(
                f"{field} is no regular expression of RE2's syntax, which has neither look-around nor "
                f"back-references: {reason}",
                field,
            ) from error
    return Encoding(model.tokenizer_file, spec.max_unprintable, spec.must_match, spec.must_not_match)


def _needed_bytes(spec: Tokenize, dataset: StoredDataset, vocabulary: Vocabulary) -> int:
    """At least about so many; 0 when filters may drop who knows how much."""
    if (spec.shortest, spec.longest, spec.max_unprintable, spec.must_match, spec.must_not_match) != (None,) * 5:
        return 0
    tokens = min(dataset.text_bytes // _BYTES_PER_TOKEN, spec.tokens or dataset.text_bytes)
    if not spec.packing:
        tokens = max(tokens * spec.context // (spec.context - spec.stride), dataset.documents * spec.context)
        tokens = tokens if spec.tokens is None else 0  # who knows how many documents it takes
    return tokens * vocabulary.dtype.itemsize


def _fingerprint(
    spec: Tokenize, dataset: StoredDataset, model: TokenizedModel, vocabulary: Vocabulary, link: Link
) -> str:
    """A sha256 over all that the windows follow from: the text, the tokenizer, its special tokens, the settings."""
    v = vocabulary
    facts = {
        "format": _FORMAT,
        "dataset": _dataset_fingerprint(dataset, link),
        "tokenizer": sha256_of(model.tokenizer_file),
        "vocabulary": [v.size, v.bos, v.eos, v.unknown, v.padding, v.special_ids, v.trained_with_bos],
        "settings": _settings(spec),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _dataset_fingerprint(dataset: StoredDataset, link: Link) -> str:
    """What ``add_dataset`` has written down, else a hash of the files."""
    try:
        told = json.loads((link.paths.artifact("dataset", dataset.name) / "dataset.json").read_text(encoding="utf-8"))
        if isinstance(told.get("fingerprint"), str):
            return str(told["fingerprint"])
    except (OSError, ValueError, AttributeError) as error:
        raise Refused(f"the dataset {dataset.name!r} is damaged ({error}): delete it and add it again") from error
    digest = hashlib.sha256()
    for done, path in enumerate(dataset.files):
        link.check()
        link.progress("look at the dataset", done, len(dataset.files), "files")
        digest.update(bytes.fromhex(sha256_of(path)))
    return digest.hexdigest()


def _shared(about: dict[str, Any], link: Link, final: Path) -> dict[str, Any] | None:
    """The tokenization under its new name when there is the same one under another; else None."""
    for path in sorted(link.paths.folder("tokenization").glob(f"*/{MANIFEST}")):
        facts = _same(path, about)
        if facts is None:
            continue
        with new_folder(final, 0) as partial:
            _share(path.parent / TOKENS, partial / TOKENS)
            found = {**facts, **about, "same_as": path.parent.name}
            (partial / MANIFEST).write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return found
    return None


def _same(path: Path, about: dict[str, Any]) -> dict[str, Any] | None:
    """What the tokenization.json at ``path`` says, when it is of what ``about`` says and whole."""
    if path.parent.name.startswith(PARTIAL):
        return None
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        same = all(facts.get(key) == about[key] for key in ("fingerprint", "dataset", "model"))
        if same:
            TokenWindows(path.parent)
    except (OSError, ValueError, KeyError, AttributeError):
        return None  # damaged: it is none
    return facts if same else None


def _share(file: Path, name: Path) -> None:
    try:
        os.link(file, name)
    except OSError:  # a file system without hard links
        shutil.copyfile(file, name)
