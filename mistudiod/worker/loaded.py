"""A model in memory, whole, and SAEs of it: loaded when first needed, and anew when their files have changed."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers

import mistudiod
from mistudiod.engine.hooks import blocks_of
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.engine.token_bytes import token_bytes, tokens_of
from mistudiod.worker.link import Link, Refused
from mistudiod.worker.read_recipe import WEIGHTS
from mistudiod.worker.recipe import sha256_of, weights_of
from mistudiod.worker.trained import Trained, device_here, load, open_trained, read_model, read_recipe, usual_precision

MOST_SAES = 20  # that are kept; the one that was used longest ago makes room
Stamp = tuple[tuple[int, int, int], ...]  # of some files: when written, how large, and which


@dataclass
class LoadedSae:
    trained: Trained
    stamp: Stamp
    maxima: dict[tuple[str, ...], Sequence[float]] = field(default_factory=dict)  # by the extractions that there are

    @property
    def sae(self) -> SparseAutoencoder:
        return self.trained.sae

    @property
    def sha256(self) -> str:
        """Of its weights."""
        return self.trained.sha256


class Loaded:
    """``lm`` and ``saes`` by name, those that were used last at the end. ``texts``: the bytes of every token that is
    text, by its id, none of the special ones.
    """

    def __init__(self, model: str, precision: str | None, saes: Sequence[str], link: Link) -> None:
        """Load them. Without a precision it is that in which the first SAE was trained, else the usual one.

        Raises Refused.
        """
        self.name, self.link = model, link
        self.saes: dict[str, LoadedSae] = {}
        self._file = link.paths.artifact("model", model) / "model.json"
        found = read_model(model, link)
        if found is None:
            raise Refused(f"there is no model called {model}: add it first", "model")
        self.model, self._stamp = found, _stamp([self._file])
        self.path = Path(found["path"])
        self.weights_sha256 = _combined(weights_of(self.path)) if self.path.is_dir() else None
        if precision is None:
            precision = self.sae(saes[0]).trained.precision if saes else usual_precision(found, device_here())
        self.lm = load(self.path, device_here(), precision, None, link, ("model", "precision"))
        for block in blocks_of(self.lm.model):  # nobody waits for the end of a pass whose answer is not wanted
            block.register_forward_pre_hook(lambda _block, _args: link.check())
        self.tokenizer_sha256 = sha256_of(self.path / "tokenizer.json")
        self.texts = self._texts()
        for name in saes:
            self.sae(name)

    def sae(self, name: str, at: str = "sae") -> LoadedSae:
        """``at``: the field of the spec that names it. Raises Refused, as for an SAE of another model."""
        folder = self.link.paths.artifact("sae", name)
        stamp = _stamp(folder / file for file in ("cfg.json", "recipe.json", WEIGHTS))
        known = self.saes.pop(name, None)
        if known is None or known.stamp != stamp:
            self._check_model(name, at)
            known = None  # two at once may be more than there is memory for
            trained = open_trained(name, self.link, at)
            known = LoadedSae(trained, stamp)
        self.saes[name] = known
        if len(self.saes) > MOST_SAES:
            del self.saes[next(iter(self.saes))]
        return known

    def check(self, model: str, precision: str | None) -> None:
        """Raises Refused unless it is this model, as it is now, in this precision, that is asked for."""
        if model != self.name:
            raise Refused(f"this session has the model {self.name}, not {model}: start one for {model}", "model")
        if precision not in (None, self.lm.precision):
            raise Refused(
                f"this session has {model} in {self.lm.precision}, not {precision}: start one in {precision}",
                "precision",
            )
        if _stamp([self._file]) != self._stamp:
            raise Refused(f"{model} is another model by now than the one that is loaded: start a new session", "model")

    def made(self) -> dict[str, Any]:
        """What a text depends on, beside what was asked for."""
        return {
            "mistudio": mistudiod.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
            "model_revision": self.model.get("revision"),
            "model_sha256": self.weights_sha256,
            "tokenizer_sha256": self.tokenizer_sha256,
            "threads": torch.get_num_threads(),
        }

    def _check_model(self, name: str, at: str) -> None:
        """Raises Refused when the SAE was trained on another model."""
        of = read_recipe(name, self.link, at)["model"]
        if of["name"] != self.name:
            raise Refused(f"{name} is an SAE of the model {of['name']}, not of {self.name}", at)
        trained_on, here = _combined(of.get("weights") or {}), self.weights_sha256
        what = "weights of sha256"
        if not (trained_on and here):
            what, trained_on, here = "revision", of.get("revision"), self.model.get("revision")
        if trained_on and here and trained_on != here:
            raise Refused(
                f"{name} is an SAE of another model {self.name}: of the one with {what} {trained_on[:12]}, and here "
                f"is the one with {here[:12]}",
                at,
            )

    def _texts(self) -> list[bytes]:
        tokenizer = self.lm.tokenizer
        texts = token_bytes(tokenizer, range(max(self.lm.facts.vocab_size, tokens_of(tokenizer))))
        added = tokenizer.backend_tokenizer.get_added_tokens_decoder()
        for token in {id for id, one in added.items() if one.special} | set(tokenizer.all_special_ids):
            texts[token] = b""
        return texts


def _stamp(files: Any) -> Stamp:
    found = []
    for file in files:
        try:
            status = file.stat()
        except OSError:
            found.append((0, 0, 0))
        else:
            found.append((status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(found)


def _combined(weights: Mapping[str, Mapping[str, Any]]) -> str | None:
    """One sha256 for the files of a model: that of a single file, else of all of theirs; None when one is not known."""
    known = [(name, one.get("sha256")) for name, one in sorted(weights.items())]
    if not known or not all(sha256 for _, sha256 in known):
        return None
    if len(known) == 1:
        return str(known[0][1])
    return hashlib.sha256("".join(f"{sha256}  {name}\n" for name, sha256 in known).encode()).hexdigest()
