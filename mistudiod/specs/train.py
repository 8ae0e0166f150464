"""The spec of a training: of one autoencoder, or of a grid of them from one pass over the activations."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from mistudiod.specs.base import Name, Spec, check_name
from mistudiod.specs.many import Many

_BY_MEMORY = "; as memory allows when not given"
Architecture = Literal[
    "batchtopk", "topk", "matryoshka", "jumprelu", "standard", "gated", "transcoder", "topk_transcoder"
]
TRANSCODERS = ("transcoder", "topk_transcoder")
BY_L1 = ("standard", "gated")
MOST_SAES = 64  # of one training

Hook = Annotated[str, Field(min_length=1, max_length=200)]
Width = Annotated[int, Field(ge=1, le=4_194_304)]
K = Annotated[int, Field(ge=1, le=65_536)]
Weight = Annotated[float, Field(gt=0, le=1000)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]

PRESETS: dict[str, dict[str, Any]] = {
    "quick-look": {"width": 2048, "tokens": 1_000_000, "batch_tokens": 2048},
    "standard": {"width": 8192, "tokens": 10_000_000, "batch_tokens": 4096},
    "research": {"width": 32_768, "tokens": 100_000_000, "batch_tokens": 8192},
}


@dataclass(frozen=True)
class One:
    """One autoencoder of a training: its point of the grid."""

    name: str
    hook: str
    hook_out: str | None  # what a transcoder rebuilds
    architecture: str
    width: int
    k: int
    l1: float | None
    seed: int
    skip: bool

    def parameters(self, d_in: int, d_out: int) -> int:
        """How many numbers are trained."""
        a_latent = d_in + d_out + 1 + {"gated": 2, "jumprelu": 1}.get(self.architecture, 0)
        return self.width * a_latent + d_out + (d_in * d_out if self.skip else 0)


class Train(Spec):
    """Train sparse autoencoders on hooks of a model: one, or one of every combination of the values given."""

    kind: Literal["train"] = "train"
    name: Name = Field(description="what to call the SAE; of several, what their names begin with")
    tokenization: Name = Field(description="name of the tokenization; it knows dataset and model")
    hook: Many[Hook] = Field(description="TransformerLens' name, as blocks.3.hook_resid_post; may be several")
    preset: Literal["quick-look", "standard", "research"] | None = Field(
        None, description="width, tokens and batch_tokens by name, unless they are given"
    )
    architecture: Many[Architecture] = Field(
        default=["batchtopk"], description="kind of SAE; batchtopk is a good first choice; may be several"
    )
    hook_out: Hook | None = Field(
        None, validate_default=True, description="what a transcoder rebuilds, as blocks.3.hook_mlp_out"
    )
    skip: bool = Field(False, description="a transcoder adds a linear map of its input as well")
    width: Many[Width] = Field(
        default=[2048], description="latents (d_sae), commonly 8 to 32 times the width of the hook; may be several"
    )
    k: Many[K] = Field(
        default=[32],
        description="latents active on a token: always, on average, or what jumprelu aims at; may be several",
    )
    l1: Many[Weight] | None = Field(
        None,
        description="weight of L1 for standard and gated: more is sparser; 0.2, for gated 0.3, when not given; "
        "may be several",
    )
    tanh: Weight | None = Field(
        None, description="weight of Anthropic's tanh loss for jumprelu, which then does not aim at k"
    )
    tokens: int = Field(
        2_000_000, ge=1, lt=2**50, description="training tokens, repeated passes counted; more is better"
    )
    steps: int | None = Field(None, ge=1, lt=2**40, description="training steps, instead of tokens")
    batch_tokens: int = Field(4096, ge=16, le=1_048_576, description="tokens in a step")
    lr: float | None = Field(None, gt=0, description="peak learning rate; by width and length when not given")
    seed: Many[Seed] = Field(
        default=[0], description="seed of initialisation, and the first of the order of the text; may be several"
    )
    data_seed: Seed | None = Field(None, description="seed of the order of the text, where it is not the first seed")
    outliers: bool = Field(
        False, description="train and measure on outliers too: tokens whose norm is over 10 times the median"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8", "nf4"] = Field(
        "auto", description="of the model's weights; auto: as they are stored, lower where memory is short"
    )
    forward_tokens: int | None = Field(
        None, ge=8, le=4_194_304, description=f"tokens in a pass of the model{_BY_MEMORY}"
    )
    buffer_tokens: int | None = Field(None, ge=1024, le=2**40, description=f"tokens mixed with each other{_BY_MEMORY}")
    micro_tokens: int | None = Field(
        None, ge=16, le=1_048_576, description=f"tokens of a step taken at once{_BY_MEMORY}"
    )
    saes_at_once: int | None = Field(
        None, ge=1, le=MOST_SAES, description=f"SAEs in one pass over the text{_BY_MEMORY}"
    )
    whole_model: bool | None = Field(
        None, description=f"keep the whole model, for what an SAE costs it in loss while it trains{_BY_MEMORY}"
    )
    evaluate_every: int | None = Field(
        None, ge=1, lt=2**40, description="steps between measurements on held-out text; a tenth of all when not given"
    )
    keep_activations: Literal["no", "bf16", "int8"] = Field(
        "no", description="keep activations on disk in this form, for later runs on the same text and hooks"
    )
    threads: int | None = Field(
        None, ge=1, le=1024, description="CPU threads; all cores when not given; results are equal for equal numbers"
    )
    checkpoint_every_s: float = Field(60.0, gt=0, description="seconds between checkpoints")
    keep_checkpoints: int = Field(
        2,
        ge=1,
        le=100,
        description="checkpoints to keep, besides the best; more than 2 stay when the training is done, to be compared",
    )
    extends: Name | None = Field(None, description="an SAE whose training goes on, up to tokens in all")

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, data: Any) -> Any:
        preset = data.get("preset") if isinstance(data, dict) else None
        return {**PRESETS[preset], **data} if isinstance(preset, str) and preset in PRESETS else data

    @field_validator("hook_out", "skip", "l1", "tanh")
    @classmethod
    def _of_its_architecture(cls, value: Any, info: ValidationInfo) -> Any:
        """Each of these belongs to some architectures only, and a transcoder must be told what to rebuild."""
        architectures, field = info.data.get("architecture"), str(info.field_name)  # absent when it was wrong itself
        if architectures is None:
            return value
        takers = {"l1": BY_L1, "tanh": ("jumprelu",)}.get(field, TRANSCODERS)
        taking = [one for one in architectures if one in takers]
        if value and not taking:
            named = " and ".join(architectures)
            raise ValueError(f"is for {' and '.join(takers)}, and the architecture is {named}: leave it out")
        if field == "hook_out" and taking:
            if value is None:
                raise ValueError(f"must be given for a {taking[0]}, as blocks.3.hook_mlp_out")
            if len(info.data.get("hook", [])) > 1:
                raise ValueError("belongs to one hook: give one, or train other hooks by another job")
        return value

    @field_validator("k")
    @classmethod
    def _k_within_width(cls, k: list[int], info: ValidationInfo) -> list[int]:
        width = info.data.get("width")  # absent when it was wrong itself
        if width and max(k) > min(width):
            raise ValueError(f"must not be larger than width ({min(width)})")
        return k

    @model_validator(mode="after")
    def _grid_is_bounded(self) -> Train:
        found = self.saes()
        if len(found) > MOST_SAES:
            raise ValueError(f"asks for {len(found)} SAEs, and one training makes {MOST_SAES} at most: ask for fewer")
        for one in found:
            check_name(one.name)
        if self.extends and len(found) > 1:
            raise ValueError("extends continues one SAE: give one value of each")
        return self

    def saes(self) -> list[One]:
        """Every autoencoder of the grid, in order; what an architecture does not heed makes no difference."""
        found: dict[tuple[Any, ...], None] = {}
        l1s: list[float | None] = [*self.l1] if self.l1 else [None]
        values = (self.hook, self.architecture, self.width, self.k, l1s, self.seed)
        for hook, architecture, width, k, l1, seed in itertools.product(*values):
            by_l1 = architecture in BY_L1
            found[hook, architecture, width, self.k[0] if by_l1 else k, l1 if by_l1 else None, seed] = None
        points = [dict(zip(_AXES, point, strict=True)) for point in found]
        varying = [axis for axis in _AXES if len({point[axis] for point in points}) > 1]
        return [self._one(point, varying) for point in points]

    def _one(self, point: Mapping[str, Any], varying: Sequence[str]) -> One:
        transcodes = point["architecture"] in TRANSCODERS
        return One(
            name="-".join([self.name, *(_named(axis, point[axis]) for axis in varying if point[axis] is not None)]),
            hook_out=self.hook_out if transcodes else None,
            skip=self.skip and transcodes,
            **point,
        )

    def only(self, one: One) -> Train:
        """The spec that makes this one alone, from the text in the same order."""
        values = {axis: None if (value := getattr(one, axis)) is None else [value] for axis in _AXES}
        more: dict[str, Any] = {"name": one.name, "hook_out": one.hook_out, "skip": one.skip}
        more["data_seed"] = None if self.order_seed == one.seed else self.order_seed
        if one.architecture != "jumprelu":
            more["tanh"] = None
        return self.model_copy(update=values | more)

    @property
    def order_seed(self) -> int:
        """Of the order of the text, which all autoencoders of a grid see alike."""
        return self.seed[0] if self.data_seed is None else self.data_seed

    @property
    def hooks(self) -> list[str]:
        """Where activations are read, side by side, each once: what is read, then what is rebuilt."""
        return list(dict.fromkeys([*self.hook, *([self.hook_out] if self.hook_out else [])]))


_AXES = ("hook", "architecture", "width", "k", "l1", "seed")


def _named(axis: str, value: Any) -> str:
    """What an axis adds to a name: ``blocks.3.hook_resid_post`` → 3-resid-post, a width of 4096 → w4096."""
    if axis == "hook":
        return str(value).removeprefix("blocks.").replace("hook_", "").replace(".", "-").replace("_", "-")
    if axis == "architecture":
        return str(value)
    return f"{ {'width': 'w', 'k': 'k', 'l1': 'l1-', 'seed': 's'}[axis] }{value}"
