"""What the API answers, as models: for the OpenAPI document, and for the tests, which hold every answer to them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, RootModel

from mistudiod.api.fields import Described, Fields, Page
from mistudiod.api.plans import JobPlan
from mistudiod.api.sae_answers import Certificate, Evaluation
from mistudiod.jobs import State
from mistudiod.monitor import Sample
from mistudiod.specs import AnySpec


class BusyJob(Fields):
    id: int
    kind: str
    name: str | None
    progress: dict[str, Any] | None
    eta_s: float | None


class ErrorBody(Fields):
    code: str = Field(description="stable, for programs")
    message: str = Field(description="one sentence for a person")
    fields: dict[str, str] | None = Field(None, description="what is wrong with which field")
    job: BusyJob | None = Field(None, description="of gpu_busy: the job that has the GPU")
    choices: list[str] | None = Field(None, description="of gpu_busy: what can be done, queue or pause")
    type: str | None = Field(None, description="below /v1, as OpenAI's errors have it")
    param: str | None = Field(None, description="below /v1, as OpenAI's errors have it")


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
    name: str = Field(description="the first")
    names: list[str] = Field(description="of all, a name for each SAE of a training")


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
    plan: JobPlan | None = Field(description="what it was expected to take; peak_bytes of the result is what it took")
    progress: Progress | None
    result: dict[str, Any] | None
    error: JobError | None
    attempts: int = Field(description="how often a worker was started for it")
    after: list[int] = Field(description="jobs that must be done first")
    makes: Made | None
    finalize: bool = Field(description="a training that is to come to its end now")
    yielded: bool = Field(description="it was paused for a session, and goes on by itself when that ends")


class JobPage(Page):
    jobs: list[Job]


class Log(Fields):
    job: int
    log: str


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


class Session(Fields):
    """A model and SAEs that stay in memory to be asked."""

    state: Literal["loading", "ready", "busy", "stopping"]
    model: str
    precision: str | None
    device: str | None = Field(description="null until it is loaded")
    saes: list[str] = Field(description="that are in memory")
    pid: int | None
    memory_bytes: int | None = Field(description="memory of its processes, as it was measured last")
    gpu_bytes: int | None
    predicted_bytes: int | None
    started_at: str
    keep_alive_s: float | None = Field(description="how long it stays when nobody uses it; null: for ever")
    expires_at: str | None = Field(description="when it ends if nobody uses it; null while it is used, and for ever")
    held_until: str | None = Field(description="until then no queued job takes the GPU from it")
    paused_jobs: list[int] = Field(description="those that were paused for it, and go on when it ends")
    progress: Progress | None = Field(description="how far loading has come, or what it is asked")


class SessionShown(Fields):
    session: Session | None


class RunningList(Fields):
    running: list[Running]
    session: Session | None = Field(description="the model that stays in memory to be asked, if there is one")


class Artifact(Described):
    id: int
    name: str
    created_at: str
    job: int | None = Field(description="the job that made it")
    folder: str


class Part(Described):
    parameters: int
    weight_bytes: dict[str, int] = Field(description="by the precisions in which it can be loaded")


class Module(Described):
    name: str = Field(description="as 0-21 for so many modules that are alike; of the root it is empty")
    times: int = Field(description="how many modules it stands for")
    parameters: int = Field(description="of all of them together")
    dtype: str | None = Field(description="of a weight, as safetensors calls it; NF4 when packed; null: a module")
    shape: list[int] | None = Field(description="of a weight that is not packed")
    children: list[Module] = Field(description="of one of them")


class Model(Artifact):
    source: str | None = None
    path: str | None = Field(None, description="folder of the weights")
    family: str | None = Field(None, description="model_type of its config")
    n_layers: int | None = Field(None, description="blocks")
    d_model: int | None = Field(None, description="width of the residual stream")
    n_heads: int | None = Field(None, description="attention heads")
    n_kv_heads: int | None = Field(None, description="heads of keys and values")
    d_head: int | None = Field(None, description="width of a head")
    d_mlp: int | None = Field(None, description="neurons in a block")
    vocab_size: int | None = None
    context: int | None = Field(None, description="longest sequence, in tokens")
    parameters: int | None = Field(None, description="tied weights counted once, quantised ones unpacked")
    dtype: str | None = Field(None, description="of the weights that are not quantised")
    quantized: str | None = Field(None, description="the precision in which the weights are stored quantised")
    size_bytes: int | None = Field(None, description="of the weight files")
    weight_bytes: dict[str, int] | None = Field(None, description="of the model in each precision it can be loaded in")
    parts: dict[str, Part] | None = Field(None, description="embedding, block (the largest), norm (the last), head")
    hooks: list[str] | None = Field(None, description="all hook points, in the order in which their values arise")
    hook_widths: dict[str, int] | None = Field(None, description="of the hooks, by point: every block has the same")
    tree: Module | None = Field(None, description="its modules, blocks that are alike told once")
    revision: str | None = Field(None, description="commit on the Hub")
    licence: str | None = None
    chat_template: bool | None = Field(
        None, description="whether it was made for chat; null: nobody has looked, when it was added"
    )


class Dataset(Artifact):
    source: str | None = None
    rows: int | None = None
    bytes: int | None = None
    held_out_rows: int | None = None
    columns: list[str] | None = None
    revision: str | None = Field(None, description="commit on the Hub")
    licence: str | None = None
    text_column: str | None = None
    is_cut: bool | None = Field(None, description="there is more at the source")


class Lengths(Described):
    from_tokens: int = Field(description="up to twice as many, which is the next one's")
    documents: int


class Frequency(Described):
    id: int
    text: str
    count: int


class Tokenization(Artifact):
    dataset: str | None = None
    model: str | None = None
    context: int | None = None
    windows: int | None = None
    held_out_windows: int | None = None
    tokens: int | None = Field(None, description="of the text alone: without BOS, separators and padding")
    documents: int | None = Field(None, description="those that were kept")
    documents_read: int | None = None
    dropped: dict[str, int] | None = Field(None, description="documents by the setting that dropped them")
    bytes_per_token: float | None = None
    length_histogram: list[Lengths] | None = Field(None, description="of the kept documents, by powers of two")
    vocabulary_covered: float | None = Field(None, description="share of the model's tokens that occur")
    unknown_share: float | None = Field(None, description="share of the text that the tokenizer has no token for")
    most_frequent: list[Frequency] | None = None
    least_frequent: list[Frequency] | None = Field(None, description="of those that occur")
    size_bytes: int | None = Field(None, description="of the windows on disk")
    same_as: str | None = Field(None, description="another tokenization whose windows this one shares")


class Sae(Artifact):
    architecture: str | None = None
    hook: str | None = None
    width: int | None = None
    k: int | None = None
    fvu: float | None = Field(None, description="share of variance left unexplained, on held-out tokens")
    l0: float | None = Field(None, description="latents active on a token, on average")
    alive: float | None = Field(None, description="share of latents that fire at all")
    tokens: int | None = None
    imported: dict[str, Any] | None = Field(
        None,
        description="of one that was brought in: source, revision, path, format, files with their sha256, the model, "
        "context and bos that its maker says, declared, notes, pickle, licence",
    )
    certificate: Certificate | None = None
    evaluation: Evaluation | None = None
    tags: list[str] | None = Field(None, description="that a person has given it")
    note: str | None = Field(None, description="that a person has written of it")
    earlier: list[str] | None = Field(None, description="what it was called before, the latest last")


class ModelPage(Page):
    models: list[Model]


class DatasetPage(Page):
    datasets: list[Dataset]


class TokenizationPage(Page):
    tokenizations: list[Tokenization]


class SaePage(Page):
    saes: list[Sae]
