"""``mistudio sae`` and ``mistudio train``: autoencoders, and the jobs that make them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mistudio import human, names, output
from mistudio.commands.artifact import add_list_show_rm, show
from mistudio.commands.dataset import name_of
from mistudio.commands.job import show_jobs
from mistudio.commands.plan import OF_A_JOB, show_plan
from mistudio.completion import named
from mistudio.errors import ApiError
from mistudio.options import Call, Noun, SpecVerb, columned, pass_call
from mistudio.watch import job_making, sending, start, watch


@click.group("sae", cls=Noun)
def sae() -> None:
    """Sparse autoencoders."""


add_list_show_rm(
    sae,
    "sae",
    {
        "NAME": lambda s: s["name"],
        "ID": lambda s: s["id"],
        "HOOK": lambda s: s.get("hook"),
        "WIDTH": lambda s: human.count(s.get("width")),
        "K": lambda s: s.get("k"),
        "FVU": lambda s: human.number(s.get("fvu")),
        "L0": lambda s: human.number(s.get("l0"), 1),
        "ALIVE": lambda s: human.share(s.get("alive")),
        "MADE": lambda s: human.ago(s["created_at"]),
    },
)


@sae.command("download")
@click.argument("ref", metavar="SAE", shell_complete=named("sae"))
@click.option("--to", "folder", type=click.Path(path_type=Path), help="the folder to make  [default: its name]")
@pass_call
def download(call: Call, ref: str, folder: Path | None) -> None:
    """Bring an SAE here as a folder that SAELens loads."""
    from mistudio.download import fetch

    found = call.client.artifact("sae", ref)
    with sending("download") as told:
        made = fetch(call.client, found["id"], folder or Path(found["name"]), told)
    if call.json:
        output.data({"sae": found["name"], "folder": str(made.absolute())})
    else:
        output.text(str(made))


@click.group("train", cls=Noun)
def train() -> None:
    """Train autoencoders."""


@train.command("start", cls=SpecVerb, kind="train", derived={"name": "TOKENIZATION-<hook>"})
@pass_call
def start_training(call: Call, /, tokenization: str, hook: list[str], name: str | None, **fields: Any) -> None:
    """Train a sparse autoencoder on one hook of a model."""
    tokenization = name_of(call, "tokenization", tokenization)
    name = name or names.of_sae(tokenization, hook)
    if not call.json:
        _show_plan(call, {"tokenization": tokenization, "hook": hook, "name": name, **fields})
    start(call, "train", {"tokenization": tokenization, "hook": hook, "name": name, **fields})


def _show_plan(call: Call, fields: dict[str, Any]) -> None:
    """What the training would take; nothing when what it is made from is not there yet, or the spec is wrong."""
    given = {field: value for field, value in fields.items() if value is not None and field not in OF_A_JOB}
    try:
        made = call.client.plan({"kind": "train", **given})
    except ApiError:  # the job is told of it all the same
        return
    show_plan(made, output.note)
    output.note("")


@train.command("list")
@columned
@pass_call
def list_all(call: Call) -> None:
    """List the training jobs, the newest first."""
    found = [job for job in call.client.every_job() if job["kind"] == "train"]
    show_jobs(call, {"jobs": found, "next": None})


@train.command("show")
@click.argument("ref", metavar="JOB|SAE", shell_complete=named("sae"))
@pass_call
def show_one(call: Call, ref: str) -> None:
    """Show a training job, by its id or by the name of its SAE."""
    show(call, job_making(call, "sae", ref))


@train.command("watch")
@click.argument("ref", metavar="JOB|SAE", shell_complete=named("sae"))
@pass_call
def watch_one(call: Call, ref: str) -> None:
    """Follow a training, by the job's id or the name of its SAE; Ctrl-C leaves it running."""
    watch(call, job_making(call, "sae", ref)["id"])
