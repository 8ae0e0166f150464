"""What the API answers, as models: for the OpenAPI document, and for the tests, which hold every answer to them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel, model_validator

from mistudiod.jobs import State
from mistudiod.monitor import Sample
from mistudiod.specs import AnySpec


class Fields(BaseModel):
    """Known fields only; what was sent is never repeated in an error."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _not_flooded(cls, data: Any) -> Any:
        # Each unknown field is an error of its own, some 1 kB: a body of them would take gigabytes.
        if isinstance(data, dict) and len(data) > len(cls.model_fields) + 5:
            raise ValueError("has many fields that there are not")
        return data


class Described(BaseModel):
    """An artifact's folder may say more of it than is listed here, or less."""

    model_config = ConfigDict(extra="allow", hide_input_in_errors=True)


class Page(Fields):
    next: str | None = Field(description="give it as cursor for what follows; null at the end")


class ErrorBody(Fields):
    code: str = Field(description="stable, for programs")
    message: str = Field(description="one sentence for a person")
    fields: dict[str, str] | None = Field(None, description="what is wrong with which field")


class Error(Fields):
    error: ErrorBody


class Status(Fields):
    name: Literal["mistudio"]
    version: str
    python: str
    data: str = Field(description="the data folder")
    jobs: dict[State, int] = Field(description="how many jobs are in each unfinished state")
    same_user: bool = Field(description="the caller is the daemon's own user, as far as the connection tells")
    machine: str = Field(description="a mark of the daemon's machine, until it is started anew")


class Document(Described):
    openapi: str
    info: dict[str, Any]
    paths: dict[str, Any]


class System(RootModel[Sample | None]):
    """The latest reading of the machine; null when there is none yet."""


class SystemHistory(Fields):
    samples: list[Sample]


class Progress(Fields):
    stage: str
    done: float
    total: float | None
    unit: str
    eta_s: float | None


class JobError(Fields):
    code: str
    message: str
    field: str | None = Field(None, description="the field of the spec that is at fault")
    log: str | None = Field(None, description="the worker's last words")
    job: int | None = Field(None, description="the job that this one waited for")


class Made(Fields):
    noun: str
    name: str


class Job(Fields):
    id: int
    kind: str
    lane: Literal["gpu", "io"]
    state: State
    priority: int
    created_at: str
    started_at: str | None
    ended_at: str | None
    spec: AnySpec
    progress: Progress | None
    result: dict[str, Any] | None
    error: JobError | None
    attempts: int = Field(description="how often a worker was started for it")
    after: list[int] = Field(description="jobs that must be done first")
    makes: Made | None


class JobPage(Page):
    jobs: list[Job]


class Log(Fields):
    job: int
    log: str


class Metric(Fields):
    step: int
    values: dict[str, float | None]


class MetricPage(Fields):
    metrics: list[Metric]
    next: int | None = Field(description="give it as after_step for what follows")


class Running(Fields):
    job: int
    kind: str
    name: str | None
    state: State
    stage: str | None
    done: float | None
    total: float | None
    unit: str | None
    eta_s: float | None
    pid: int | None
    predicted_bytes: int | None
    measured_bytes: int | None = Field(description="memory of the worker's processes")
    gpu_bytes: int | None


class RunningList(Fields):
    running: list[Running]


class Artifact(Described):
    id: int
    name: str
    created_at: str
    job: int | None = Field(description="the job that made it")
    folder: str


class Model(Artifact):
    source: str | None = None
    path: str | None = None
    family: str | None = None
    n_layers: int | None = None
    d_model: int | None = None
    vocab_size: int | None = None
    context: int | None = None
    parameters: int | None = None
    dtype: str | None = None
    size_bytes: int | None = None
    hooks: list[str] | None = None


class Dataset(Artifact):
    source: str | None = None
    rows: int | None = None
    bytes: int | None = None
    held_out_rows: int | None = None
    columns: list[str] | None = None


class Tokenization(Artifact):
    dataset: str | None = None
    model: str | None = None
    context: int | None = None
    windows: int | None = None
    tokens: int | None = None
    documents: int | None = None


class Sae(Artifact):
    hook: str | None = None
    width: int | None = None
    k: int | None = None
    fvu: float | None = Field(None, description="share of variance left unexplained, on held-out tokens")
    l0: float | None = Field(None, description="latents active on a token, on average")
    alive: float | None = Field(None, description="share of latents that fire at all")
    tokens: int | None = None


class ModelPage(Page):
    models: list[Model]


class DatasetPage(Page):
    datasets: list[Dataset]


class TokenizationPage(Page):
    tokenizations: list[Tokenization]


class SaePage(Page):
    saes: list[Sae]


class Row(Described):
    text: str


class Rows(Fields):
    rows: list[Row]


class Example(Described):
    tokens: list[str]
    activations: list[float]
    peak: int = Field(description="index of the token on which the feature fires most")


class Feature(Described):
    index: int
    max: float | None = None
    mean: float | None = None
    density: float | None = Field(None, description="share of tokens on which it fires")
    examples: list[Example]


class FeatureOfSae(Feature):
    sae: str


class FeaturePage(Page):
    sae: str
    features: list[Feature]
