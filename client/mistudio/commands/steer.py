"""``mistudio steer``: texts with features amplified or suppressed, beside their baseline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import click
from click.shell_completion import CompletionItem

from mistudio import edits, output, ranges, steered
from mistudio.api import Client, Job
from mistudio.commands.dataset import name_of
from mistudio.commands.edit_options import edits_of, feature_option, if_busy_option, keep_alive_option, scope_option
from mistudio.commands.feature import labels_of
from mistudio.completion import named
from mistudio.drawing import drawn
from mistudio.errors import ApiError
from mistudio.options import Call, Noun, SpecVerb, pass_call
from mistudio.watch import start
from mistudio.writing import Writing

_OF_A_JOB = ("after", "priority", "detach")


class Steer(Noun):
    """A group of commands whose first word may be an SAE instead: then it is ``run``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        at = self._first_word(ctx, args)
        if at < len(args) and args[at] not in (*self.commands, *ctx.help_option_names):
            args = [*args[:at], "run", *args[at:]]
        return super().parse_args(ctx, args)

    def _first_word(self, ctx: click.Context, args: list[str]) -> int:
        """Where the options end that every command has."""
        flags = {flag: option for option in self.get_params(ctx) for flag in option.opts}
        at = 0
        while at < len(args) and (option := flags.get(args[at].partition("=")[0])) and "--help" not in option.opts:
            takes_a_word = isinstance(option, click.Option) and not option.is_flag and "=" not in args[at]
            at += 2 if takes_a_word else 1
        return at

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        saes = named("sae")(ctx, self.params[0], incomplete)
        return [*super().shell_complete(ctx, incomplete), *(saes if not incomplete.startswith("-") else ())]


@click.group("steer", cls=Steer, subcommand_metavar="SAE PROMPT -f FEATURE... | COMMAND ...")
def steer() -> None:
    """Steer: write texts with features of an SAE amplified or suppressed, each beside its baseline.

    \b
      mistudio steer SAE PROMPT -f 1234:+2 -f 88:-1.5
    is short for 'mistudio steer run', whose options apply.
    """


@steer.command("run", cls=SpecVerb, kind="steer")
@click.argument("sae", shell_complete=named("sae"))
@click.argument("prompt")
@feature_option
@scope_option
@click.option("--chat", "messages", is_flag=True, help="PROMPT is what a user says to a chat model")
@keep_alive_option
@if_busy_option("refuse", "queue", "pause")
@pass_call
def run(
    call: Call,
    /,
    sae: str,
    prompt: str,
    steering: tuple[str, ...],
    scope: str | None,
    messages: bool,
    keep_alive: str | None,
    if_busy: str,
    **fields: Any,
) -> None:
    """Continue PROMPT as the model does, and with features amplified or suppressed; the word 'run' can be left away.

    It needs no job: the model stays loaded for the next one. With --detach, --after or --priority it is a job.
    """
    sae = name_of(call, "sae", sae)
    said = [{"role": "user", "content": prompt}] if messages else prompt
    spec = {
        "sae": sae,
        ("messages" if messages else "prompt"): said,
        "steering": edits_of(call, steering, sae, scope),
        **{name: value for name, value in fields.items() if name not in _OF_A_JOB and value is not None},
    }
    of_a_job = {name: fields[name] for name in _OF_A_JOB}
    if any(of_a_job.values()):
        if keep_alive is not None or if_busy == "pause":
            raise click.UsageError("a job keeps no model loaded and pauses no other: leave --keep-alive and pause away")
        start(call, "steer", {**spec, **of_a_job}, show_steered)
        return
    try:
        result = write(call, spec, keep_alive, "pause" if if_busy == "pause" else None)
    except ApiError as error:
        if error.code != "gpu_busy" or if_busy != "queue":
            raise with_choices(error, "queue", "pause") from error
        output.note(f"{error.message}; queued behind it")
        start(call, "steer", {**spec, **of_a_job}, show_steered)
        return
    show(call, result)


def write(call: Call, spec: Mapping[str, Any], keep_alive: str | None = None, if_busy: str | None = None) -> Any:
    """What the session writes, drawn as it comes; Ctrl-C hangs up, and it stops. ``spec``: of a job of kind steer."""
    fields = {
        name: value for name, value in spec.items() if name not in ("kind", "sae", "prompt", "messages", "steering")
    }
    factors = fields.get("sweep") or [1]
    heads = ["baseline", *(edits.joined(times(spec["steering"], factor), spec["sae"]) for factor in factors)]
    said = spec.get("messages") or spec["prompt"]
    with drawn() as drawing:
        writing = Writing(drawing, heads, fields.get("samples") or 1)
        try:
            return call.client.steer(
                spec["sae"], said, spec["steering"], writing.text, writing.progress,
                keep_alive=keep_alive, if_busy=if_busy, **fields,
            )  # fmt: skip
        except ApiError as error:
            if "sae" in error.fields or error.code == "not_found":
                error.missing = ("sae", str(spec["sae"]))
            raise
        finally:
            writing.end()


