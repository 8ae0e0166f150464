"""``mistudio settings`` and ``mistudio log``: how the daemon is set, and what it says."""

from __future__ import annotations

from typing import Any

import click

from mistudio import output
from mistudio.options import Call, Noun, Verb, pass_call
from mistudio.visible import visible

_SWITCH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


@click.group("settings", cls=Noun)
def settings() -> None:
    """Settings of the daemon: those that can be changed while it runs hold for what starts from then on."""


@settings.command("show")
@pass_call
def show(call: Call) -> None:
    """List the settings, with where each comes from; kept are those that were set here."""
    found = call.client.settings()
    if call.json:
        output.data({"settings": found})
        return
    rows = [[one["name"], visible(_worded(one["value"])), visible(one["where"] or one["source"])] for one in found]
    output.table(["SETTING", "VALUE", "FROM"], rows)


@settings.command("set")
@click.argument("name")
@click.argument("value", required=False)
@click.option("--default", is_flag=True, help="as it would be had nothing been set here")
@pass_call
def set_one(call: Call, name: str, value: str | None, default: bool) -> None:
    """Change a setting while the daemon runs: offline, endpoints, label_endpoint, label_model, neuronpedia_url,
    session_keep_alive.
    """
    if (value is None) != default:
        raise click.UsageError("give the value, or --default")
    given: Any = value
    if name == "offline" and value is not None:
        if value.lower() not in _SWITCH:
            raise click.UsageError("offline is true or false")
        given = _SWITCH[value.lower()]
    found = call.client.change_settings({name: given})
    if call.json:
        output.data({"settings": found})
        return
    now = next(one["value"] for one in found if one["name"] == name)
    output.note(f"{name} is {visible(_worded(now))} for what starts from now on")


@click.command("log", cls=Verb)
@click.option("--bytes", "tail_bytes", type=click.IntRange(1, 1 << 20), default=16_384, help="how much of its end")
@pass_call
def log(call: Call, tail_bytes: int) -> None:
    """Show the end of the daemon's own log."""
    found = call.client.daemon_log(tail_bytes)
    if call.json:
        output.data({"log": found})
    else:
        output.text(found, end="")


def _worded(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value) if value != "" else "—"
