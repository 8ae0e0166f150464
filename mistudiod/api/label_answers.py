"""What the API says of labels, of what they are worth, and of what a person has marked; and what it takes in."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from mistudiod.api.fields import Described, Fields
from mistudiod.events import MAX_EXPLANATION_CHARS, MAX_LABEL_CHARS, Feature, NewScore
from mistudiod.specs import Name

AT_ONCE = 10_000  # labels of one import
Status = Literal["proposed", "accepted", "rejected"]
Text = Annotated[str, StringConstraints(max_length=MAX_LABEL_CHARS, pattern=r"\S")]
Explanation = Annotated[str, Field(max_length=MAX_EXPLANATION_CHARS)]
Known = Annotated[str, Field(max_length=200)]


class FeatureLabel(Fields):
    id: int
    sae: str
    feature: int = Field(description="index of the feature")
    text: str
    explanation: str | None
    confidence: float | None = Field(description="0 to 1, as whoever gave it says")
    provider: str = Field(description="person, tokens, or the endpoint that was asked")
    model: str | None
    template: str | None = Field(description="the prompt")
    template_sha256: str | None
    extraction: str | None = Field(description="of which it was made")
    job: int | None
    prompt_tokens: int | None
    answer_tokens: int | None
    created_at: str
    status: Status = Field(description="what a person thinks of it")
    evidence: dict[str, Any] | None = Field(description="what it was made from")
    current: bool = Field(description="it is the one that is shown")


class LabelScore(Fields):
    id: int
    label: int = Field(description="id of the label")
    method: str
    judge: str | None = Field(description="the model that judged")
    balanced_accuracy: float | None
    low: float | None
    high: float | None
    auroc: float | None
    auroc_low: float | None
    auroc_high: float | None
    tp: int
    fp: int
    tn: int
    fn: int
    failed: int = Field(description="examples without a usable answer")
    examples: int
    extraction: str | None
    job: int | None
    created_at: str


class ScoredLabel(FeatureLabel):
    scores: list[LabelScore] = Field(description="the newest first")


class LabelFailure(Fields):
    job: int | None
    reason: str
    at: str


class LabelHistory(Fields):
    labels: list[ScoredLabel] = Field(description="the newest first")
    failure: LabelFailure | None = Field(description="why the last try gave none")


class LabelText(Fields):
    text: Text = Field(description="what the feature stands for, in a few words")
    explanation: Explanation | None = None


class Marks(Fields):
    starred: bool
    note: str | None
    lists: list[str]


class MarksEdit(Fields):
    """What is left out stays as it is."""

    starred: bool | None = None
    note: str | None = Field(None, max_length=10_000, description="null or empty: none")
    lists: list[Name] | None = Field(None, max_length=100, description="all the lists that it is to be in")

    @model_validator(mode="after")
    def _something(self) -> MarksEdit:
        if not self.model_fields_set:
            raise ValueError("give at least one of starred, note and lists")
        for name in ("starred", "lists"):
            if name in self.model_fields_set and getattr(self, name) is None:
                raise ValueError(f"{name} cannot be null")
        return self


class FeatureList(Fields):
    name: str
    features: int = Field(description="how many it has")


class FeatureLists(Fields):
    lists: list[FeatureList]


class ImportedScore(NewScore):
    """As it is exported; ids and job are another studio's."""

    feature: Feature | None = None  # type: ignore[assignment]
    id: int | None = None
    extraction: Known | None = None
    job: int | None = None
    created_at: Known | None = None


class ImportedLabel(Fields):
    """As it is exported; ``id``, ``sae`` and ``job`` are another studio's."""

    feature: Feature
    text: Text
    explanation: Explanation | None = None
    confidence: float | None = Field(None, ge=0, le=1)
    provider: str = Field("person", pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    model: Known | None = None
    template: Known | None = None
    template_sha256: Known | None = None
    extraction: Known | None = None
    evidence: dict[str, Any] | None = None
    prompt_tokens: int | None = Field(None, ge=0, lt=2**53)
    answer_tokens: int | None = Field(None, ge=0, lt=2**53)
    created_at: Known | None = None
    status: Status = "proposed"
    current: bool | None = None
    scores: list[ImportedScore] = Field(default_factory=list, max_length=1000)
    id: int | None = None
    sae: Known | None = None
    job: int | None = None


class LabelImport(Fields):
    labels: list[ImportedLabel] = Field(max_length=AT_ONCE)


class LabelsImported(Fields):
    imported: int
    known: int = Field(description="labels that were here already")


class ProvidedLabels(Fields):
    provider: str
    status: Status
    features: int


class FailedLabels(Fields):
    reason: str
    features: int


class Worth(Fields):
    method: str
    judge: str | None
    features: int
    mean: float | None = Field(description="of the balanced accuracies")
    low: float | None = Field(description="of its 95 % interval over features")
    high: float | None
    failed: int = Field(description="examples without a usable answer")


class LabelSummary(Fields):
    labelled: int = Field(description="features that have a label")
    history: int = Field(description="labels that there are in all")
    providers: list[ProvidedLabels] = Field(description="of the labels that are shown")
    failures: list[FailedLabels] = Field(description="why others have none, the most frequent reasons first")
    scores: list[Worth]


class Estimate(Described):
    features: int = Field(description="how many are still to do")
    calls: int
    prompt_tokens: int
    answer_tokens: int
    cost_usd: float | None = Field(description="null: nobody knows")
    lane: str
    why: str = Field(description="it is that lane")
    endpoint: str | None
    url: str | None
    model: str | None
