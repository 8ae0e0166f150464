"""``mistudio steer calibrate``: which strengths of a feature mean something."""

from __future__ import annotations

from typing import Any

import click

from mistudio import output, ranges
from mistudio.commands.dataset import name_of
from mistudio.commands.edit_options import if_busy_option, keep_alive_option
from mistudio.commands.feature import INDEX, labels_of
from mistudio.commands.steer import steer, with_choices
from mistudio.completion import named
from mistudio.drawing import drawn
from mistudio.errors import ApiError
from mistudio.options import Call, Verb, pass_call
from mistudio.writing import Writing


@steer.command("calibrate", cls=Verb)
@click.argument("sae", shell_complete=named("sae"))
@click.option("-f", "--feature", "features", type=INDEX, multiple=True, required=True, help="its number (repeatable)")
@click.option("--precision", metavar="PRECISION", help="of the model: that in which the SAE was trained when not given")
@keep_alive_option
@if_busy_option("refuse", "pause")
@pass_call
def calibrate(call: Call, /, sae: str, features: tuple[int, ...], if_busy: str, **fields: Any) -> None:
    """Find the strengths at which adding a feature changes the model by 0.1, 0.5 and 2 nats, and where texts break.

    They are kept, and shown with the feature from then on.
    """
    sae = name_of(call, "sae", sae)
    with drawn() as drawing:
        drawing_of = Writing(drawing, (), 0)
        try:
            found = call.client.calibrate(
                sae, features, drawing_of.progress, if_busy="pause" if if_busy == "pause" else None, **fields
            )
        except ApiError as error:
            if error.code == "not_found":
                error.missing = ("sae", sae)
            raise with_choices(error, "pause") from error
    if call.json:
        output.data(found)
        return
    labels = labels_of(call.client, sae, features)
    output.painted(ranges.table(found["ranges"], labels, output.canvas()))
