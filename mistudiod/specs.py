"""Every kind of job as a pydantic model: the product's vocabulary, and the source of CLI options and API schema."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HUB_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)?")
_REVISION = re.compile(r"\w[\w.+-]*(/\w[\w.+-]*)*", re.ASCII)


def is_hub_id(source: str) -> bool:
    """Whether a source has the form of a repository's id on the Hub, as org/name; no absolute path has."""
    return _HUB_ID.fullmatch(source) is not None


def check_name(name: str) -> str:
    """A name is a folder's name and part of a URL, and never looks like an id."""
    if not _NAME.fullmatch(name) or name.isdigit() or ".." in name:
        raise ValueError(
            "must be 1 to 64 letters, digits, '.', '_' or '-', begin with a letter or digit, not be a number"
        )
    return name


Name = Annotated[str, AfterValidator(check_name)]
Pattern = Annotated[str, Field(min_length=1, max_length=1000)]
Priority = Annotated[int, Field(ge=-100, le=100, description="higher goes first, then order of arrival")]


class Spec(BaseModel):
    model_config = ConfigDict(
        defer_build=True, extra="forbid", hide_input_in_errors=True, frozen=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _not_flooded(cls, data: Any) -> Any:
        # Each unknown field is an error of its own, some 1 kB: a body of them would take gigabytes.
        if isinstance(data, dict) and len(data) > len(cls.model_fields) + 5:
            raise ValueError("has many fields that there are not")
        return data


class AddModel(Spec):
    """Register a language model."""

    kind: Literal["add_model"] = "add_model"
    source: str = Field(
        min_length=1,
        max_length=4096,
        description="owner/name of a model of the Hub; a Hugging Face folder on this machine; or builtin:pico",
    )
    name: Name = Field(description="what to call it")
    revision: str | None = Field(
        None, max_length=200, description="branch, tag or commit of a model of the Hub; main when not given"
    )

    @field_validator("revision")
    @classmethod
    def _revision_of_the_hub(cls, revision: str | None, info: ValidationInfo) -> str | None:
        if revision is not None and not _REVISION.fullmatch(revision):
            raise ValueError("must be the name of a branch or tag, or the sha of a commit")
        source = info.data.get("source")  # absent when it was wrong itself
        if revision is not None and source is not None and not is_hub_id(source):
            raise ValueError("is for a model of the Hub: leave it out")
        return revision


_DATASET_SOURCE = (
    "owner/name of a dataset of the Hub; a .txt, .md, .py, .jsonl, .json, .csv, .parquet or .arrow file, "
    "also as .gz or .zst; a folder of them; or builtin:python"
)
Label = Annotated[str, Field(min_length=1, max_length=256)]  # of a column, a split, a configuration


class AddDataset(Spec):
    """Bring text into the studio."""

    kind: Literal["add_dataset"] = "add_dataset"
    source: str = Field(min_length=1, max_length=4096, description=_DATASET_SOURCE)
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
    shortest: int | None = Field(None, ge=1, lt=2**53, description="drop documents of fewer tokens")
    longest: int | None = Field(None, ge=1, lt=2**53, description="drop documents of more tokens")
    drop_duplicates: bool = Field(False, description="drop documents whose text has come before")
    max_unprintable: float | None = Field(
        None, ge=0, lt=1, description="drop documents with a larger share of characters that cannot be printed"
    )
    must_match: Pattern | None = Field(None, description="drop documents in which this is not found; RE2's syntax")
    must_not_match: Pattern | None = Field(None, description="drop documents in which this is found; RE2's syntax")

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


_BY_MEMORY = "; as memory allows when not given"


class Train(Spec):
    """Train a sparse autoencoder on one hook of a model."""

    kind: Literal["train"] = "train"
    name: Name = Field(description="what to call the SAE")
    tokenization: Name = Field(description="name of the tokenization; it knows dataset and model")
    hook: str = Field(min_length=1, max_length=200, description="TransformerLens' name, as blocks.3.hook_resid_post")
    architecture: Literal["topk"] = Field("topk", description="kind of SAE")
    width: int = Field(2048, ge=1, le=4_194_304, description="latents (d_sae)")
    k: int = Field(32, ge=1, le=65536, description="latents active on a token")
    tokens: int = Field(2_000_000, ge=1, description="training tokens, repeated passes counted")
    steps: int | None = Field(None, ge=1, description="training steps, instead of tokens")
    batch_tokens: int = Field(4096, ge=16, le=1_048_576, description="tokens in a step")
    lr: float | None = Field(None, gt=0, lt=1, description="peak learning rate; by width when not given")
    seed: int = Field(0, ge=0, lt=2**31, description="seed of initialisation and order")
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8", "nf4"] = Field(
        "auto", description="of the model's weights; auto: as they are stored, lower where memory is short"
    )
    forward_tokens: int | None = Field(
        None, ge=8, le=4_194_304, description=f"tokens in a pass of the model{_BY_MEMORY}"
    )
    buffer_tokens: int | None = Field(None, ge=1024, le=2**40, description=f"tokens shuffled together{_BY_MEMORY}")
    micro_tokens: int | None = Field(
        None, ge=16, le=1_048_576, description=f"tokens of a step taken at once{_BY_MEMORY}"
    )
    checkpoint_every_s: float = Field(60.0, gt=0, description="seconds between checkpoints")

    @field_validator("k")
    @classmethod
    def _k_within_width(cls, k: int, info: ValidationInfo) -> int:
        width = info.data.get("width")  # absent when it was wrong itself
        if width is not None and k > width:
            raise ValueError(f"must not be larger than width ({width})")
        return k


