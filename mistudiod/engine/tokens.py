"""Windows of tokens on disk: what a folder of them says of itself, and the reader of them.

A folder holds ``tokens.bin``, little-endian rows of ``context`` token ids, first the windows to train on, then the
held-out ones, and ``tokenization.json``, which says what the rows are. ``packing`` writes both.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tokenizers import Tokenizer

from mistudiod.engine.mapped import Mapped
from mistudiod.engine.token_bytes import BYTE_OF

TOKENS, MANIFEST = "tokens.bin", "tokenization.json"
FORGET_EVERY = 4 << 20  # tokens


@dataclass(frozen=True)
class Vocabulary:
    """What is known of a tokenizer. ``size``: rows of the model's embedding. ``text`` shows a token to people."""

    size: int
    bos: int | None = None
    eos: int | None = None
    unknown: int | None = None
    padding: int | None = None
    special_ids: tuple[int, ...] = ()
    trained_with_bos: bool = True  # False only when the tokenizer's own settings say so
    text: Callable[[int], str] = str

    def leading(self, bos: str) -> int | None:
        """What every window begins with, as ``bos`` (auto, always or never) says; None: with nothing of its own."""
        if bos == "never" or (bos == "auto" and not self.trained_with_bos):
            return None
        return self.eos if self.bos is None else self.bos

    @property
    def separator(self) -> int | None:
        """What stands between two documents of a window."""
        return self.bos if self.eos is None else self.eos

    @property
    def filler(self) -> int | None:
        """What a window is filled up with: a special token, for those never train; None when the model has none."""
        fit = (i for i in (self.padding, self.eos, self.bos, *self.special_ids) if i is not None and i < self.size)
        return next(fit, None)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype("<u2" if self.size <= 1 << 16 else "<u4")


class TokenWindows:
    """Reads windows without loading them. Rows 0 to ``train``-1 are for training, the ``held_out`` next not.

    Raises ValueError when the folder is no tokenization or ``tokens.bin`` has not the size that is promised.
    """

    def __init__(self, folder: Path) -> None:
        try:
            facts = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            size = (folder / TOKENS).stat().st_size
        except (OSError, ValueError) as error:
            raise ValueError(f"{folder} is not a tokenization: {error}") from error
        self.context: int = facts["context"]
        self.train: int = facts["train_windows"]
        self.held_out: int = facts["held_out_windows"]
        self.special_ids: list[int] = facts["special_ids"]
        dtype, shape = np.dtype(facts["dtype"]), (self.train + self.held_out, self.context)
        if size != shape[0] * shape[1] * dtype.itemsize:
            raise ValueError(
                f"{folder / TOKENS} has {size} bytes, not those of {shape[0]} windows of {shape[1]} tokens"
            )
        self._file, self._looked_at = Mapped(folder / TOKENS, dtype), 0
        self._tokens = self._file.array.reshape(shape)

    def rows(self, indices: ArrayLike) -> NDArray[np.int64]:
        """The windows at ``indices`` (n,), as token ids (n, context)."""
        found = self._tokens[np.asarray(indices, dtype=np.int64)].astype(np.int64)
        self._looked_at += found.size
        if self._looked_at >= FORGET_EVERY:  # or the memory of all windows that were ever read stays
            self._file.forget()
            self._looked_at = 0
        return found

    def special_mask(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """True where a token is special (BOS, separator, padding): such positions are no text. Shape of ``rows``."""
        return np.isin(rows, self.special_ids)


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
