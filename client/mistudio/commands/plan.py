"""``mistudio plan``: what a job would take, before it is started."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from mistudio import human, names, output
from mistudio.commands.dataset import name_of
from mistudio.options import Call, Noun, SpecVerb, pass_call

OF_A_JOB = ("after", "priority", "detach")  # which a plan is not
_PARTS = {
    "weights": "the model's weights",
    "runtime": "runtime and libraries",
    "loading": "while weights are converted",
    "forward": "the model's forward pass",
    "buffer": "buffer of activations",
    "sae": "the SAE's parameters",
    "gradients": "gradients",
    "optimizer": "optimizer",
    "step": "a step of the SAE",
    "evaluation": "measuring while it trains",
    "measuring": "measuring",
    "reserve": "reserve, which must stay free",
}


class PlanVerb(SpecVerb):
    """The options of the job's own command, without those that only a queue heeds."""

    def get_params(self, context: click.Context) -> list[click.Parameter]:
        return [one for one in super().get_params(context) if one.name not in OF_A_JOB]


@click.group("plan", cls=Noun)
def plan() -> None:
    """See what a job would take, before it is started."""


@plan.command("train", cls=PlanVerb, kind="train", derived={"name": "TOKENIZATION-<hook>"})
@pass_call
def plan_training(call: Call, /, tokenization: str, hook: list[str], name: str | None, **fields: Any) -> None:
    """Say what a training would take of memory, disk and time, whether it fits, and what would."""
    name = name or names.of_sae(name_of(call, "tokenization", tokenization), hook)
    given = {field: value for field, value in fields.items() if value is not None}
    made = call.client.plan({"kind": "train", "tokenization": tokenization, "hook": hook, "name": name, **given})
    if call.json:
        output.data(made)
    else:
        show_plan(made)


def show_plan(made: dict[str, Any], say: Callable[[str], None] = output.text) -> None:
    """The parts and what they come to, the choices, and the verdict."""
    rows = [[_PARTS.get(one["part"], one["part"]), *_sizes(one)] for one in made["parts"]]
    rows.append(["total", "", human.size(made["total_bytes"])])
    output.table(["PART", "AT MOST", f"AT THE PEAK ({made['peak_phase']})"], rows, say)
    say("")
    output.record(_about(made), say)
    if made["ways"]:
        say("")
        output.table(
            ["WITH", "TOTAL", "FITS"],
            [
                [f"{way['field']} {_value(way['value'])}", human.size(way["total_bytes"]), way["fits"]]
                for way in made["ways"]
            ],
            say,
        )
    say("")
    say(made["verdict"])


def _sizes(part: dict[str, Any]) -> list[str]:
    return [human.size(part["bytes"]), human.size(part["at_peak_bytes"]) if part["at_peak_bytes"] else human.UNKNOWN]


def _about(made: dict[str, Any]) -> dict[str, object]:
    budget = made["budget"]
    about: dict[str, object] = {
        "device": budget["name"],
        "free now": human.size(budget["free_bytes"]),
        "layers": f"{made['layers']} of {made['model_layers']}",
        "disk": human.size(made["disk_bytes"]),
        "time": human.duration(made["seconds"]),
        "peak from": "formula and measurement" if made["measured"] else "formula",
    }
    if made["host_bytes"] is not None:
        about["machine's memory"] = human.size(made["host_bytes"])
    return about | choices(made)


def choices(made: dict[str, Any]) -> dict[str, str]:
    return {
        name: f"{_value(choice['value'])}{' (automatic)' if choice['automatic'] else ''}"
        for name, choice in made["choices"].items()
    }


def _value(value: object) -> object:
    return ("no", "yes")[value] if isinstance(value, bool) else value
