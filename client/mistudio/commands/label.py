"""``mistudio label``: what features are called, asked for and tested."""

from __future__ import annotations

import sys
from typing import Any

import click

from mistudio import human, output
from mistudio.commands.dataset import name_of
from mistudio.commands.feature_rows import among, asked
from mistudio.commands.plan import OF_A_JOB
from mistudio.completion import named
from mistudio.errors import ApiError
from mistudio.feature_page import origin
from mistudio.options import Call, Noun, SpecVerb, columned, pass_call
from mistudio.outcomes import show_worth
from mistudio.tables import Columns, show_rows
from mistudio.visible import visible
from mistudio.watch import start

_KEYLESS = "tokens"  # without an LLM, at no cost
_YES = click.option("--yes", is_flag=True, help="do not ask what it may cost")
_ENDPOINTS: Columns = {
    "NAME": lambda one: one["name"],
    "URL": lambda one: one["url"],
    "ON THIS MACHINE": lambda one: one["on_this_machine"],
    "SECRET": lambda one: one["has_secret"],
}


@click.group("label", cls=Noun)
def label() -> None:
    """Labels: what features mean, in a few words, and what that is worth."""


@label.command("start", cls=SpecVerb, kind="label")
@click.argument("sae", shell_complete=named("sae"))
@_YES
@pass_call
def start_labels(call: Call, /, sae: str, yes: bool, **fields: Any) -> None:
    """Let an LLM say what features mean; or, with --endpoint tokens, describe them by their tokens."""
    _start(call, "label", {"sae": name_of(call, "sae", sae), **fields}, yes)


@label.command("score", cls=SpecVerb, kind="score")
@click.argument("sae", shell_complete=named("sae"))
@_YES
@pass_call
def score(call: Call, /, sae: str, yes: bool, **fields: Any) -> None:
    """Find out how well labels tell where their features fire, on text that they were not made from."""
    _start(call, "score", {"sae": name_of(call, "sae", sae), **fields}, yes)


def _start(call: Call, kind: str, fields: dict[str, Any], yes: bool) -> None:
    given = {field: value for field, value in fields.items() if value is not None and field not in OF_A_JOB}
    cost_usd = _cost(call, {"kind": kind, **given})
    if cost_usd != 0:
        _make_sure(cost_usd, yes)
    start(call, kind, fields)


def _cost(call: Call, spec: dict[str, Any]) -> float | None:
    """In US$, None when nobody knows; says what it takes. The features may still be made: then the job waits for them,
    and what else is wrong the submission refuses.
    """
    try:
        expected = call.client.estimate_labels(spec["sae"], spec)
    except ApiError as error:
        if error.status not in (404, 409):
            raise
        if not call.json:
            output.note(f"cannot be estimated yet: {error.message}")
        asks = spec.get("methods", ()) if spec["kind"] == "score" else [spec.get("endpoint", _KEYLESS)]
        return None if set(asks) - {_KEYLESS} else 0.0
    if not call.json:
        for line in estimated(expected):
            output.note(line)
    cost_usd: float | None = expected["cost_usd"]
    return cost_usd


def estimated(expected: dict[str, Any]) -> list[str]:
    """What a job would ask of whom, what that costs, and in which lane it waits."""
    features = human.amount(expected["features"], "features")
    lane = f"{expected['lane']} lane: {expected['why']}" if expected["why"] else f"{expected['lane']} lane"
    if not expected["calls"]:
        return [f"{features}, without an LLM", lane]
    asked_of = f"{expected['model']} at {expected['endpoint']} ({expected['url']})"
    questions, answers = human.count(expected["prompt_tokens"]), human.count(expected["answer_tokens"])
    return [
        f"{features}, {human.amount(expected['calls'], 'calls')} to {asked_of}",
        f"about {questions} tokens of questions and {answers} of answers, {price(expected['cost_usd'])}",
        lane,
    ]


def price(cost_usd: float | None) -> str:
    if cost_usd is None:
        return "at a cost that is not known"
    return "at no cost" if cost_usd == 0 else f"US$ {cost_usd:.2f}" if cost_usd >= 0.01 else f"US$ {cost_usd:.2g}"


def _make_sure(cost_usd: float | None, yes: bool) -> None:
    """Ask before money is spent; where nobody can be asked, --yes must have been given."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"this may cost money ({price(cost_usd)}): give --yes where nobody can be asked")
    if not click.confirm("Start?", err=True):
        raise click.exceptions.Exit(1)


@label.command("list")
@click.argument("sae", shell_complete=named("sae"))
@among
@columned
@pass_call
def list_all(call: Call, sae: str, sort: str, filter: str | None, limit: int) -> None:
    """List the features that have a label."""
    found = asked(call.client, sae, sort, f"labelled {filter or ''}".strip(), limit=limit)
    columns: Columns = {
        "FEATURE": lambda row: row["index"],
        "SCORE": lambda row: human.number(row["score"], 2),
        "BY": lambda row: row["label"]["provider"],
        "SURE": lambda row: human.share(row["label"]["confidence"]),
        "STATUS": lambda row: row["label"]["status"],
        "LABEL": lambda row: row["label"]["text"],
    }
    show_rows(call, found, found["features"], columns)
    if not call.json and len(found["features"]) < found["total"]:
        output.note(f"{len(found['features'])} of {human.count(found['total'])} labels; --limit shows more")


@label.command("summary")
@click.argument("sae", shell_complete=named("sae"))
@pass_call
def summary(call: Call, sae: str) -> None:
    """Say how many features have a label, by whom, and what the labels as a whole are worth."""
    found = call.client.label_summary(sae)
    if call.json:
        output.data(found)
        return
    output.record(
        {
            "labelled": human.count(found["labelled"]),
            **{f"  {one['provider']}, {one['status']}": human.count(one["features"]) for one in found["providers"]},
            **{f"  failed: {visible(one['reason'])}": human.count(one["features"]) for one in found["failures"]},
            "ever given": human.count(found["history"]),
        }
    )
    show_worth(found["scores"])


@label.command("endpoints")
@columned
@pass_call
def endpoints(call: Call) -> None:
    """List whom labels may be asked of; the setting endpoints says who they are."""
    found = call.client.endpoints()
    show_rows(call, {"endpoints": found}, found, _ENDPOINTS)


@label.command("models")
@click.argument("endpoint")
@pass_call
def models(call: Call, endpoint: str) -> None:
    """Ask an endpoint which models it has: whether it answers, and takes its key."""
    found = call.client.try_endpoint(endpoint)
    if call.json:
        output.data(found)
        return
    for name in found["models"]:
        output.text(visible(name))
    if found["left_out"]:
        output.note(f"and {human.count(found['left_out'])} more")


def by_whom(one: dict[str, Any]) -> str:
    return origin({**one, "status": None})
