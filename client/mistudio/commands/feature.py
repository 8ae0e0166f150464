"""``mistudio feature`` and ``mistudio steer``: what the latents of an autoencoder stand for, and what they do."""

from __future__ import annotations

from typing import Any

import click

from mistudio import human, output
from mistudio.api import Job
from mistudio.completion import named
from mistudio.options import Call, Noun, SpecVerb, columned, pass_call
from mistudio.tables import Columns, show_rows
from mistudio.watch import start

_BEFORE, _AFTER = 12, 6  # tokens of context around the peak


@click.group("feature", cls=Noun)
def feature() -> None:
    """Features: the latents of an SAE and where they fire."""


@feature.command("extract", cls=SpecVerb, kind="extract")
@click.argument("sae", shell_complete=named("sae"))
@pass_call
def extract(call: Call, /, sae: str, **fields: Any) -> None:
    """Find the texts on which an SAE's features fire most."""
    start(call, "extract", {"sae": sae, **fields})


@feature.command("list")
@click.argument("sae", shell_complete=named("sae"))
@columned
@pass_call
def list_all(call: Call, sae: str) -> None:
    """List the features of an SAE's newest extraction, each with its best example."""
    found = call.client.features(sae)
    rows = list(call.client.every_feature(sae)) if found["next"] else found["features"]
    columns: Columns = {
        "FEATURE": lambda f: f["index"],
        "MAX": lambda f: human.number(f["max"], 2),
        "DENSITY": lambda f: human.share(f["density"]),
        "BEST EXAMPLE": lambda f: in_context(f["examples"][0]),
    }
    show_rows(call, {**found, "features": rows, "next": None}, rows, columns)


@feature.command("show")
@click.argument("sae", shell_complete=named("sae"))
@click.argument("index", type=int)
@columned
@pass_call
def show_one(call: Call, sae: str, index: int) -> None:
    """Show a feature with all its examples."""
    found = call.client.feature(sae, index)
    if not call.json and not call.columns:
        output.record({name: value for name, value in found.items() if name != "examples"})
    columns: Columns = {
        "ACTIVATION": lambda one: human.number(one["activations"][one["peak"]], 2),
        "EXAMPLE": in_context,
    }
    show_rows(call, found, found["examples"], columns)


def in_context(example: dict[str, Any]) -> str:
    """One line of text around the token on which a feature fires most, that token in 【brackets】."""
    tokens, peak = example["tokens"], example["peak"]
    before, after = tokens[max(0, peak - _BEFORE) : peak], tokens[peak + 1 : peak + 1 + _AFTER]
    line = "".join(before) + f"【{tokens[peak]}】" + "".join(after)
    return line.replace("\n", "↵").replace("\t", "→")


def _strengths(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> list[dict[str, float]]:
    """``12=4.5`` as the spec wants it. Raises BadParameter."""
    found: list[dict[str, float]] = []
    for one in given:
        index, _, strength = one.partition("=")
        try:
            found.append({"feature": int(index), "strength": float(strength)})
        except ValueError:
            raise click.BadParameter(f"{one!r} is not INDEX=STRENGTH, such as 12=4.5", context, option) from None
    return found


@click.command("steer", cls=SpecVerb, kind="steer")
@click.argument("sae", shell_complete=named("sae"))
@click.argument("prompt")
@click.option(
    "--feature", "strengths", callback=_strengths, multiple=True, required=True, metavar="INDEX=STRENGTH",
    help="a feature and how strongly it is added; below 0 it is taken away (repeatable)",
)  # fmt: skip
@pass_call
def steer(call: Call, /, sae: str, prompt: str, strengths: list[dict[str, float]], **fields: Any) -> None:
    """Continue PROMPT with and without features of an SAE amplified or suppressed."""
    start(call, "steer", {"sae": sae, "prompt": prompt, "strengths": strengths, **fields}, show_steered)


def show_steered(call: Call, job: Job) -> None:
    """The two texts; with --json the result alone, not the job."""
    result = job["result"]
    if call.json:
        output.data(result)
        return
    output.text(f"── as it is\n{result['baseline']['text']}")
    for one in result["steered"]:
        strengths = ", ".join(f"{s['feature']}={s['strength']:g}" for s in one["strengths"])
        output.text(f"── with {strengths}\n{one['text']}")
