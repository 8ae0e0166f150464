"""What the API says of plans, as models."""

from __future__ import annotations

from pydantic import Field

from mistudiod.api.fields import Fields
from mistudiod.budget import Device
from mistudiod.plan_train import Phase


class BudgetAnswer(Fields):
    device: Device = Field(description="cuda: a GPU with memory of its own; unified: one that shares the machine's")
    name: str
    total_bytes: int | None
    free_bytes: int | None
    reserve_bytes: int = Field(description="of the free bytes, those that must stay free")
    host_free_bytes: int | None = Field(description="of the machine's memory, beside a GPU's own")


class ChoiceAnswer(Fields):
    value: str | int | bool
    automatic: bool = Field(description="false: set in the spec, and never changed")


class LineAnswer(Fields):
    part: str
    bytes: int = Field(description="the most it takes in any phase of the job")
    at_peak_bytes: int = Field(description="what it takes in the phase that takes most")


class WayAnswer(Fields):
    field: str = Field(description="of the spec")
    value: str | int | bool
    total_bytes: int
    fits: bool


class PlanAnswer(Fields):
    verdict: str = Field(description="one sentence for a person")
    fits: bool | None = Field(description="null when it is not known how much is free")
    total_bytes: int = Field(description="the peak and the reserve")
    peak_bytes: int
    peak_phase: Phase
    formula_bytes: int = Field(description="the peak without what was measured before")
    measured: bool = Field(description="a measurement of a like run corrects the peak")
    host_bytes: int | None = Field(description="of the machine's memory, beside a GPU's own")
    disk_bytes: int = Field(description="checkpoints and the SAE")
    seconds: float | None = Field(description="null when no run of these sizes was measured")
    layers: int = Field(description="blocks of the model that are loaded")
    model_layers: int
    budget: BudgetAnswer
    choices: dict[str, ChoiceAnswer]
    parts: list[LineAnswer]
    phases: dict[Phase, int]
    ways: list[WayAnswer] = Field(description="what would fit, one change each, when this does not")


class JobPlan(PlanAnswer):
    restarts: int = Field(description="how often the worker ran out of memory and was given half as much at a time")
