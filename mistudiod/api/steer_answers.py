"""What the API says of steering: runs and their texts, ranges and profiles. What a worker has said may say more."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from mistudiod.api.fields import Described, Fields, Page
from mistudiod.specs import Edit, Steer
from mistudiod.specs.steer import Op


class FeatureActivations(Described):
    """Of an edited feature, over the tokens that were written."""

    sae: str
    feature: int
    mean: float | None
    max: float | None


class Strength(Described):
    sae: str
    feature: int
    op: Op
    strength: float
    scope: str


class AppliedEdit(Strength):
    hook: str
    maximum: float | None = Field(description="largest activation of the feature, in which strengths are counted")
    formula: str = Field(description="what is done to the residual stream, as it is computed")


class NoEffect(Described):
    sae: str
    feature: int
    reason: str = Field(description="dead, inactive, no token or too small")
    message: str


class BaselineText(Described):
    sample: int
    text: str
    ids: list[int]
    tokens: list[str]
    finish: str = Field(description="stop: the model ended it; length: it has as many tokens as it may")
    perplexity: float | None = Field(description="of its tokens, under the model as it is without an edit")
    repetition: float | None = Field(description="1 - distinct 4-grams / 4-grams")
    activations: list[FeatureActivations] = Field(description="as the model without an edit reads the text")


class SteeredText(BaselineText):
    variant: int
    strengths: list[Strength]
    kl: float | None = Field(description="nats: mean over its tokens of KL(steered || unsteered)")
    kl_tokens: list[float | None] | None = Field(description="of each token; null where it is not finite")
    changed: float | None = Field(description="share of its tokens that the baseline of the same sample has not")
    steered_activations: list[FeatureActivations] = Field(description="at the hook, after the edit")
    change_ratio: float | None = Field(description="|change| / |h|, both summed over the tokens that were changed")
    no_effect: list[NoEffect] | None = Field(description="strengths that are not 0 and changed no activation")


class SteerResult(Described):
    sae: str
    model: str
    precision: str
    device: str
    prompt: str = Field(description="of a conversation what the model reads of it")
    prompt_tokens: int
    seed: int
    edits: list[AppliedEdit]
    baseline: BaselineText = Field(description="of the first sample")
    baselines: list[BaselineText] = Field(description="one a sample")
    steered: list[SteeredText] = Field(description="of each sample the variants in their order")
    made: dict[str, Any] = Field(description="versions and hashes of all that it was made with")
    seconds: float
    tokens_per_s: float | None


class Steered(SteerResult):
    id: int = Field(description="of the steering, as it is kept")


class AboutSteering(Fields):
    id: int
    created_at: str
    job: int | None = Field(description="that made it; null: the session did")
    model: str
    sae: str
    starred: bool
    note: str | None


class ListedSteering(AboutSteering):
    prompt: str = Field(description="its beginning; of a conversation the last message's")
    steering: list[Edit]
    sweep: list[float] | None
    samples: int
    seed: int


class SteeringPage(Page):
    steerings: list[ListedSteering] = Field(description="the newest first")


class KeptSteering(AboutSteering):
    spec: Steer = Field(description="as it was run: sent again it is run again")
    result: SteerResult


class LabelledFeature(Fields):
    sae: str
    feature: int
    label: str | None = Field(description="as it is now")


class ExportedSteering(Fields):
    format: Literal["mistudio-steering"]
    version: Literal[1]
    steering: KeptSteering
    labels: list[LabelledFeature] = Field(description="of the features that were edited")


class Sides(Described):
    low: float | None = Field(description="a strength below 0; null: none up to the largest that was tried")
    high: float | None = Field(description="a strength above 0")


class Breaks(Sides):
    why: str | None = Field(description="repetition or perplexity")


class Range(Described):
    feature: int
    kl: dict[str, Sides] = Field(description="by nats: the strengths at which the mean KL is so large")
    breaks: Breaks = Field(description="where texts fall apart")
    maximum: float | None = Field(description="largest activation, the unit of strengths")
    tokens: int = Field(description="of held-out text, by which it was found")
    created_at: str


class RangeList(Fields):
    sae: str
    ranges: list[Range]


class Profile(Fields):
    name: str
    model: str
    steering: list[Edit]
    note: str | None
    created_at: str
    missing: list[str] = Field(description="of its model and SAEs, those that are not here any more")


class ProfileList(Fields):
    profiles: list[Profile]
