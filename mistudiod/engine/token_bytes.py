"""The exact bytes that each token of a vocabulary stands for, as the tokenizer's own decoder spells them.

Joined, the bytes of a text's tokens are the text as UTF-8, after whatever the tokenizer's normalizer makes of it (NFC
in Qwen's). Tokenizers after SentencePiece's manner (Llama 2, Mistral) put a space before a text: it is the first byte
of its first token here, and their decoder takes it away again from a text as a whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Regex, Tokenizer, decoders

if TYPE_CHECKING:  # seconds to import, and a preview of tokens has no other use for it
    from transformers import PreTrainedTokenizerFast

OFFSETS, BYTES = "vocab.idx", "vocab.bin"

# The letters in which byte-level tokenizers write bytes: those that can be printed stand for themselves.
_PRINTED = [*range(33, 127), *range(161, 173), *range(174, 256)]
BYTE_OF = {chr(byte): byte for byte in _PRINTED}
BYTE_OF |= {chr(256 + n): byte for n, byte in enumerate(byte for byte in range(256) if byte not in _PRINTED)}
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")  # one byte of a character that the vocabulary has not

Step = Callable[[str], str | bytes]


def token_bytes(tokenizer: PreTrainedTokenizerFast | Tokenizer, ids: Iterable[int]) -> list[bytes]:
    """Of each of some tokens; empty for an id that the tokenizer does not know."""
    fast = tokenizer if isinstance(tokenizer, Tokenizer) else tokenizer.backend_tokenizer
    steps = _steps(json.loads(fast.decoder.__getstate__())) if fast.decoder else []
    added = fast.get_added_tokens_decoder()
    found = []
    for token in ids:
        content = added[token].content if token in added else None
        # Added tokens are found in a text as they are written, but some repeat what the model has (Gemma's "▁▁").
        if content is not None and (added[token].special or fast.model.id_to_token(token) is None):
            found.append(content.encode())
        else:
            found.append(_spelled(fast.id_to_token(token) or "", steps))
    return found


def tokens_of(tokenizer: PreTrainedTokenizerFast | Tokenizer) -> int:
    """The highest id and one: more than there are tokens where no token has some of the ids."""
    return max(tokenizer.get_vocab().values(), default=-1) + 1


def write_vocabulary(tokenizer: PreTrainedTokenizerFast | Tokenizer, size: int, folder: Path) -> None:
    """Write ``vocab.bin``, the bytes of the tokens 0 to ``size`` - 1 in a row, and ``vocab.idx``, where each begins.

    ``vocab.idx`` is u32, little-endian, ``size`` + 1 long: the last is where the last token ends.
    """
    tokens = token_bytes(tokenizer, range(size))
    offsets = np.zeros(size + 1, dtype="<u4")
    np.cumsum([len(token) for token in tokens], out=offsets[1:])
    (folder / BYTES).write_bytes(b"".join(tokens))
    (folder / OFFSETS).write_bytes(offsets.tobytes())


def _spelled(token: str, steps: list[Step]) -> bytes:
    text: str | bytes = token
    for step in steps:
        if isinstance(text, bytes):
            break
        text = step(text)
    return text if isinstance(text, bytes) else text.encode()


def _steps(decoder: dict[str, Any]) -> list[Step]:
    """What a decoder does to each token by itself, before it joins them.

    Not what it does to a text's beginning, such as to drop a space: a token is nearly never the first of a text.
    """
    steps: list[Step] = []
    for one in decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]:
        if one["type"] == "Fuse":
            break  # what follows sees the whole text
        if one["type"] in _STEPS:
            steps.append(_STEPS[one["type"]](one))
    return steps


def _replacing(step: dict[str, Any]) -> Step:
    pattern = step["pattern"]
    library = decoders.Replace(Regex(pattern["Regex"]) if "Regex" in pattern else pattern["String"], step["content"])
    return lambda token: library.decode([token])


def _from_letters(token: str) -> bytes:
    """A token with letters that no byte is written in stands for itself, as it does in the library."""
    return bytes(BYTE_OF[letter] for letter in token) if BYTE_OF.keys() >= set(token) else token.encode()


def _from_fallback(token: str) -> str | bytes:
    byte = _BYTE.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else token


def _replaced(token: str, old: str, new: str = " ") -> str:
    return token.replace(old, new)


_STEPS: dict[str, Callable[[dict[str, Any]], Step]] = {
    "Replace": _replacing,
    "ByteFallback": lambda step: _from_fallback,
    "ByteLevel": lambda step: _from_letters,
    "Metaspace": lambda step: partial(_replaced, old=step["replacement"]),
    "BPEDecoder": lambda step: partial(_replaced, old=step["suffix"]),
}
