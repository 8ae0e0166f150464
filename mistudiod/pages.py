"""A feature store: what one extraction has found of every feature of an SAE. Standard library only.

``engine/feature_store.py`` writes it, ``page_record.py`` says what its files hold. A page is one read of one record:
the index of records, the vocabulary and the numbers of the windows are in memory, what else is needed is mapped.
"""

from __future__ import annotations

import math
import os
import weakref
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mistudiod.feature_files import damaged, mapped, mapping, read, read_manifest
from mistudiod.page_record import (
    COLUMNS,
    NO_TOKEN,
    ORDERS,
    POSTINGS,
    Arrays,
    Numbers,
    column_bytes,
    token_type,
    typed,
    unpack,
)
from mistudiod.vocabulary import Vocabulary

BINS = 64  # of the histogram of activations, two an octave
# Their edges; what is smaller or larger counts in the first or last bin. An activation's bin is what the leading bits
# of its float32 say, (bits >> 22) - 222: an octave is cut at 1.5 times its beginning.
EDGES = [2.0 ** (n // 2 - 16) * (1.5 if n % 2 else 1.0) for n in range(BINS + 1)]
LOGIT_BINS = 50
KINDS = ("top", "band", "random", "near")  # of examples, by their number
_BAND = KINDS.index("band")


class Pages:
    """One store, open for reading, from any thread; it closes with the last reference to it.

    Raises ValueError, one sentence, when the folder holds no store, one of another format, or a damaged one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.manifest = folder, read_manifest(folder)
        self.d_sae: int = self.manifest["d_sae"]
        self.context: int = self.manifest["context"]
        self.rows: int = self.manifest["rows"]
        self.tokens: int = self.manifest["tokens"]  # counted
        self._token_type = token_type(self.manifest["token_bytes"])
        try:
            self._open()
        except (OSError, ValueError) as error:
            raise damaged(folder, error) from None

    def _open(self) -> None:
        folder, d_sae = self.folder, self.d_sae
        self._pages = os.open(folder / "pages.bin", os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._pages)
        self._size = os.fstat(self._pages).st_size
        self._starts = read(folder / "pages.idx", "Q", d_sae + 1)
        self._windows = read(folder / "windows.bin", "I", self.rows)
        self._vocabulary = Vocabulary(folder)
        spans, size = column_bytes(d_sae)
        columns = mapped(folder / "columns.bin", "B", size)
        self.columns = {name: typed(columns[spans[name]], type_) for name, type_ in COLUMNS.items()}
        orders = mapped(folder / "orders.bin", "I", len(ORDERS) * d_sae)
        self._orders = {key: orders[n * d_sae : (n + 1) * d_sae] for n, key in enumerate(ORDERS)}
        self._ids = mapped(folder / "tokens.bin", self._token_type, self.rows * self.context)
        self._top_texts = mapping(folder / "toptokens.txt")
        starts = mapped(folder / "toptokens.idx", "I")
        self._text_starts, self._top_starts = starts[: len(starts) // 2], starts[len(starts) // 2 :]
        self._with_text = mapped(folder / "toptokens.bin", "I")
        self._postings: tuple[Any, ...] | None = None
        if self.manifest["postings"]:
            lengths = (d_sae + 1, None, None)
            parts = zip(POSTINGS, "QIf", lengths, strict=True)
            starts, places, values = (mapped(folder / name, type_, length) for name, type_, length in parts)
            if not len(places) == len(values) == starts[-1]:
                raise ValueError(f"{', '.join(POSTINGS)} do not fit together")
            self._postings = starts, places, values

    def density(self, index: int) -> float:
        """The share of tokens on which a feature fires."""
        return int(self.columns["fired"][index]) / self.tokens if self.tokens else 0.0

    def order(self, key: str) -> Sequence[int]:
        """All features by ``density``, ``max`` or ``typical``, the largest first, or by the text of the top ``token``.

        Equal ones are in the order of their index, and so are the dead ones at the end.
        """
        order: Sequence[int] = self._orders[key]
        return order

    def row(self, index: int) -> dict[str, Any]:
        """What a list says of a feature; no file is read for it. Raises ValueError for an index that there is not."""
        self._check(index)
        numbers = {name: column[index] for name, column in self.columns.items()}
        if not math.isfinite(numbers["max"] + numbers["mean"] + numbers["std"] + numbers["typical"]):
            raise damaged(self.folder, "columns.bin holds NaN or infinity")
        tops = (numbers["token_0"], numbers["token_1"], numbers["token_2"])
        return {
            "index": index,
            "fired": numbers["fired"],
            "density": self.density(index),
            "max": numbers["max"],
            "mean": numbers["mean"] if numbers["fired"] else None,
            "typical": numbers["typical"],
            "dead": not numbers["fired"],
            "tokens": [self._vocabulary.text(id) for id in tops if id != NO_TOKEN],
        }

    def page(self, index: int) -> dict[str, Any]:
        """All that is known of a feature, as the API answers it. Raises ValueError, as when the record is damaged."""
        numbers, arrays = self._record(index)
        fired = numbers.fired
        return {
            "index": index,
            "fired": fired,
            "density": self.density(index),
            "max": numbers.maximum,
            "mean": numbers.mean if fired else None,
            "std": numbers.std if fired else None,
            "typical": numbers.typical,
            "dead": not fired,
            "histogram": {"edges": EDGES, "counts": arrays["histogram"].tolist() or [0] * BINS},
            "logits": self._logits(numbers, arrays),
            "neighbours": {
                "decoder": _rows(arrays, index="decoder", cosine="decoder_cosine"),
                "cofiring": _rows(arrays, index="cofiring", share="cofiring_share", jaccard="cofiring_jaccard"),
            },
            "tokens": self._counted(fired, arrays, "tokens"),
            "for_labels": {
                "fired": numbers.label_fired, "tokens": self._counted(numbers.label_fired, arrays, "label_tokens"),
            },
            "examples": self._examples(arrays, len(arrays["kind"])),
        }  # fmt: skip

    def example(self, index: int) -> dict[str, Any] | None:
        """The first example of a feature's page; None when it has none."""
        _, arrays = self._record(index)
        return next(iter(self._examples(arrays, min(1, len(arrays["kind"])))), None)

    def with_token(self, text: str) -> set[int]:
        """The features one of whose top tokens contains ``text``."""
        found: set[int] = set()
        texts, wanted = self._top_texts, text.encode(errors="surrogatepass")
        at = texts.find(wanted)
        while 0 <= at < len(texts):
            n = bisect_right(self._text_starts, at) - 1
            found.update(self._with_text[self._top_starts[n] : self._top_starts[n + 1]])
            at = texts.find(wanted, self._text_starts[n + 1])
        return found

    def postings(self, index: int) -> tuple[memoryview, memoryview]:
        """Every place where a feature fires: ``row * context + position``, ascending, and the activations there.

        Raises ValueError when the extraction kept none.
        """
        if self._postings is None:
            raise ValueError("this extraction kept no postings: extract the features again with them")
        self._check(index)
        starts, places, values = self._postings
        cut = slice(starts[index], starts[index + 1])
        return places[cut], values[cut]

    def ids(self, row: int) -> list[int]:
        """The tokens of a window: (context,)."""
        return list(self._ids[row * self.context : (row + 1) * self.context])

    def texts(self, ids: Sequence[int]) -> list[str]:
        """Of tokens that follow each other, as ``Vocabulary.texts``."""
        return self._vocabulary.texts(ids)

    def window(self, row: int) -> int:
        """The number that a window that was read has in the tokenization."""
        try:
            return int(self._windows[row])
        except IndexError:
            raise damaged(self.folder, f"a feature fires in window {row:,} of {self.rows:,}") from None

    def _check(self, index: int) -> None:
        if not 0 <= index < self.d_sae:
            raise ValueError(f"{self.manifest.get('sae')} has features 0 to {self.d_sae - 1}")

    def _record(self, index: int) -> tuple[Numbers, Arrays]:
        self._check(index)
        start, end = self._starts[index], self._starts[index + 1]
        try:
            if not start <= end <= self._size:
                raise ValueError("its place is not in the file")
            return unpack(os.pread(self._pages, end - start, start), self._token_type)
        except (OSError, ValueError) as error:
            raise damaged(self.folder, f"pages.bin holds no record of feature {index} ({error})") from None

    def _counted(self, fired: int, arrays: Arrays, name: str) -> list[dict[str, Any]]:
        """Tokens on which a feature fires most, of ``fired`` in all."""
        return [
            {"id": id, "text": self._vocabulary.text(id), "fired": on, "read": of,
             "share": on / fired if fired else 0.0, "rate": on / of if of else 0.0}
            for id, on, of in zip(arrays[name], arrays[f"{name}_fired"], arrays[f"{name}_read"], strict=True)
        ]  # fmt: skip

    def _logits(self, numbers: Numbers, arrays: Arrays) -> dict[str, Any] | None:
        if not len(arrays["logit_counts"]):
            return None
        ends = {
            end: [
                {"id": id, "text": self._vocabulary.text(id), "value": value}
                for id, value in zip(arrays[end], arrays[f"{end}_values"], strict=True)
            ]
            for end in ("top", "bottom")
        }
        counts = arrays["logit_counts"].tolist()
        return {**ends, "histogram": {"low": numbers.low, "high": numbers.high, "counts": counts}}

    def _examples(self, arrays: Arrays, count: int) -> list[dict[str, Any]]:
        found, at, fired_at = [], 0, 0
        for n in range(count):
            end, fired_end = at + arrays["length"][n], fired_at + arrays["fires"][n]
            ids = arrays["shown"][at:end].tolist()
            activations: list[float] = [0] * len(ids)  # shorter in JSON than 0.0
            kind, row, first = arrays["kind"][n], arrays["row"][n], arrays["first"][n]
            try:
                for place, value in zip(arrays["where"][fired_at:fired_end], arrays["values"][fired_at:fired_end]):  # noqa: B905
                    activations[place] = value
                name, window = KINDS[kind], self.window(row)
            except IndexError:
                raise damaged(self.folder, "pages.bin has an example of what there is not") from None
            found.append({
                "kind": name, "band": arrays["band"][n] if kind == _BAND else None, "row": row,
                "window": window, "first": first, "peak": arrays["peak"][n] - first, "max": arrays["value"][n],
                "held_out": is_held_out(window), "ids": ids, "texts": self._vocabulary.texts(ids),
                "activations": activations,
            })  # fmt: skip
            at, fired_at = end, fired_end
        return found


def is_held_out(window: int) -> bool:
    """Whether a window of a tokenization is for scoring labels; the others are what labels are made from."""
    return bool((window * 0x9E3779B1 >> 31) & 1)


def _rows(arrays: Arrays, **columns: str) -> list[dict[str, Any]]:
    """A table whose columns are arrays, as a list of its rows."""
    lists = [arrays[name].tolist() for name in columns.values()]
    return [dict(zip(columns, values, strict=True)) for values in zip(*lists, strict=True)]
