"""Writes a feature store, one feature after the other; ``mistudiod/pages.py`` reads it."""

from __future__ import annotations

import hashlib
import json
import math
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mistudiod.engine.feature_record import TOP, U32, Examples, FeatureRecord
from mistudiod.page_record import (
    COLUMNS,
    FILES,
    FORMAT,
    NO_TOKEN,
    ORDERS,
    POSTINGS,
    SEPARATOR,
    Numbers,
    column_bytes,
    described_columns,
    pack,
    token_type,
)
from mistudiod.vocabulary import Vocabulary

Heard = Callable[[int, int], None]

LEAST_TOP = 5  # examples, or a feature has no typical activation
_BUFFER_BYTES = 4 << 20
_READ_BYTES = 1 << 20
SLICE = 1 << 14  # features whose top tokens are looked at together


class StoreWriter:
    """A store in ``folder``, which is there. Of ``rows`` windows of ``context`` tokens ``tokens`` tokens are counted.

    Records go to the disk as they come; what is kept in memory is some 100 bytes a feature. tokens.bin, windows.bin,
    vocab.* and postings.*, if any, are others' to write before ``finish``.
    """

    def __init__(self, folder: Path, d_sae: int, context: int, rows: int, tokens: int, token_bytes: int) -> None:
        self._folder, self._d_sae, self._token_bytes = folder, d_sae, token_bytes
        self._read = {"context": context, "rows": rows, "tokens": tokens}
        self._token_type = token_type(token_bytes)
        self._starts = array("Q", [0])
        self._columns = {name: array(type_) for name, type_ in COLUMNS.items()}
        self._tops, self._top_starts = array("I"), array("Q", [0])  # ids of all features' top tokens
        self._has_logits = False
        self._hash = hashlib.sha256()
        self._waiting = bytearray()
        (folder / "pages.bin").touch(exist_ok=False)

    def add(self, record: FeatureRecord) -> None:
        """The next feature, by index. Raises ValueError for NaN and infinity, or arrays that do not fit together."""
        numbers = _numbers(record)
        if not all(map(math.isfinite, (numbers.maximum, numbers.mean, numbers.std, numbers.low, numbers.high))):
            raise ValueError(f"feature {len(self._starts) - 1} has activations or logits that are no finite numbers")
        if len(record.examples.tokens) and int(record.examples.tokens.max()) >> (8 * self._token_bytes):
            raise ValueError(f"feature {len(self._starts) - 1} has a token that does not fit {self._token_bytes} bytes")
        packed = pack(numbers, _arrays(record, self._token_type), self._token_type)
        self._waiting += packed
        self._hash.update(packed)
        self._starts.append(self._starts[-1] + len(packed))
        tops = record.tokens[:3].tolist() + [NO_TOKEN] * 3
        values = (numbers.fired, numbers.maximum, numbers.mean, numbers.std, numbers.typical, *tops[:3])
        for column, value in zip(self._columns.values(), values, strict=True):
            column.append(value)
        self._tops.frombytes(record.tokens.astype("<u4").tobytes())
        self._top_starts.append(len(self._tops))
        self._has_logits |= record.logits is not None
        if len(self._waiting) >= _BUFFER_BYTES:
            self._flush()

    def finish(self, manifest: dict[str, Any], heard: Heard | None = None) -> dict[str, Any]:
        """Write what is known once all features are there; the manifest, last, is the given one and the store's fields.

        ``heard``: see ``_hashed``. Raises ValueError when there are not ``d_sae`` features, or files of others are
        missing or damaged.
        """
        if (added := len(self._starts) - 1) != self._d_sae:
            raise ValueError(f"{added} features were added, and the SAE has {self._d_sae}")
        self._flush()
        (self._folder / "pages.idx").write_bytes(self._starts)
        self._write_columns()
        self._write_tokens(Vocabulary(self._folder))
        postings = (self._folder / POSTINGS[0]).exists()
        dead = int((np.frombuffer(self._columns["fired"], np.uint64) == 0).sum())
        whole = {
            **manifest,
            "format": FORMAT,
            "d_sae": self._d_sae,
            **self._read,
            "features": self._d_sae,
            "alive": (self._d_sae - dead) / self._d_sae,
            "dead": dead,
            "token_bytes": self._token_bytes,
            "logits": self._has_logits,
            "postings": postings,
            "columns": described_columns(self._d_sae),
            "files": self._hashed((*FILES, *(POSTINGS if postings else ())), heard or (lambda done, total: None)),
        }
        (self._folder / "manifest.json").write_text(json.dumps(whole, indent=1, allow_nan=False))
        return whole

    def _flush(self) -> None:
        with (self._folder / "pages.bin").open("ab") as file:
            file.write(self._waiting)
        self._waiting.clear()

    def _write_columns(self) -> None:
        spans, size = column_bytes(self._d_sae)
        with (self._folder / "columns.bin").open("wb") as file:
            for name, span in spans.items():
                file.seek(span.start)
                file.write(self._columns[name])
            file.truncate(size)

    def _write_tokens(self, vocabulary: Vocabulary) -> None:
        """The orders, one of which is by text, and for each distinct text of a top token the features that have it."""
        parts = [np.unique(tops) for tops, _ in self._slices()]
        ids = np.unique(np.concatenate([np.empty(0, np.uint32), *parts]))
        by_id = [vocabulary.text(int(id)) for id in ids]
        texts = sorted(set(by_id))
        place = {text: n for n, text in enumerate(texts)}
        of_id = np.array([place[text] for text in by_id], np.uint32)  # the text of each distinct id
        first = np.full(self._d_sae, len(texts), np.uint32)  # of each feature the text of its top token
        starts = np.zeros(len(texts) + 1, np.int64)  # of each text, where its features begin
        for tops, owners in self._slices():
            text = of_id[np.searchsorted(ids, tops)]
            begins = np.flatnonzero(np.diff(owners.astype(np.int64), prepend=-1))
            first[owners[begins]] = text[begins]
            starts[1:] += np.bincount(_pairs(text, owners)[0], minlength=len(texts))
        starts = starts.cumsum()
        with (self._folder / "orders.bin").open("wb") as file:
            for order in self._orders(first):
                file.write(order.data)
        del first
        features, free = np.empty(starts[-1], np.uint32), starts[:-1].copy()
        for tops, owners in self._slices():
            text, owners = _pairs(of_id[np.searchsorted(ids, tops)], owners)
            counts = np.bincount(text, minlength=len(texts))
            features[np.repeat(free - counts.cumsum() + counts, counts) + np.arange(len(text))] = owners
            free += counts
        joined = [one.encode() + SEPARATOR for one in texts]
        text_starts = np.cumsum([0, *map(len, joined)])
        (self._folder / "toptokens.txt").write_bytes(b"".join(joined))
        (self._folder / "toptokens.idx").write_bytes(np.concatenate([text_starts, starts]).astype("<u4").tobytes())
        (self._folder / "toptokens.bin").write_bytes(features.astype("<u4", copy=False).data)

    def _slices(self) -> Iterator[tuple[U32, U32]]:
        """The top tokens of all features, SLICE features at a time: ids, and whose each is."""
        starts, tops = np.frombuffer(self._top_starts, np.uint64), np.frombuffer(self._tops, np.uint32)
        for one in range(0, self._d_sae, SLICE):
            edges = starts[one : one + SLICE + 1].astype(np.int64)
            owners = np.arange(one, one + len(edges) - 1, dtype=np.uint32)
            yield tops[edges[0] : edges[-1]], np.repeat(owners, np.diff(edges))

    def _orders(self, first: U32) -> Iterator[U32]:
        """As ``ORDERS``; ``first`` (d_sae,) is the place of each feature's top token among the texts."""
        fired, maximum, typical = (
            np.frombuffer(self._columns[name], COLUMNS[name]) for name in ("fired", "max", "typical")
        )
        dead = fired == 0
        keys: tuple[Callable[[], NDArray[Any]], ...] = (
            lambda: -fired.astype(np.int64), lambda: -maximum, lambda: -typical, lambda: first
        )  # fmt: skip
        assert len(keys) == len(ORDERS)
        for key in keys:
            yield np.lexsort((np.where(dead, 0, key()), dead)).astype("<u4")

    def _hashed(self, names: Iterable[str], heard: Heard) -> dict[str, dict[str, Any]]:
        """Size and sha256 of files; ``heard`` is told, again and again, how many of how many bytes are done."""
        sizes = {name: path.stat().st_size for name in names if (path := self._folder / name).exists()}
        found, done = {}, 0
        for name in names:
            if name not in sizes:
                raise ValueError(f"{name} of the feature store was not written")
            digest = self._hash if name == "pages.bin" else hashlib.sha256()
            with (self._folder / name).open("rb") as file:
                while name != "pages.bin" and (block := file.read(_READ_BYTES)):
                    digest.update(block)
                    heard(done + file.tell(), sum(sizes.values()))
            done += sizes[name]
            found[name] = {"bytes": sizes[name], "sha256": digest.hexdigest()}
        return found


