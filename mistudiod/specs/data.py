"""The specs of what is brought in: models, datasets, tokenizations."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from mistudiod.specs.base import Name, Spec

_HUB_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)?")
_REVISION = re.compile(r"\w[\w.+-]*(/\w[\w.+-]*)*", re.ASCII)
Pattern = Annotated[str, Field(min_length=1, max_length=1000)]
# Filters: which documents a tokenization drops.
Count = Annotated[int, Field(ge=1, lt=2**53)]
Shortest = Annotated[Count | None, Field(description="drop documents of fewer tokens")]
Longest = Annotated[Count | None, Field(description="drop documents of more tokens")]
DropDuplicates = Annotated[bool, Field(description="drop documents whose text has come before")]
MaxUnprintable = Annotated[
    Annotated[float, Field(ge=0, lt=1)] | None,
    Field(description="drop documents with a larger share of characters that cannot be printed"),
]
MustMatch = Annotated[Pattern | None, Field(description="drop documents in which this is not found; RE2's syntax")]
MustNotMatch = Annotated[Pattern | None, Field(description="drop documents in which this is found; RE2's syntax")]
DATASET_SOURCE = (
    "owner/name of a dataset of the Hub; a .txt, .md, .py, .jsonl, .json, .csv, .parquet or .arrow file, "
    "also as .gz or .zst; a folder of them; or builtin:python"
)
Label = Annotated[str, Field(min_length=1, max_length=256)]  # of a column, a split, a configuration


def is_hub_id(source: str) -> bool:
    """Whether a source has the form of a repository's id on the Hub, as org/name; no absolute path has."""
    return _HUB_ID.fullmatch(source) is not None


def is_revision(text: str) -> bool:
    """Whether it can be the name of a branch or tag, or the sha of a commit."""
    return _REVISION.fullmatch(text) is not None


class _OfModel(Spec):
    """Where a model comes from."""

    source: str = Field(
        min_length=1,
        max_length=4096,
        description="owner/name of a model of the Hub; a Hugging Face folder on this machine; or builtin:pico",
    )
    revision: str | None = Field(
        None, max_length=200, description="branch, tag or commit of a model of the Hub; main when not given"
    )

    @field_validator("revision")
    @classmethod
    def _revision_of_the_hub(cls, revision: str | None, info: ValidationInfo) -> str | None:
        if revision is not None and not is_revision(revision):
            raise ValueError("must be the name of a branch or tag, or the sha of a commit")
        source = info.data.get("source")  # absent when it was wrong itself
        if revision is not None and source is not None and not is_hub_id(source):
            raise ValueError("is for a model of the Hub: leave it out")
        return revision


class AddModel(_OfModel):
    """Register a language model."""

    kind: Literal["add_model"] = "add_model"
    name: Name = Field(description="what to call it")


class PreviewModel(_OfModel):
    """See what a model is before it is fetched. A preview: nothing is stored, and no weights are downloaded."""

    kind: Literal["preview_model"] = "preview_model"


class AddDataset(Spec):
    """Bring text into the studio."""

    kind: Literal["add_dataset"] = "add_dataset"
    source: str = Field(min_length=1, max_length=4096, description=DATASET_SOURCE)
    name: Name = Field(description="what to call it")
    config: Label | None = Field(None, description="configuration of a dataset of the Hub; its default when not given")
    split: Label | None = Field(
        None, description="split of a dataset of the Hub; train, or its only one, when not given"
    )
    text_column: Label | None = Field(None, description="column or key that holds the text; found when not given")
    rows: int | None = Field(None, ge=1, lt=2**53, description="stop after so many documents; all when not given")
    tokens: int | None = Field(
        None, ge=1, lt=2**50, description="stop once there is text for about so many tokens, at 5 bytes a token"
    )
    bytes: int | None = Field(None, ge=1, lt=2**53, description="stop once so many bytes of text have come")
    shuffle_seed: int | None = Field(
        None, ge=0, lt=2**31, description="mix the documents by this seed, a part of them at a time; else in order"
    )


class Tokenize(Spec):
    """Turn a dataset into windows of a model's tokens."""

    kind: Literal["tokenize"] = "tokenize"
    dataset: Name = Field(description="name of the dataset")
    model: Name = Field(description="name of the model whose tokenizer is used")
    name: Name = Field(description="what to call the tokenization")
    context: int = Field(128, ge=8, le=131072, description="tokens in a window, the leading BOS among them")
    packing: bool = Field(True, description="documents run on from window to window; else each has padded ones")
    stride: int = Field(0, ge=0, description="tokens that a window repeats of the one before; without packing only")
    bos: Literal["auto", "always", "never"] = Field(
        "auto", description="whether windows begin with BOS; auto: as the model was trained"
    )
    tokens: int | None = Field(None, ge=1, lt=2**53, description="stop after so many tokens of text")
    held_out: float = Field(
        0.02, gt=0, le=0.5, description="share of documents never trained on, unless the dataset says which"
    )
    shortest: Shortest = None
    longest: Longest = None
    drop_duplicates: DropDuplicates = False
    max_unprintable: MaxUnprintable = None
    must_match: MustMatch = None
    must_not_match: MustNotMatch = None

    @field_validator("stride")
    @classmethod
    def _stride_within_window(cls, stride: int, info: ValidationInfo) -> int:
        context, packing = info.data.get("context"), info.data.get("packing")  # absent when they were wrong themselves
        if stride and packing:
            raise ValueError("is for windows of single documents: turn packing off, or leave it at 0")
        if context is not None and stride > context // 2:
            raise ValueError(f"must not be more than half of context ({context})")
        return stride

    @field_validator("longest")
    @classmethod
    def _longest_after_shortest(cls, longest: int | None, info: ValidationInfo) -> int | None:
        shortest = info.data.get("shortest")
        if longest is not None and shortest is not None and longest < shortest:
            raise ValueError(f"must not be less than shortest ({shortest})")
        return longest
