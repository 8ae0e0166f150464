"""Layouts in which SAEs are published, a file each: found by looking at the files, read into the canonical form."""

from __future__ import annotations

import torch

from mistudiod.engine.formats.base import FolderListing, Format, Found, Imported, Listing
from mistudiod.engine.formats.dictionary_learning import DictionaryLearning
from mistudiod.engine.formats.gemma_scope import GemmaScope
from mistudiod.engine.formats.gemma_scope_2 import GemmaScope2
from mistudiod.engine.formats.linear_pickle import LinearPickle
from mistudiod.engine.formats.llama_scope import LlamaScope
from mistudiod.engine.formats.mistudio_original import MiStudioOriginal
from mistudiod.engine.formats.mwhanna_transcoders import MwhannaTranscoders
from mistudiod.engine.formats.openai_gpt2 import OpenAIGPT2
from mistudiod.engine.formats.qwen_scope import QwenScope
from mistudiod.engine.formats.saelens import SAELens
from mistudiod.engine.formats.sparsify import Sparsify

# A file that two know belongs to the first of them.
FORMATS: tuple[Format, ...] = (
    MiStudioOriginal(),
    SAELens(),
    GemmaScope(),
    GemmaScope2(),
    Sparsify(),
    DictionaryLearning(),
    LlamaScope(),
    MwhannaTranscoders(),
    OpenAIGPT2(),
    QwenScope(),
    LinearPickle(),
)

__all__ = ["FORMATS", "FolderListing", "Format", "Found", "Imported", "Listing", "find", "read"]


def find(listing: Listing) -> list[Found]:
    """The SAEs of a source, by layer, width, L0 and path. Raises ValueError, one sentence, when there are none."""
    found: dict[str, Found] = {}
    wrong: list[str] = []
    for format_ in FORMATS:
        try:
            for one in format_.look(listing):
                found.setdefault(one.path, one)
        except ValueError as error:
            wrong.append(str(error))
    if not found:
        known = ", ".join(format_.name for format_ in FORMATS)
        raise ValueError(
            wrong[0] if wrong else f"{listing.source} holds no SAE of a known layout: {known} were looked for"
        )
    return sorted(found.values(), key=_order)


def read(listing: Listing, found: Found, device: str | torch.device = "cpu") -> Imported:
    """The SAE that ``find`` found; ValueError, one sentence, when it is damaged or of a kind not understood."""
    return next(format_ for format_ in FORMATS if format_.name == found.format).read(listing, found, device)


def _order(one: Found) -> tuple[float, float, float, str]:
    layer, width, l0 = (float("inf") if n is None else n for n in (one.layer, one.width, one.l0))
    return layer, width, l0, one.path
