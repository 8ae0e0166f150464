"""``mistudio train``: the jobs that make autoencoders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from mistudio import human, names, output, recipes
from mistudio.api import Client
from mistudio.commands.dataset import name_of
from mistudio.commands.job import act, show_job, show_jobs
from mistudio.commands.plan import OF_A_JOB, show_plan
from mistudio.completion import named
from mistudio.errors import ApiError
from mistudio.options import Call, Noun, SpecVerb, columned, pass_call
from mistudio.tables import Columns, show_rows
from mistudio.watch import job_making, start, watch

_DERIVED = {"name": "TOKENIZATION-<hook>", "tokenization": "the recipe's", "hook": "the recipe's"}
_BESIDE_A_RECIPE = ("name", *OF_A_JOB)


@click.group("train", cls=Noun)
def train() -> None:
    """Train autoencoders."""


@train.command("start", cls=SpecVerb, kind="train", derived=_DERIVED)
@click.option("--recipe", type=click.Path(path_type=Path), help="make the SAE of this recipe.json again")
@pass_call
def start_training(call: Call, /, recipe: Path | None, **fields: Any) -> None:
    """Train one sparse autoencoder, or one of every combination of hooks, widths and so on, all at once."""
    spec = _of_recipe(call, recipe, fields) if recipe else _of_options(call, fields)
    if not call.json:
        _show_plan(call, spec)
    start(call, "train", spec)


def _of_options(call: Call, fields: dict[str, Any]) -> dict[str, Any]:
    for needed in ("tokenization", "hook"):
        if fields[needed] is None:
            raise click.UsageError(f"Missing option '--{needed}', or --recipe instead of all.")
    tokenization = name_of(call, "tokenization", fields["tokenization"])
    return {
        **fields,
        "tokenization": tokenization,
        "name": fields["name"] or names.of_sae(tokenization, fields["hook"]),
    }


def _of_recipe(call: Call, path: Path, fields: dict[str, Any]) -> dict[str, Any]:
    """Its spec; a warning when model or text are not here as they were."""
    if given := [name for name, value in fields.items() if value and name not in _BESIDE_A_RECIPE]:
        raise click.UsageError(f"a recipe says all but the name: leave --{given[0].replace('_', '-')} away")
    try:
        recipe = recipes.read(path)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    _warn(call.client, recipe)
    return {**{name: fields[name] for name in OF_A_JOB}, **recipes.again(recipe, fields["name"])}


def _warn(client: Client, recipe: recipes.Recipe) -> None:
    try:
        tokenization = client.artifact("tokenization", recipe["spec"]["tokenization"])
        found = recipes.differences(recipe, tokenization, client.artifact("model", tokenization["model"]))
    except ApiError:  # it is not here: the job is told of it
        return
    if found:
        output.note(f"Warning: {found}")


def _show_plan(call: Call, fields: dict[str, Any]) -> None:
    """What the training would take; nothing when what it is made from is not there yet, or the spec is wrong."""
    given = {field: value for field, value in fields.items() if value is not None and field not in OF_A_JOB}
    try:
        made = call.client.plan({"kind": "train", **given})
    except ApiError:  # the job is told of it all the same
        return
    show_plan(made, output.note)
    output.note("")


@train.command("extend", cls=SpecVerb, kind="train", only=("tokens", "name"), derived={"name": "SAE-<tokens>"})
@click.argument("ref", metavar="SAE", shell_complete=named("sae"))
@pass_call
def extend(call: Call, /, ref: str, tokens: int, name: str | None, **fields: Any) -> None:
    """Go on with an SAE's training, as a new SAE: up to --tokens in all."""
    made = call.client.artifact("sae", ref)
    try:
        spec = recipes.extended(made, tokens, name or names.of_extended(made["name"], tokens))
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    start(call, "train", {**spec, **fields})


