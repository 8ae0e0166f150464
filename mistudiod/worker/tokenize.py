"""Turn a dataset into packed windows of a model's tokens. No torch: the ``tokenizers`` library does it alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from tokenizers import Tokenizer

from mistudiod.engine.tokens import Text, TooLittleText, UnknownToken, Vocabulary, pack
from mistudiod.specs import Tokenize
from mistudiod.worker.link import Link, Refused
from mistudiod.worker.new_folder import new_folder
from mistudiod.worker.stored_dataset import StoredDataset, reading_dataset, stored_dataset

_BYTES_PER_TOKEN = 3  # of most text and code; only to estimate the space that is needed


@dataclass(frozen=True)
class _Model:
    folder: Path
    vocab_size: int
    context: int


def run(spec: Tokenize, link: Link) -> None:
    """Write ``tokens/<name>/``; ``tokenization.json`` is the job's result."""
    final = link.paths.artifact("tokenization", spec.name)
    found = _made_before(final, spec) if final.exists() else _tokenize(spec, link, final)
    link.artifact("tokenization", spec.name)
    link.result(found)


def _made_before(final: Path, spec: Tokenize) -> dict[str, object]:
    """What an earlier run of this job wrote before it was cut off."""
    found: dict[str, object] = json.loads((final / "tokenization.json").read_text(encoding="utf-8"))
    if (found["dataset"], found["model"], found["context"]) != (spec.dataset, spec.model, spec.context):
        raise Refused(
            f"there is already a tokenization called {spec.name}, of {found['dataset']} for {found['model']} "
            f"in windows of {found['context']} tokens",
            "name",
        )
    return found


def _tokenize(spec: Tokenize, link: Link, final: Path) -> dict[str, object]:
    dataset, model = stored_dataset(link, spec.dataset), _model(link, spec.model)
    if spec.context > model.context:
        raise Refused(f"context {spec.context} is more than the {model.context} that {spec.model} can read", "context")
    vocabulary = read_vocabulary(model.folder, model.vocab_size)

    def told(_documents: int, text_bytes: int) -> None:
        link.check()
        link.progress("tokenize", min(text_bytes, dataset.text_bytes), dataset.text_bytes, "bytes")

    told(0, 0)
    names = {"name": spec.name, "dataset": spec.dataset, "model": spec.model}
    needed_bytes = dataset.text_bytes // _BYTES_PER_TOKEN * vocabulary.dtype.itemsize
    try:
        with new_folder(final, needed_bytes) as partial:
            return pack(_texts(dataset), vocabulary, spec.context, partial, names, told)
    except UnknownToken as error:
        raise Refused(str(error), "model") from error
    except TooLittleText as error:
        raise Refused(str(error), "dataset") from error


def _texts(dataset: StoredDataset) -> Iterator[Text]:
    for path in dataset.files:
        with reading_dataset(dataset.name), pq.ParquetFile(path) as file:
            columns = [name for name in ("text", "held_out", "continues") if name in file.schema_arrow.names]
            for group in range(file.num_row_groups):  # of about 8 MiB; iter_batches would put many together
                for row in file.read_row_group(group, columns=columns).to_pylist():
                    yield Text(row["text"], row.get("held_out"), row.get("continues", False))


def _model(link: Link, name: str) -> _Model:
    path = link.paths.artifact("model", name) / "model.json"
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        model = _Model(Path(info["path"]), int(info["vocab_size"]), int(info["context"]))
    except FileNotFoundError:
        raise Refused(f"there is no model called {name!r}: add it first", "model") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Refused(f"{path} is damaged ({error}): delete the model and add it again", "model") from error
    if not model.folder.is_dir():
        raise Refused(f"the folder {model.folder} of the model {name!r} is gone: put it back", "model")
    return model


def read_vocabulary(folder: Path, size: int) -> Vocabulary:
    """The tokenizer of a Hugging Face folder; ``size`` is that of the model's embedding. Raises Refused."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise Refused(f"{folder} has no tokenizer.json: save the model's tokenizer there as a fast tokenizer", "model")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more precise
        raise Refused(f"{path} does not hold a tokenizer: {error}", "model") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def encode(texts: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    bos, eos, unknown, padding = (_named(folder, tokenizer, name) for name in ("bos", "eos", "unk", "pad"))
    special = {i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    special |= {i for i in (bos, eos, unknown, padding) if i is not None}
    return Vocabulary(encode, size, bos, eos, unknown, tuple(sorted(special)))


def _named(folder: Path, tokenizer: Tokenizer, name: str) -> int | None:
    """The id of BOS, EOS and so on: what the tokenizer's config says, null included, else what the model's says."""
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        settings = _json(folder / file)
        if f"{name}_token" in settings:
            token = settings[f"{name}_token"]
            content = token.get("content") if isinstance(token, dict) else token
            return tokenizer.token_to_id(content) if isinstance(content, str) else None
    found = _json(folder / "config.json").get(f"{name}_token_id")
    if isinstance(found, list):  # some models end at any of several tokens
        found = found[0] if found else None
    return found if isinstance(found, int) and tokenizer.id_to_token(found) is not None else None


def _json(path: Path) -> dict[str, object]:
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
    return {}
