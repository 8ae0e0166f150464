"""``mistudio session``: a model that stays loaded, for steering."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from typing import Any

import click

from mistudio import human, output
from mistudio.api import Client
from mistudio.commands.edit_options import if_busy_option, keep_alive_option
from mistudio.commands.steer import with_choices
from mistudio.completion import named
from mistudio.drawing import Drawing, drawn
from mistudio.errors import ApiError, Unreachable
from mistudio.near import did_you_mean
from mistudio.options import Call, Noun, pass_call
from mistudio.writing import said

_ASK_EVERY_S = 0.3


@click.group("session", cls=Noun)
def session() -> None:
    """The session: a model with SAEs that stays loaded, so that steering answers at once."""


@session.command("show")
@pass_call
def show_one(call: Call) -> None:
    """Show what is loaded, the memory it takes, and how long it stays."""
    found = call.client.session()
    if call.json:
        output.data({"session": found})
    elif found is None:
        output.note("there is no session; mistudio session start MODEL|SAE... or mistudio steer makes one")
    else:
        output.record(shown(found))


def shown(session: Mapping[str, Any]) -> dict[str, object]:
    """As people read it; only what there is to say."""
    about = {
        "state": _state(session),
        "model": f"{session['model']}, {session['precision'] or human.UNKNOWN} on {session['device'] or human.UNKNOWN}",
        "SAEs": ", ".join(session["saes"]) or "none",
        "memory": memory(session),
        "GPU": human.size(session["gpu_bytes"]) if session["gpu_bytes"] is not None else None,
        "expires": expiry(session),
        "held": f"{left(session['held_until'])}: no job takes its place" if session["held_until"] else None,
        "paused for it": ", ".join(f"job {job}" for job in session["paused_jobs"]),
        "started": human.ago(session["started_at"]),
        "process": session["pid"],
    }
    return {name: value for name, value in about.items() if value not in (None, "")}


def _state(session: Mapping[str, Any]) -> str:
    progress = session["progress"]
    return f"{session['state']}: {progress['stage']}" if progress else str(session["state"])


def memory(session: Mapping[str, Any]) -> str:
    """Predicted and measured, as ``ps`` has it of jobs."""
    return f"{human.size(session['predicted_bytes'])} / {human.size(session['memory_bytes'])}"


def expiry(session: Mapping[str, Any]) -> str:
    """``5 min left``, ``forever``; while it is used it does not expire."""
    if session["state"] != "ready":
        return human.UNKNOWN
    if session["expires_at"] is None:
        return "forever"
    return left(session["expires_at"])


def left(until: str) -> str:
    seconds = (human.moment(until) - datetime.now(timezone.utc)).total_seconds()
    return "now" if seconds <= 0 else f"{human.duration(seconds)} left"


@session.command("start")
@click.argument("names", metavar="MODEL|SAE...", nargs=-1, required=True, shell_complete=named("sae"))
@click.option("--precision", metavar="PRECISION", help="of the model  [default: that in which its SAE was trained]")
@keep_alive_option
@click.option("--hold", metavar="SPAN", help="how long no job may take its place, such as 10m")
@if_busy_option("refuse", "pause")
@pass_call
def start(call: Call, /, names: tuple[str, ...], if_busy: str, **fields: Any) -> None:
    """Load a model, or SAEs with the model that they are of; what is loaded already stays."""
    model, saes = _told_apart(call, names)
    try:
        with drawn() as drawing, _followed(call, drawing):
            found = call.client.start_session(model, saes, if_busy=if_busy, **fields)
    except ApiError as error:
        raise with_choices(error, "pause") from error
    if call.json:
        output.data({"session": found})
    else:
        output.record(shown(found))


@contextmanager
def _followed(call: Call, drawing: Drawing) -> Iterator[None]:
    """Draw how far the loading is, as the studio says it meanwhile."""
    ended = threading.Event()
    stage = ""

    def follow() -> None:
        nonlocal stage
        with Client(call.host, call.context) as client:
            while not ended.wait(_ASK_EVERY_S):
                with suppress(ApiError, Unreachable, TimeoutError):  # whoever waits for the answer says what is wrong
                    about = (client.session() or {}).get("progress")
                    if about and not ended.is_set():
                        fresh, stage = about["stage"] != stage, about["stage"]
                        drawing.line(said(about), human.part(about), fresh)

    following = threading.Thread(target=follow, daemon=True)
    following.start()
    try:
        yield
    finally:
        ended.set()
        following.join(_ASK_EVERY_S)


def _told_apart(call: Call, names: tuple[str, ...]) -> tuple[str | None, list[str]]:
    """The model, if one is named, and the SAEs. Raises ApiError 404, UsageError."""
    known = {noun: {one["name"] for one in call.client.every_artifact(noun)} for noun in ("model", "sae")}
    for name in names:
        if not any(name in of_noun for of_noun in known.values()):
            near = did_you_mean(name, [*known["sae"], *known["model"]])
            raise ApiError(404, "not_found", f"there is no model or SAE {name!r}{near}")
    models = [name for name in names if name not in known["sae"]]
    if len(models) > 1:
        raise click.UsageError(f"a session has one model, and {' and '.join(models)} are several")
    return (models[0] if models else None), [name for name in names if name in known["sae"]]


@session.command("stop")
@pass_call
def stop(call: Call) -> None:
    """Free the memory now; jobs that were paused for the session go on."""
    call.client.stop_session()
    if call.json:
        output.data({"session": None})
    else:
        output.note("the session has ended")
