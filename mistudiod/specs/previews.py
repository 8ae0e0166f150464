"""The specs of previews: answered at once, never queued, never stored."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mistudiod.specs.base import Name, Spec
from mistudiod.specs.data import (
    DATASET_SOURCE,
    DropDuplicates,
    Label,
    Longest,
    MaxUnprintable,
    MustMatch,
    MustNotMatch,
    Shortest,
)


class SampleDataset(Spec):
    """Read a few documents of a dataset. A preview: never queued, never stored."""

    kind: Literal["sample_dataset"] = "sample_dataset"
    dataset: Name = Field(description="name of the dataset")
    rows: int = Field(5, ge=1, le=20, description="documents to show")
    offset: int | None = Field(
        default=None, ge=0, lt=2**53, description="row to begin at, from 0; documents from all over when not given"
    )
    chars: int = Field(500, ge=1, le=20_000, description="characters of each to show, as far as the answer has room")


class PreviewDataset(Spec):
    """Look at a source of text before anything is stored. A preview: never queued, never stored."""

    kind: Literal["preview_dataset"] = "preview_dataset"
    source: str = Field(min_length=1, max_length=4096, description=DATASET_SOURCE)
    config: Label | None = Field(None, description="configuration of a dataset of the Hub; its default when not given")
    split: Label | None = Field(
        None, description="split of a dataset of the Hub; train, or its only one, when not given"
    )
    rows: int = Field(5, ge=1, le=20, description="rows to show")


class PreviewFilters(Spec):
    """See which documents the filters of a tokenization leave out. A preview: never queued, never stored."""

    kind: Literal["preview_filters"] = "preview_filters"
    dataset: Name = Field(description="name of the dataset")
    model: Name = Field(description="name of the model whose tokenizer is used")
    documents: int = Field(200, ge=1, le=4000, description="documents to try them on, from all over")
    shortest: Shortest = None
    longest: Longest = None
    drop_duplicates: DropDuplicates = False
    max_unprintable: MaxUnprintable = None
    must_match: MustMatch = None
    must_not_match: MustNotMatch = None


class PreviewTokens(Spec):
    """Show a text as a model's tokens. A preview: never queued, never stored."""

    kind: Literal["preview_tokens"] = "preview_tokens"
    model: Name = Field(description="name of the model whose tokenizer is used")
    text: str = Field(min_length=1, max_length=20_000, description="text to show as tokens")


class ProbeDevice(Spec):
    """Find out what this machine computes with, and in which precisions. A preview: never queued, never stored."""

    kind: Literal["probe_device"] = "probe_device"


class TryEndpoint(Spec):
    """Ask an endpoint which models it has. A preview: never queued, never stored."""

    kind: Literal["try_endpoint"] = "try_endpoint"
    endpoint: str = Field(min_length=1, max_length=64, description="what the settings call it")
    url: str = Field(min_length=1, max_length=500, description="the base of its API, as the settings have it")
    secret: str | None = Field(None, description="under which its key is kept")
