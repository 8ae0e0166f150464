"""A model's tokenizer, as its folder has it: which tokens are special, and what windows of its text begin with."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from mistudiod.engine.token_bytes import BYTE_OF
from mistudiod.engine.tokens import Vocabulary
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


def read_vocabulary(folder: Path, tokenizer: Tokenizer, size: int) -> Vocabulary:
    """The special tokens of a Hugging Face folder; ``size`` is that of the model's embedding."""
    bos, eos, unknown, padding = (_named(folder, tokenizer, name) for name in ("bos", "eos", "unk", "pad"))
    special = {i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    special |= {i for i in (bos, eos, unknown, padding) if i is not None}

    def text(token: int) -> str:
        return _shown(tokenizer, token)

    trained_with_bos = _json(folder / "tokenizer_config.json").get("add_bos_token") is not False
    return Vocabulary(size, bos, eos, unknown, padding, tuple(sorted(special)), trained_with_bos, text)


def _shown(tokenizer: Tokenizer, token: int) -> str:
    """A token as it reads in a text; of a part of a character the bytes, as ``\\xc3``."""
    text = tokenizer.decode([token], skip_special_tokens=False)
    if text and "\ufffd" not in text:
        return text
    written = tokenizer.id_to_token(token) or ""
    if not all(letter in BYTE_OF for letter in written):
        return written
    return bytes(BYTE_OF[letter] for letter in written).decode(errors="backslashreplace")


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


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
