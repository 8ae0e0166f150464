"""``mistudio service``: the studio as a systemd service of this machine, or of one user."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mistudio import human, output
from mistudio.commands.artifact import make_sure
from mistudio.options import Call, Noun, pass_call

if TYPE_CHECKING:
    from mistudio.service.place import Place

_USER = click.option("--user", is_flag=True, help="a service of yours, in your home, for your own studio; without sudo")
_ROOT = click.option("--root", metavar="DIR", help="write below this folder, as for an image; nothing is started")
_DRY_RUN = click.option("--dry-run", is_flag=True, help="show what would be done, and do nothing")


@click.group("service", cls=Noun)
def service() -> None:
    """The studio as a service of this machine, started with it: install, look at it, remove it."""


def _place(user: bool, root: str | None) -> Place:
    from mistudio.service.place import Place

    if user and root is not None:
        raise click.UsageError("--root is for the service of a machine, not for --user")
    return Place(home=Path.home() if user else None) if root is None else Place(Path(root).absolute(), live=False)


@service.command("install")
@_USER
@click.option(
    "--listen", type=click.Choice(["local", "lan"]), help="who may reach it  [default: local, or as installed]"
)
@click.option("--socket/--no-socket", default=None, help="have systemd listen, and start it with the first request")
@click.option("--announce/--no-announce", default=None, help="tell the local network by mDNS where it is, with Avahi")
@click.option("--hf-cache", metavar="PATH", help='a Hugging Face cache whose models it may read; "" for none')
@click.option("--allow", metavar="PATH", multiple=True, help='a folder that it may read, several times; "" for none')
@_ROOT
@_DRY_RUN
@pass_call
def install(call: Call, /, user: bool, root: str | None, dry_run: bool, **given: Any) -> None:
    """Install the service, or bring it up to this miStudio; run it again after an upgrade.

    It has a program of its own in /opt/mistudio, a user of its own and its data in /var/lib/mistudio. What it will
    write is shown first. Options that are not given stay as they were installed.
    """
    from mistudio.service import install as installing
    from mistudio.service import machine

    place = _place(user, root)
    machine.check(place, "install", dry_run)
    given["allow"] = given["allow"] or None
    plan = installing.plan(place, given)
    if not call.json:
        _show(plan.said())
    if dry_run or plan.is_empty:
        said: dict[str, Any] = plan.said()
        if plan.is_empty and not call.json:
            output.note("nothing to do")
    else:
        installing.carry_out(place, plan, output.note)
        said = plan.said()
    running = place.live and not dry_run
    if running:
        said |= _found(place, plan.choices.listen)
    if call.json:
        output.data(said)
    elif running:
        _invite(place, said)
    elif not dry_run and not plan.is_empty:
        _written(place)


def _show(said: dict[str, Any]) -> None:
    for diff in said["files"].values():
        output.text(diff)
    for step in said["steps"]:
        output.text(step)


def _written(place: Place) -> None:
    output.note(f"the service is written below {place.root} and starts when a machine starts from there")
    if not place.has_program:
        output.note("its program is not: chroot there and run mistudio service install --root /")


def _found(place: Place, listen: str) -> dict[str, Any]:
    """Once it answers: where, and how another machine may come in."""
    from mistudio.service import state

    with state.wait(place) as studio:
        found = state.where(studio, listen)
        if listen == "lan":
            made = studio.create_pairing()
            found |= {name: made[name] or found.get(name) for name in ("code", "url", "fingerprint")}
        return found


def _invite(place: Place, said: dict[str, Any]) -> None:
    from mistudio.service import state

    output.text(f"miStudio is running at {said['url']} (data in {said['data']})")
    if "code" in said:
        output.text(
            f"code          {said['code']}, for 5 minutes and one device\n"
            f"fingerprint   {said['fingerprint']}\n"
            f"in a browser  {said['url']}/login\n"
            f"from a shell  mistudio context add studio {said['url']} --pair {said['code']}"
        )
    if hint := state.linger_hint(place):
        output.note(hint)


@service.command("uninstall")
@_USER
@click.option("--purge", is_flag=True, help="delete models, SAEs and everything else of the studio too")
@click.option("--yes", is_flag=True, help="do not ask before a purge")
@_ROOT
@_DRY_RUN
@pass_call
def uninstall(call: Call, user: bool, purge: bool, yes: bool, root: str | None, dry_run: bool) -> None:
    """Remove the service and its program. Its data stays, unless it is purged."""
    from mistudio.service import machine, remove

    place = _place(user, root)
    machine.check(place, "uninstall", dry_run)
    plan = remove.plan(place, purge)
    said = {"files": plan.files, "changed": plan.changed, "programs": plan.programs, "data": plan.data}
    if call.json:
        output.data(said)
    else:
        for path in [*plan.files, *(f"/opt/mistudio/programs/{name}" for name in plan.programs)]:
            output.text(f"remove {path}")
        for path in plan.changed:
            output.text(f"keep   {path}, which was changed, as {path}.kept")
        for path, size in plan.data.items():
            output.text(f"delete {remove.named(place, path)} ({human.size(size)})")
    if plan.is_empty:
        output.note("nothing to do: miStudio is not installed as a service here")
    if plan.is_empty or dry_run:
        return
    if plan.data:
        sizes = ", ".join(f"{remove.named(place, path)} ({human.size(size)})" for path, size in plan.data.items())
        make_sure(f"Delete {sizes} for good?", yes)
    remove.carry_out(place, plan, output.note)
    output.note("the service is removed")
    if not purge and not user and place.live:
        output.note(
            "its data in /var/lib/mistudio stays, and its user; to be rid of both: mistudio service uninstall --purge"
        )


@service.command("status")
@_USER
@_ROOT
@pass_call
def status(call: Call, user: bool, root: str | None) -> None:
    """Say whether the service runs, where its studio is, and what its unit hides from it. Exit code 3 if not."""
    from mistudio.service import machine, state

    place = _place(user, root)
    machine.check_manager(place)
    found = state.state(place)
    if call.json:
        output.data(found)
    else:
        output.record(found)
    if found["state"] not in ("active", state.NOT_HERE):
        raise click.exceptions.Exit(3)