class Extract(Spec):
    """Find the texts on which an SAE's features fire most."""

    kind: Literal["extract"] = "extract"
    sae: Name = Field(description="name of the SAE")
    tokens: int = Field(200_000, ge=128, description="tokens to read")
    features: int = Field(10, ge=1, le=10_000, description="features to keep examples of")
    examples: int = Field(5, ge=1, le=100, description="examples of each feature")


class Strength(Spec):
    feature: int = Field(ge=0, description="index of the feature")
    strength: float = Field(ge=-10_000, le=10_000, description="added: strength x the feature's unit decoder row")


class Steer(Spec):
    """Write a continuation with and without features amplified or suppressed."""

    kind: Literal["steer"] = "steer"
    sae: Name = Field(description="name of the SAE")
    prompt: str = Field(min_length=1, max_length=20_000, description="text to continue")
    strengths: list[Strength] = Field(min_length=1, max_length=100, description="features and their strengths")
    max_tokens: int = Field(60, ge=1, le=4096, description="tokens to write")
    temperature: float = Field(0.7, ge=0, le=5, description="0 takes the likeliest token")
    seed: int = Field(0, ge=0, lt=2**31, description="seed of the sampling, the same for both texts")


class SampleDataset(Spec):
    """Read a few documents of a dataset. A preview: never queued, never stored."""

    kind: Literal["sample_dataset"] = "sample_dataset"
    dataset: Name = Field(description="name of the dataset")
    rows: int = Field(5, ge=1, le=20, description="documents to show")
    offset: int | None = Field(
        default=None, ge=0, lt=2**53, description="row to begin at, from 0; documents from all over when not given"
    )


class PreviewDataset(Spec):
    """Look at a source of text before anything is stored. A preview: never queued, never stored."""

    kind: Literal["preview_dataset"] = "preview_dataset"
    source: str = Field(min_length=1, max_length=4096, description=_DATASET_SOURCE)
    config: Label | None = Field(None, description="configuration of a dataset of the Hub; its default when not given")
    split: Label | None = Field(
        None, description="split of a dataset of the Hub; train, or its only one, when not given"
    )
    rows: int = Field(5, ge=1, le=20, description="rows to show")


class PreviewTokens(Spec):
    """Show a text as a model's tokens. A preview: never queued, never stored."""

    kind: Literal["preview_tokens"] = "preview_tokens"
    model: Name = Field(description="name of the model whose tokenizer is used")
    text: str = Field(min_length=1, max_length=20_000, description="text to show as tokens")


class ProbeDevice(Spec):
    """Find out what this machine computes with, and in which precisions. A preview: never queued, never stored."""

    kind: Literal["probe_device"] = "probe_device"


AnySpec = Annotated[AddModel | AddDataset | Tokenize | Train | Extract | Steer, Field(discriminator="kind")]
KINDS: dict[str, type[Spec]] = {
    model.model_fields["kind"].default: model for model in (AddModel, AddDataset, Tokenize, Train, Extract, Steer)
}
PREVIEWS: dict[str, type[Spec]] = {
    "sample_dataset": SampleDataset,
    "preview_dataset": PreviewDataset,
    "preview_tokens": PreviewTokens,
    "probe_device": ProbeDevice,
}
LANES = {"add_model": "io", "add_dataset": "io", "tokenize": "io", "train": "gpu", "extract": "gpu", "steer": "gpu"}


class JobRequest(Spec):
    """What POST /api/jobs takes."""

    spec: AnySpec
    after: list[Annotated[int, Field(ge=1, lt=2**62)]] = Field(
        default_factory=list, max_length=100, description="jobs that must be done first"
    )
    priority: Priority = 0


# Which noun each kind makes under its ``name``, and which artifacts it reads: {field: noun}.
MAKES = {"add_model": "model", "add_dataset": "dataset", "tokenize": "tokenization", "train": "sae"}
USES: dict[str, dict[str, str]] = {
    "add_model": {},
    "add_dataset": {},
    "tokenize": {"dataset": "dataset", "model": "model"},
    "train": {"tokenization": "tokenization"},
    "extract": {"sae": "sae"},
    "steer": {"sae": "sae"},
}

# Names of the secrets that a kind's worker is handed; no other worker gets any.
NEEDS: dict[str, tuple[str, ...]] = {"add_model": ("hf",), "add_dataset": ("hf",), "preview_dataset": ("hf",)}
