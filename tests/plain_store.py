"""A feature store out of plain dicts, written with the standard library: for tests of the daemon and the client."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mistudiod.page_record import (
    COLUMNS,
    FILES,
    FORMAT,
    NO_TOKEN,
    ORDERS,
    POSTINGS,
    Numbers,
    column_bytes,
    described_columns,
    pack,
)
from mistudiod.pages import KINDS

WORDS = ("import", " os", "\n", "sys", ".", " é", "日", "def", " return", "x")
VOCABULARY = tuple(word.encode() for word in WORDS)
Feature = Mapping[str, Any]  # what Pages.page says of it; what is left out is empty, and of a dead one all is


def write_store(
    folder: Path, features: Sequence[Feature], /, *, vocabulary: Sequence[bytes] = VOCABULARY,
    windows: Sequence[Sequence[int]] = ((0, 1, 2, 3, 4),), numbers: Sequence[int] = (7,), tokens: int = 1000,
    postings: Sequence[Mapping[int, float]] | None = None, **manifest: Any,
) -> dict[str, Any]:  # fmt: skip
    """``windows`` were read, ``numbers`` are those of the tokenization; ``postings`` are {place: activation}."""
    folder.mkdir(parents=True, exist_ok=True)
    d_sae, files = len(features), {}
    records = [_record(one) for one in features]
    files["pages.bin"], files["pages.idx"] = b"".join(records), _starts("Q", map(len, records))
    files["vocab.bin"], files["vocab.idx"] = b"".join(vocabulary), _starts("I", map(len, vocabulary))
    files["tokens.bin"] = array("H", [id for window in windows for id in window]).tobytes()
    files["windows.bin"] = array("I", numbers).tobytes()
    files |= _columns(features) | _orders(features, vocabulary) | _top_tokens(features, vocabulary)
    if postings is not None:
        ordered = [sorted(one.items()) for one in postings]
        files["postings.idx"] = _starts("Q", map(len, ordered))
        files["postings.tok"] = array("I", [place for one in ordered for place, _ in one]).tobytes()
        files["postings.val"] = array("f", [value for one in ordered for _, value in one]).tobytes()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    alive = sum(1 for one in features if one.get("fired"))
    whole = {
        **manifest, "format": FORMAT, "d_sae": d_sae, "context": len(windows[0]), "rows": len(windows),
        "tokens": tokens, "features": d_sae, "alive": alive / d_sae, "dead": d_sae - alive, "token_bytes": 2,
        "logits": any(one.get("logits") for one in features), "postings": postings is not None,
        "columns": described_columns(d_sae),
        "files": {
            name: {"bytes": len(files[name]), "sha256": hashlib.sha256(files[name]).hexdigest()}
            for name in (*FILES, *(POSTINGS if postings is not None else ()))
        },
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(whole, indent=1))
    return whole


def feature(fired: int, maximum: float, ids: Sequence[int] = (0,), examples: Sequence[Feature] = ()) -> dict[str, Any]:
    """A feature that is alive, of which the tokens it fires on and perhaps examples are known."""
    about = [{"id": id, "fired": fired, "read": fired} for id in ids]
    return {"fired": fired, "max": maximum, "mean": maximum / 2, "std": 0.5, "typical": maximum / 4, "tokens": about,
            "histogram": {"counts": [fired] + [0] * 63}, "examples": examples}  # fmt: skip


def example(ids: Sequence[int], activations: Sequence[float], peak: int, kind: str = "top", **fields: int) -> Feature:
    shown = {"kind": kind, "band": 0, "row": 0, "first": 0, "ids": ids, "activations": activations, "peak": peak}
    return {**shown, "max": activations[peak], **fields}


def _starts(type_: str, lengths: Any) -> bytes:
    starts = array(type_, [0])
    for length in lengths:
        starts.append(starts[-1] + length)
    return starts.tobytes()


def _record(one: Feature) -> bytes:
    examples, logits = one.get("examples", ()), one.get("logits")
    fires = [[(n, value) for n, value in enumerate(known["activations"]) if value] for known in examples]
    around, of_labels = one.get("neighbours", {}), one.get("for_labels", {"fired": 0, "tokens": ()})
    columns: dict[str, tuple[str, list[Any]]] = {
        "histogram": ("I", one["histogram"]["counts"] if one.get("fired") else []),
        "row": ("I", [known["row"] for known in examples]),
        "first": ("I", [known["first"] for known in examples]),
        "peak": ("I", [known["peak"] + known["first"] for known in examples]),
        "value": ("f", [known["max"] for known in examples]),
        "length": ("H", [len(known["ids"]) for known in examples]),
        "fires": ("H", [len(found) for found in fires]),
        "kind": ("B", [KINDS.index(known["kind"]) for known in examples]),
        "band": ("B", [known["band"] or 0 for known in examples]),
        "shown": ("H", [id for known in examples for id in known["ids"]]),
        "where": ("H", [n for found in fires for n, _ in found]),
        "values": ("f", [value for found in fires for _, value in found]),
        "tokens": ("I", [known["id"] for known in one.get("tokens", ())]),
        "tokens_fired": ("I", [known["fired"] for known in one.get("tokens", ())]),
        "tokens_read": ("I", [known["read"] for known in one.get("tokens", ())]),
        "label_tokens": ("I", [known["id"] for known in of_labels["tokens"]]),
        "label_tokens_fired": ("I", [known["fired"] for known in of_labels["tokens"]]),
        "label_tokens_read": ("I", [known["read"] for known in of_labels["tokens"]]),
        "cofiring": ("I", [known["index"] for known in around.get("cofiring", ())]),
        "cofiring_share": ("f", [known["share"] for known in around.get("cofiring", ())]),
        "cofiring_jaccard": ("f", [known["jaccard"] for known in around.get("cofiring", ())]),
        "decoder": ("I", [known["index"] for known in around.get("decoder", ())]),
        "decoder_cosine": ("f", [known["cosine"] for known in around.get("decoder", ())]),
        "logit_counts": ("I", logits["histogram"]["counts"] if logits else []),
    }
    for end in ("top", "bottom"):
        columns[end] = "I", [known["id"] for known in logits[end]] if logits else []
        columns[f"{end}_values"] = "f", [known["value"] for known in logits[end]] if logits else []
    bounds = (logits["histogram"]["low"], logits["histogram"]["high"]) if logits else (0.0, 0.0)
    arrays = {name: array(type_, values).tobytes() for name, (type_, values) in columns.items()}
    fired, *others = _numbers(one)
    return pack(Numbers(fired, of_labels["fired"], *others, *bounds), arrays, "H")


def _numbers(one: Feature) -> tuple[Any, ...]:
    return tuple(one.get(name) or 0 for name in ("fired", "max", "mean", "std", "typical"))


def _columns(features: Sequence[Feature]) -> dict[str, bytes]:
    spans, size = column_bytes(len(features))
    data = bytearray(size)
    tops = [([known["id"] for known in one.get("tokens", ())] + [NO_TOKEN] * 3)[:3] for one in features]
    rows = [(*_numbers(one), *ids) for one, ids in zip(features, tops, strict=True)]
    for n, (name, type_) in enumerate(COLUMNS.items()):
        data[spans[name]] = array(type_, [row[n] for row in rows]).tobytes()
    return {"columns.bin": bytes(data)}


def _orders(features: Sequence[Feature], vocabulary: Sequence[bytes]) -> dict[str, bytes]:
    def text(index: int) -> tuple[bool, str]:
        ids = [known["id"] for known in features[index].get("tokens", ())]
        return not ids, vocabulary[ids[0]].decode(errors="replace") if ids else ""

    alive = [index for index, one in enumerate(features) if one.get("fired")]
    dead = [index for index, one in enumerate(features) if not one.get("fired")]
    names = {"density": "fired", "max": "max", "typical": "typical"}
    orders = [sorted(alive, key=lambda index: -array("f", [features[index][names[key]]])[0]) for key in ORDERS[:3]]
    orders.append(sorted(alive, key=text))
    return {"orders.bin": b"".join(array("I", order + dead).tobytes() for order in orders)}


def _top_tokens(features: Sequence[Feature], vocabulary: Sequence[bytes]) -> dict[str, bytes]:
    having: dict[str, set[int]] = {}
    for index, one in enumerate(features):
        for known in one.get("tokens", ()):
            having.setdefault(vocabulary[known["id"]].decode(errors="replace"), set()).add(index)
    texts = sorted(having)
    joined = [text.encode() + b"\xff" for text in texts]
    lists = [sorted(having[text]) for text in texts]
    starts = _starts("I", map(len, joined)) + _starts("I", map(len, lists))
    return {"toptokens.txt": b"".join(joined), "toptokens.idx": starts,
            "toptokens.bin": array("I", [index for one in lists for index in one]).tobytes()}  # fmt: skip