def _pairs(text: U32, owners: U32) -> tuple[NDArray[np.int64], U32]:
    """Texts and the features that have them, by text, then feature; once where several ids of one feature have one."""
    pairs = np.unique(text.astype(np.uint64) << np.uint64(32) | owners)
    return (pairs >> np.uint64(32)).astype(np.int64), pairs.astype(np.uint32)


def _numbers(record: FeatureRecord) -> Numbers:
    fired = record.fired
    mean = record.total / fired if fired else 0.0
    spread = math.sqrt(max(0.0, record.squares / fired - mean**2)) if fired else 0.0
    top = record.examples.value[record.examples.kind == TOP]
    return Numbers(
        fired=fired,
        label_fired=record.label_fired,
        maximum=record.maximum,
        mean=mean,
        std=spread,
        typical=float(top.min()) if len(top) >= LEAST_TOP else 0.0,
        low=record.logits.low if record.logits else 0.0,
        high=record.logits.high if record.logits else 0.0,
    )


def _arrays(record: FeatureRecord, type_of_tokens: str) -> dict[str, bytes]:
    examples, logits = record.examples, record.logits
    found = {
        "histogram": _bytes(record.histogram, "I") if record.fired else b"",
        "tokens": _bytes(record.tokens, "I"),
        "tokens_fired": _bytes(record.tokens_fired, "I"),
        "tokens_read": _bytes(record.tokens_read, "I"),
        "label_tokens": _bytes(record.label_tokens, "I"),
        "label_tokens_fired": _bytes(record.label_tokens_fired, "I"),
        "label_tokens_read": _bytes(record.label_tokens_read, "I"),
        "cofiring": _bytes(record.cofiring, "I"),
        "cofiring_share": _bytes(record.cofiring_share, "f"),
        "cofiring_jaccard": _bytes(record.cofiring_jaccard, "f"),
        "decoder": _bytes(record.decoder, "I"),
        "decoder_cosine": _bytes(record.decoder_cosine, "f"),
        "top": _bytes(logits.top, "I") if logits else b"",
        "top_values": _bytes(logits.top_values, "f") if logits else b"",
        "bottom": _bytes(logits.bottom, "I") if logits else b"",
        "bottom_values": _bytes(logits.bottom_values, "f") if logits else b"",
        "logit_counts": _bytes(logits.counts, "I") if logits else b"",
    }
    return found | _of_examples(examples, type_of_tokens)


def _of_examples(examples: Examples, type_of_tokens: str) -> dict[str, bytes]:
    return {
        "row": _bytes(examples.row, "I"),
        "first": _bytes(examples.first, "I"),
        "peak": _bytes(examples.peak, "I"),
        "value": _bytes(examples.value, "f"),
        "length": _bytes(examples.length, "H"),
        "fires": _bytes(examples.fires, "H"),
        "kind": _bytes(examples.kind, "B"),
        "band": _bytes(examples.band, "B"),
        "shown": _bytes(examples.tokens, type_of_tokens),
        "where": _bytes(examples.where, "H"),
        "values": _bytes(examples.values, "f"),
    }


def _bytes(array_: NDArray[Any], type_: str) -> bytes:
    return array_.astype(f"<{type_}" if type_ != "B" else "B", copy=False).tobytes()
