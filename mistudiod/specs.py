"""Every kind of job as a pydantic model: the product's vocabulary, and the source of CLI options and API schema."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check_name(name: str) -> str:
    """A name is a folder's name and part of a URL, and never looks like an id."""
    if not _NAME.fullmatch(name) or name.isdigit() or ".." in name:
        raise ValueError(
            "must be 1 to 64 letters, digits, '.', '_' or '-', begin with a letter or digit, not be a number"
        )
    return name


Name = Annotated[str, AfterValidator(check_name)]
Priority = Annotated[int, Field(ge=-100, le=100, description="higher goes first, then order of arrival")]


class Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, frozen=True, allow_inf_nan=False)

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
        min_length=1, max_length=4096, description="builtin:pico, or a Hugging Face folder on this machine"
    )
    name: Name = Field(description="what to call it")


class AddDataset(Spec):
    """Bring text into the studio."""

    kind: Literal["add_dataset"] = "add_dataset"
    source: str = Field(
        min_length=1,
        max_length=4096,
        description="builtin:python, or a .txt, .md, .py, .jsonl or .parquet file or a folder of them",
    )
    name: Name = Field(description="what to call it")
    text_column: str = Field("text", min_length=1, max_length=256, description="column or key that holds the text")


class Tokenize(Spec):
    """Turn a dataset into packed windows of a model's tokens."""

    kind: Literal["tokenize"] = "tokenize"
    dataset: Name = Field(description="name of the dataset")
    model: Name = Field(description="name of the model whose tokenizer is used")
    name: Name = Field(description="what to call the tokenization")
    context: int = Field(128, ge=8, le=131072, description="tokens in a window, the leading BOS among them")


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


AnySpec = Annotated[AddModel | AddDataset | Tokenize | Train | Extract | Steer, Field(discriminator="kind")]
KINDS: dict[str, type[Spec]] = {
    model.model_fields["kind"].default: model for model in (AddModel, AddDataset, Tokenize, Train, Extract, Steer)
}
PREVIEWS: dict[str, type[Spec]] = {"sample_dataset": SampleDataset}
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
NEEDS: dict[str, tuple[str, ...]] = {"add_model": ("hf",), "add_dataset": ("hf",)}
