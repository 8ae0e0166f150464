"""What the API says of a training on its way, as models: measures, what is being learned, checkpoints."""

from __future__ import annotations

from pydantic import Field

from mistudiod.api.fields import Fields


class Metric(Fields):
    step: int
    sae: str | None = Field(description="whose; null: of the job as a whole")
    values: dict[str, float | None]


class MetricPage(Fields):
    metrics: list[Metric]
    next: int | None = Field(description="give it as after_step for what follows")


class Window(Fields):
    value: float = Field(description="the feature's activation on the token")
    before: str
    token: str
    after: str


class LiveFeature(Fields):
    feature: int
    density: float = Field(description="share of the tokens so far on which it fires")
    windows: list[Window] = Field(description="the strongest so far, at most five")


class Live(Fields):
    sae: str
    step: int
    features: list[LiveFeature]


class LiveList(Fields):
    saes: list[Live]


class Checkpoint(Fields):
    step: int
    bytes: int
    at: str
    saes: list[str] | None = Field(description="those that are trained together, where the grid is split into passes")
    fvu: float | None = Field(description="on held-out text, where it was measured; the mean of several SAEs")
    best: bool = Field(description="the best of these SAEs so far, which is kept beside the newest")


class CheckpointList(Fields):
    checkpoints: list[Checkpoint]
