"""A model of the studio and its tokenizer, as its folder has it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from mistudiod.worker.link import Link, Refused
from mistudiod.worker.tokenize_pieces import open_tokenizer


@dataclass(frozen=True)
class TokenizedModel:
    """``context``: tokens that it can read; None when its config does not say."""

    name: str
    folder: Path
    vocab_size: int
    context: int | None

    @property
    def tokenizer_file(self) -> Path:
        return self.folder / "tokenizer.json"


def tokenized_model(link: Link, name: str) -> TokenizedModel:
    """Raises Refused when there is no such model, it is damaged, or its folder is gone."""
    path = link.paths.artifact("model", name) / "model.json"
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        context = info["context"]
        model = TokenizedModel(
            name, Path(info["path"]), int(info["vocab_size"]), None if context is None else int(context)
        )
    except FileNotFoundError:
        raise Refused(f"there is no model called {name!r}: add it first", "model") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Refused(f"{path} is damaged ({error}): delete the model and add it again", "model") from error
    if not model.folder.is_dir():
        raise Refused(f"the folder {model.folder} of the model {name!r} is gone: put it back", "model")
    return model


def read_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a tokenizer.json, without truncation and padding. Raises Refused."""
    if not path.is_file():
        raise Refused(
            f"{path.parent} has no tokenizer.json: save the model's tokenizer there as a fast tokenizer", "model"
        )
    try:
        return open_tokenizer(path)
    except Exception as error:  # the library raises nothing more precise
        raise Refused(f"{path} does not hold a tokenizer: {error}", "model") from error
