"""``mistudio steer``."""

from __future__ import annotations

from typing import Any

import click

from mistudio import output
from mistudio.api import Job
from mistudio.completion import named
from mistudio.options import Call, SpecVerb, pass_call
from mistudio.watch import start


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
