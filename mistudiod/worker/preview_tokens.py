"""A preview: one text as the tokens that a model reads, with the place of each in the text."""

from __future__ import annotations

import json
import re

from tokenizers import Encoding

from mistudiod.engine.tokens import read_vocabulary
from mistudiod.specs import PreviewTokens
from mistudiod.worker.link import Link
from mistudiod.worker.tokenize_vocabulary import read_tokenizer, tokenized_model

_RESULT_BYTES = 60_000  # a line of a worker's may have 64 KiB
_SHOWN_TOKENS = 4_000
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")  # one byte of a character that the vocabulary has not


def run(spec: PreviewTokens, link: Link) -> None:
    """The result is {model, tokens, left_out, ids, texts, starts, ends, special}, the last five of one length.

    ``tokens`` counts those of the whole text, ``left_out`` those that did not fit into the answer. ``starts`` and
    ``ends`` are offsets in the text's UTF-8 bytes, of tokens one after another that do not overlap; a token that is
    not in the text, as the BOS before it, begins where it ends.
    """
    model = tokenized_model(link, spec.model)
    tokenizer = read_tokenizer(model.tokenizer_file)
    vocabulary = read_vocabulary(model.folder, tokenizer, model.vocab_size)
    encoding = tokenizer.encode(spec.text, add_special_tokens=False)
    leading = vocabulary.leading("auto")
    before = [] if leading is None else [leading]
    ids = [*before, *encoding.ids]
    starts, ends = spans(spec.text, encoding)
    columns: dict[str, list[object]] = {
        "ids": ids,
        "texts": [vocabulary.text(i) for i in ids[:_SHOWN_TOKENS]],
        "starts": [*[0] * len(before), *starts],
        "ends": [*[0] * len(before), *ends],
        "special": [i in vocabulary.special_ids for i in ids],
    }
    shown = min(len(ids), _SHOWN_TOKENS)
    while len(json.dumps(_cut(columns, shown), ensure_ascii=False).encode()) > _RESULT_BYTES:
        shown = shown * 3 // 4
    link.result({"model": spec.model, "tokens": len(ids), "left_out": len(ids) - shown, **_cut(columns, shown)})


def _cut(columns: dict[str, list[object]], shown: int) -> dict[str, list[object]]:
    return {name: column[:shown] for name, column in columns.items()}


def spans(text: str, encoding: Encoding) -> tuple[list[int], list[int]]:
    """Where each token begins and ends in the text's bytes.

    The library knows characters only: of the tokens of one character each says that it is all of it. The bytes of
    such a character are dealt out to them, a byte for each letter of a byte-level token.
    """
    at = [0]  # byte at which each character begins
    for character in text:
        at.append(at[-1] + len(character.encode()))
    offsets, tokens = encoding.offsets, encoding.tokens
    starts, ends, end = [], [], 0
    for i, (first, last) in enumerate(offsets):
        start = max(at[first], end)
        end = max(at[last], start)
        if i + 1 < len(offsets) and first < last and offsets[i + 1][0] < last:  # the next has a part of it
            end = min(end, start + (1 if _BYTE.fullmatch(tokens[i]) else len(tokens[i])))
        starts.append(start)
        ends.append(end)
    return starts, ends