@train.command("list")
@columned
@pass_call
def list_all(call: Call) -> None:
    """List the training jobs, the newest first."""
    found = [job for job in call.client.every_job() if job["kind"] == "train"]
    show_jobs(call, {"jobs": found, "next": None})


def _of_a_training(name: str, about: str) -> Callable[[Callable[..., None]], click.Command]:
    """A command for a training, by the job's id or the name of one of its SAEs."""

    def declare(function: Callable[..., None]) -> click.Command:
        argument = click.argument("ref", metavar="JOB|SAE", shell_complete=named("sae"))
        return train.command(name, help=about)(argument(pass_call(function)))

    return declare


@_of_a_training("show", "Show a training job, by its id or by the name of one of its SAEs.")
def show_one(call: Call, ref: str) -> None:
    show_job(call, job_making(call, "sae", ref))


@_of_a_training("watch", "Follow a training, by the job's id or the name of one of its SAEs; Ctrl-C leaves it running.")
def watch_one(call: Call, ref: str) -> None:
    watch(call, job_making(call, "sae", ref)["id"])


@_of_a_training("pause", "Let a training save where it is and make room.")
def pause(call: Call, ref: str) -> None:
    act(call, call.client.pause(job_making(call, "sae", ref)["id"]))


@_of_a_training("resume", "Let a paused training go on.")
def resume(call: Call, ref: str) -> None:
    act(call, call.client.resume(job_making(call, "sae", ref)["id"]))


@_of_a_training("stop", "End a training; what it has learned so far is saved as an SAE that can be used.")
def stop(call: Call, ref: str) -> None:
    act(call, call.client.stop(job_making(call, "sae", ref)["id"]))


@_of_a_training("finalize", "End a training now, and well: measured and saved as if it had come to its end.")
def finalize(call: Call, ref: str) -> None:
    changed = call.client.finalize(job_making(call, "sae", ref)["id"])
    if call.json:
        output.data(changed)
    else:
        output.note(f"job {changed['id']} is {changed['state']} and comes to its end")


@_of_a_training("retry", "Queue a failed or stopped training again; it goes on from its last checkpoint.")
def retry(call: Call, ref: str) -> None:
    act(call, call.client.retry(job_making(call, "sae", ref)["id"]))


@train.command("checkpoints")
@click.argument("ref", metavar="JOB|SAE", shell_complete=named("sae"))
@columned
@pass_call
def checkpoints(call: Call, ref: str) -> None:
    """List the checkpoints that a training has kept, the newest first."""
    found = call.client.checkpoints(job_making(call, "sae", ref)["id"])
    columns: Columns = {
        "STEP": lambda one: human.count(one["step"]),
        "SIZE": lambda one: human.size(one["bytes"]),
        "FVU": lambda one: human.number(one["fvu"]),
        "BEST": lambda one: one["best"],
        "MADE": lambda one: human.ago(one["at"]),
    }
    show_rows(call, {"checkpoints": found}, found, columns)


@_of_a_training("features", "Show what a training's SAEs are learning: features, with their strongest texts so far.")
def features(call: Call, ref: str) -> None:
    job = job_making(call, "sae", ref)
    found = call.client.live(job["id"])
    if ref in job["makes"]["names"]:
        found = [one for one in found if one["sae"] == ref]
    if call.json:
        output.data({"saes": found})
        return
    if not found:
        output.note("nothing has been told of its features yet")
    for n, one in enumerate(found):
        output.text(f"{chr(10) if n else ''}{one['sae']} at step {human.count(one['step'])}")
        for feature in one["features"]:
            output.text(f"  feature {feature['feature']}, on {human.share(feature['density'])} of the tokens")
            for window in feature["windows"]:
                output.text(f"  {human.number(window['value'], 2):>9}  {_around(window)}")


def _around(window: dict[str, Any]) -> str:
    """One line of text, the token on which the feature fires in 【brackets】."""
    line = f"{window['before']}【{window['token']}】{window['after']}"
    return line.replace("\n", "↵").replace("\t", "→")
