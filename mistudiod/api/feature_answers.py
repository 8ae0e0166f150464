"""What the API answers about the features of an SAE, as models."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from mistudiod.api.fields import Described, Fields, Page
from mistudiod.api.steer_answers import Range


class ShortLabel(Described):
    text: str
    provider: str = Field(description="person, tokens, or the endpoint that was asked")
    confidence: float | None
    status: str = Field(description="proposed, accepted or rejected")


class FeatureExample(Fields):
    kind: Literal["top", "band", "random", "near"] = Field(
        description="one of the strongest, of a band of values, any, or where the feature nearly fired"
    )
    band: int | None = Field(description="of a band: which fifth of the maximum, 0 the lowest")
    row: int = Field(description="which of the windows that were read")
    window: int = Field(description="its number in the tokenization")
    first: int = Field(description="position in the window of the first token shown")
    peak: int = Field(description="index of the token that the example is about")
    max: float = Field(description="activation there, 0 where the feature nearly fired")
    held_out: bool = Field(description="for scoring labels, which are not made from it")
    ids: list[int]
    texts: list[str] = Field(description="joined they are the text; a character of several tokens is with the last")
    activations: list[float]


class FeatureToken(Fields):
    id: int
    text: str
    fired: int = Field(description="on how many of these tokens the feature fires")
    read: int = Field(description="how many of them there are")
    share: float = Field(description="of all on which it fires")
    rate: float = Field(description="of these, on which it fires")


class Logit(Fields):
    id: int
    text: str
    value: float


class Histogram(Fields):
    edges: list[float]
    counts: list[int] = Field(description="activations, one fewer than edges; the outer bins hold all beyond as well")


class LogitHistogram(Fields):
    low: float
    high: float
    counts: list[int] = Field(description="tokens of the vocabulary in equal bins from low to high")


class Logits(Fields):
    top: list[Logit] = Field(description="tokens that the feature promotes most")
    bottom: list[Logit]
    histogram: LogitHistogram


class Neighbour(Fields):
    index: int
    cosine: float = Field(description="of the decoder rows")


class Cofiring(Fields):
    index: int
    share: float = Field(description="of the tokens on which the feature fires, on which this one does too")
    jaccard: float = Field(description="tokens with both / tokens with either")


class Neighbours(Fields):
    decoder: list[Neighbour]
    cofiring: list[Cofiring]


class ForLabels(Fields):
    fired: int = Field(description="tokens on which it fires")
    tokens: list[FeatureToken] = Field(description="on which it fires most")


class FeatureNumbers(Fields):
    index: int
    fired: int = Field(description="tokens on which it fires")
    density: float = Field(description="share of tokens on which it fires")
    max: float
    mean: float | None = Field(description="over the tokens on which it fires; null when it is dead")
    typical: float = Field(
        description="activation at the peak of the weakest of the strongest examples; 0: there are few"
    )
    dead: bool = Field(description="it never fires")


class FeatureRow(FeatureNumbers):
    tokens: list[str] = Field(description="on which it fires most, three at most")
    label: ShortLabel | None
    score: float | None = Field(description="balanced accuracy of the label, by the best evidence there is")
    starred: bool


class ListedFeature(FeatureRow):
    example: FeatureExample | None = Field(None, description="the strongest, when asked for")


class FeaturePage(Page):
    sae: str
    extraction: str = Field(description="of which the features are: the newest")
    total: int = Field(description="features that fulfil the filter")
    features: list[ListedFeature]


class Feature(FeatureNumbers):
    sae: str
    extraction: str
    std: float | None
    histogram: Histogram
    logits: Logits | None = Field(description="null where the SAE does not rebuild the residual stream")
    neighbours: Neighbours
    tokens: list[FeatureToken] = Field(description="on which it fires most")
    for_labels: ForLabels = Field(description="the same of the windows that labels may be made from")
    examples: list[FeatureExample] = Field(description="the strongest first")
    label: dict[str, Any] | None
    score: dict[str, Any] | None
    marks: dict[str, Any] = Field(description="starred, note and lists")
    range: Range | None = Field(description="strengths to steer with; null: not found for the SAE as it is")


class Place(Fields):
    row: int = Field(description="which of the windows that were read")
    window: int = Field(description="its number in the tokenization")
    position: int = Field(description="of the token in the window")
    texts: list[str]
    peak: int = Field(description="index of the token in texts")


class Occurrence(Place):
    value: float = Field(description="activation")


class OccurrencePage(Page):
    sae: str
    extraction: str
    index: int
    total: int
    occurrences: list[Occurrence] = Field(description="in the order of the text")


class WholeWindow(Fields):
    sae: str
    extraction: str
    index: int
    row: int = Field(description="which of the windows that were read")
    window: int = Field(description="its number in the tokenization")
    texts: list[str] = Field(description="joined they are the text; a character of several tokens is with the last")
    activations: list[float] | None = Field(description="of each token; null when the extraction kept no postings")


class PromptMessage(Fields):
    role: str
    content: str


class Prompt(Fields):
    template: str
    evidence: bool = Field(description="there is a text to show; if not, the feature is not asked about")
    messages: list[PromptMessage]


class SharedPlace(Place):
    a: float = Field(description="activation of a")
    b: float


class Comparison(Fields):
    sae: str
    extraction: str
    a: FeatureRow
    b: FeatureRow
    cosine: float | None = Field(description="of the decoder rows; null where the weights cannot be read")
    both: int | None = Field(description="tokens on which both fire; null when the extraction kept no postings")
    jaccard: float | None = Field(description="of these and the tokens on which one of them fires")
    shared: list[SharedPlace] | None = Field(description="where both fire most, each in another window")
