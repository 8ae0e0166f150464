"""Find where every feature of an SAE fires, and what speaks for its meaning, in one pass over a text."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mistudiod.engine.bank import COUNTS, TOKENS, Bank, write_tokens
from mistudiod.engine.evidence import Asked
from mistudiod.engine.extract import read_text
from mistudiod.engine.feature_record import Logits
from mistudiod.engine.feature_store import StoreWriter
from mistudiod.engine.harvest import NoActivations
from mistudiod.engine.logit_lens import LogitLens
from mistudiod.engine.mapped import Mapped
from mistudiod.engine.merge import merge
from mistudiod.engine.neighbours import decoder_neighbours
from mistudiod.engine.records import NEAR_MISSES, NEIGHBOURS, Records
from mistudiod.engine.shards import ENTRY_BYTES, SHARD_ENTRIES, Entries, Shards
from mistudiod.engine.token_bytes import tokens_of, write_vocabulary
from mistudiod.facts import UnknownModel
from mistudiod.pages import is_held_out
from mistudiod.paths import DiskFull, publish, require_space
from mistudiod.specs import Extract
from mistudiod.worker.extract_live import LiveFeatures
from mistudiod.worker.extract_source import find_source, hooks_read, text_of
from mistudiod.worker.link import Link, Refused
from mistudiod.worker.new_folder import new_folder
from mistudiod.worker.recipe import sha256_of
from mistudiod.worker.trained import load_model, open_trained

POSTING_BYTES = 8  # of an entry, in the store
RECORD_BYTES = 3_000  # of a feature, in the store, beside the tokens of its examples
SHOWN_BYTES = 4  # of a token of an example beside its id: 6 where the feature fires
PLACE_BYTES = 12  # of a place of the text beside its id: while a store is made, how many fire and where those begin
LENS_FEATURES = 1024  # whose logits are found together
RESULT = (  # of the manifest
    *("sae", "id", "tokenization", "features", "alive", "dead", "l0", "tokens", "skipped"),
    *("seconds", "tokens_per_s"),
)


def run(spec: Extract, link: Link) -> None:
    """Write ``features/<sae>/<job>/``, a feature store. Goes on from the latest shard.

    Raises Refused, DiskFull, Asked.
    """
    name = f"{spec.sae}/{link.run.name}"
    final = link.paths.artifact("features", name)
    if not final.exists():
        _Extraction(spec, link).run(final)
    shutil.rmtree(_scratch(link), ignore_errors=True)
    link.artifact("features", name)
    manifest = json.loads((final / "manifest.json").read_text())
    link.result({key: manifest.get(key) for key in RESULT})


def feature_bytes(asked: Asked, around: tuple[int, int], token: int) -> int:
    """What a feature may take while a store is made and in it; ``token``: bytes of an id."""
    shown = min(sum(around) + 1, asked.context)
    return (asked.examples + NEAR_MISSES) * shown * (token + SHOWN_BYTES) + RECORD_BYTES + asked.summary().itemsize


def _scratch(link: Link) -> Path:
    return link.run / "shards"


class _Extraction:
    def __init__(self, spec: Extract, link: Link) -> None:
        self._spec, self._link, self._began = spec, link, time.monotonic()
        self._trained = open_trained(spec.sae, link)
        self._source = find_source(spec, self._trained, link)
        self._lm = load_model(self._trained, hooks_read(self._trained), link)
        self._text = text_of(spec, self._source, self._lm, link)
        self._asked = Asked(spec.examples, self._text.context)
        self._shards = Shards(_scratch(link), self._trained.sae.d_sae, self._made_of(), publish)
        self._before = sum(shard.seconds for shard in self._shards.whole)  # of earlier attempts

    def run(self, final: Path) -> None:
        self._read()
        counted = sum(shard.tokens for shard in self._shards.whole)
        if not counted:
            raise Refused(f"the text of {self._source.name} holds special tokens or outliers only", "tokenization")
        entries = sum(shard.entries for shard in self._shards.whole)
        with new_folder(final, POSTING_BYTES * entries + self._bytes()) as partial:
            self._write(partial, counted, entries)

    def _made_of(self) -> dict[str, Any]:
        """What shards must have been made of to be gone on with."""
        text = self._text
        return {
            "format": 1,
            "sae_sha256": self._trained.sha256,
            "tokenization": self._source.tokenization,
            "rows": len(text.numbers),
            "hook": self._trained.hook,
            "precision": self._trained.precision,
            "outlier_norms": list(text.harvest.outlier_norms or ()),
            "lm_windows": text.harvest.lm_windows,
        }

    def _read(self) -> None:
        text, shards, link = self._text, self._shards, self._link
        live = LiveFeatures(self._spec.sae, text, self._source.windows, self._lm, link)

        def heard(places: int) -> None:
            link.check()
            link.progress("read text", places, text.places, "tokens")

        def closed(entries: Entries) -> None:
            live.look(entries, shards.whole[-1].tokens, shards.end)
            if len(shards.whole) == 1:
                self._require_space()

        try:
            read_text(text, self._trained.sae, shards, heard, closed, SHARD_ENTRIES)
        except NoActivations as error:
            raise Refused(f"{self._trained.hook} of {self._trained.model['name']}: {error}", "sae") from error

    def _bytes(self) -> int:
        """Of all that is written but shards and postings."""
        text, token = self._text, np.dtype(self._source.tokenization["dtype"]).itemsize
        each = feature_bytes(self._asked, self._spec.around, token)
        return each * self._trained.sae.d_sae + (PLACE_BYTES + token) * text.places

    def _require_space(self) -> None:
        """Raises Refused when the rest, as dense as the first shard, will not fit."""
        first, places = self._shards.whole[0], self._text.places
        each = ENTRY_BYTES + POSTING_BYTES
        needed = round(first.entries * (each * places / first.end - ENTRY_BYTES))
        try:
            require_space(self._link.run, needed + self._bytes())
        except DiskFull as error:
            share = first.entries / max(first.tokens, 1)
            raise Refused(
                f"{places:,} tokens with {share:,.0f} features on each do not fit: ask for fewer --tokens, or make "
                f"room ({error})",
                "tokens",
            ) from error

    def _write(self, folder: Path, counted: int, entries: int) -> None:
        """Everything of the store."""
        sae, lm, link, text = self._trained.sae, self._lm, self._link, self._text
        vocabulary = max(lm.facts.vocab_size, tokens_of(lm.tokenizer))
        dtype = np.dtype(self._source.tokenization["dtype"])
        write_vocabulary(lm.tokenizer, vocabulary, folder)
        neighbours = decoder_neighbours(sae.W_dec, NEIGHBOURS, self._heard("neighbours", sae.d_sae))
        written = self._heard("write", 3 * text.places, "tokens")
        write_tokens(self._source.windows, text.numbers, dtype, folder, written)
        merged = _scratch(link) / "merged"
        merged.mkdir(exist_ok=True)
        postings = folder if self._spec.postings else merged
        tokens, counts = Mapped(folder / TOKENS, dtype), Mapped(_scratch(link) / COUNTS, "<u4")
        for_labels = np.array([not is_held_out(number) for number in text.numbers.tolist()])
        bank = Bank(tokens, counts, vocabulary, for_labels, lambda places: written(text.places + places))
        heard = self._heard("sort", sae.d_sae)
        merge(self._shards, self._asked, tokens, vocabulary, for_labels, postings, merged, heard)
        records = Records(self._asked, self._spec.around, bank, postings, merged, _scratch(link), neighbours)
        writer = StoreWriter(folder, sae.d_sae, text.context, len(text.numbers), counted, dtype.itemsize)
        self._write_records(records, writer)
        del records, bank, neighbours, tokens  # what is left to do needs memory too
        writer.finish(self._manifest(counted, entries), self._hashed)

    def _write_records(self, records: Records, writer: StoreWriter) -> None:
        d_sae, heard = self._trained.sae.d_sae, self._heard("features", self._trained.sae.d_sae)
        lens = self._lens()
        for first in range(0, d_sae, LENS_FEATURES):
            heard(first)
            last = min(first + LENS_FEATURES, d_sae)
            logits: list[Logits | None] = [*lens.logits(first, last)] if lens else [None] * (last - first)
            for feature in range(first, last):
                writer.add(records.record(feature, logits[feature - first]))
                heard(feature + 1)

    def _lens(self) -> LogitLens | None:
        trained = self._trained
        try:
            return LogitLens.of(
                Path(trained.model["path"]), trained.sae.W_dec, trained.hook_out, tokens_of(self._lm.tokenizer)
            )
        except UnknownModel as error:
            raise Refused(str(error), "sae") from error

    def _hashed(self, done: int, total: int) -> None:
        self._heard("hash", total, "bytes")(done)

    def _heard(self, stage: str, total: int, unit: str = "features") -> Callable[[int], None]:
        def heard(done: int) -> None:
            self._link.check()
            self._link.progress(stage, done, total, unit)

        return heard

    def _manifest(self, counted: int, entries: int) -> dict[str, Any]:
        spec, shards, text = self._spec, self._shards, self._text
        outliers = sum(shard.outliers for shard in shards.whole)
        seconds = time.monotonic() - self._began + self._before
        before, after = spec.around
        return {
            "sae": spec.sae,
            "id": self._link.run.name,
            "job": int(self._link.run.name) if self._link.run.name.isdigit() else None,
            "tokenization": self._source.name,
            "model": self._trained.model["name"],
            "hook": self._trained.hook,
            "skipped": {"special": text.places - counted - outliers, "outliers": outliers},
            "l0": entries / counted,
            "examples": spec.examples,
            "before": before,
            "after": after,
            "sae_sha256": self._trained.sha256,
            "tokenizer_sha256": sha256_of(Path(self._trained.model["path"]) / "tokenizer.json"),
            "seconds": seconds,
            "tokens_per_s": counted / seconds if seconds else None,
        }