def times(steering: Iterable[edits.Edit], factor: float) -> list[edits.Edit]:
    """As a sweep multiplies strengths."""
    return [
        one if one.get("op") == "ablate" else {**one, "strength": one.get("strength", 1.0) * factor} for one in steering
    ]


def with_choices(error: ApiError, *flags: str) -> ApiError:
    """What the command line can do about a GPU that a job has."""
    can = [f"--if-busy {flag}" for flag in flags if flag in (error.about.get("choices") or ())]
    if error.code == "gpu_busy" and can:
        error.message = f"{error.message} ({' or '.join(can)})"
        error.args = (error.message,)
    return error


def show_steered(call: Call, job: Job) -> None:
    """What a job of kind steer wrote; with --json the result alone, not the job."""
    show(call, job["result"])


def show(call: Call, result: dict[str, Any]) -> None:
    """The texts beside each other; what is amiss, and hints, on stderr."""
    if call.json:
        output.data(result)
        return
    output.painted(steered.lines(result, labels(call.client, result), output.canvas()))
    for warning in warnings(result):
        output.note(f"warning: {warning}")
    for hint in hints(call.client, result):
        output.note(f"hint: {hint}")
    if "id" in result:
        output.note(f"kept as {result['id']}: mistudio steer show {result['id']}")


def labels(client: Client, result: Mapping[str, Any]) -> dict[tuple[str, int], str]:
    """What the edited features are called; nothing where their SAE has gone or has no labels."""
    found: dict[tuple[str, int], str] = {}
    for sae, features in steered.features_of(result).items():
        try:
            found |= {(sae, index): text for index, text in labels_of(client, sae, features).items()}
        except ApiError as error:
            if error.status not in (404, 409):
                raise
    return found


def warnings(result: Mapping[str, Any]) -> list[str]:
    """Strengths that did nothing, each said once."""
    said: dict[str, None] = {}
    for one in result["steered"]:
        for effect in one["no_effect"] or ():
            strength = next((s for s in one["strengths"] if s["feature"] == effect["feature"]), effect)
            name = edits.said(strength, result["sae"]) if strength is not effect else str(effect["feature"])
            said[f"{name} changed nothing: {effect['message']}"] = None
    return list(said)


def hints(client: Client, result: Mapping[str, Any]) -> list[str]:
    """What to try when a strength does next to nothing, or is far beyond what a feature was calibrated for."""
    found = []
    for sae, features in steered.features_of(result).items():
        strengths = [
            one for text in result["steered"] for one in text["strengths"] if one["sae"] == sae and one["op"] == "add"
        ]
        try:
            known = {one["feature"]: one for one in client.ranges(sae, features)} if strengths else {}
        except ApiError as error:
            if error.status not in (404, 409):
                raise
            continue
        far = [
            one
            for one in strengths
            if one["feature"] in known and ranges.is_far(one["strength"], known[one["feature"]])
        ]
        found += [
            f"{edits.said(one, result['sae'])} is far beyond its useful range: {ranges.sentence(known[one['feature']])}"
            for one in {one["feature"]: one for one in far}.values()
        ]
        found += _of_weak(result, sae, list(dict.fromkeys(features)), known)
    return found


def _of_weak(
    result: Mapping[str, Any], sae: str, features: list[int], known: Mapping[int, Mapping[str, Any]]
) -> list[str]:
    moved = [one for one in result["steered"] if any(edit["strength"] for edit in one["strengths"])]
    strongest = [one["kl"] for one in moved if one["kl"] is not None and not one["no_effect"]]
    if not strongest or max(strongest) >= ranges.WEAK or sae != result["sae"]:
        return []
    weak = f"the effect is weak ({steered.nats(max(strongest))} nats)"
    if known:
        return [f"{weak}; feature {index}: {ranges.sentence(one)}" for index, one in known.items()]
    asked = " ".join(f"-f {index}" for index in features)
    return [f"{weak}: raise the strength, or see which strengths do something: mistudio steer calibrate {sae} {asked}"]
