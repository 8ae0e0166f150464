"""What every command line can say, and options made of the fields of a job kind: no option is written twice."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

import click

from mistudio.api import Client

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

_HIDDEN = frozenset({"kind", "spec"})


@dataclass
class Call:
    """What one command line asked for, whichever command it was."""

    host: str | None = None
    json: bool = False
    _client: Client | None = field(default=None, repr=False)

    @property
    def client(self) -> Client:
        if self._client is None:
            try:
                self._client = Client(self.host)
            except ValueError as error:
                raise click.UsageError(str(error)) from error
        return self._client

    def close(self) -> None:
        if self._client:
            self._client.close()


pass_call = click.make_pass_decorator(Call, ensure=True)


def _set_host(context: click.Context, _option: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.ensure_object(Call).host = value


def _set_json(context: click.Context, _option: click.Parameter, value: bool) -> None:
    if value:
        context.ensure_object(Call).json = True


# Accepted before and after a subcommand alike: the last parameters of every command and group.
_EVERYWHERE: list[click.Parameter] = [
    click.Option(
        ["-H", "--host"], callback=_set_host, expose_value=False, metavar="HOST",
        help="where the studio is: a host, host:port or URL [default: MISTUDIO_HOST, else this machine]",
    ),
    click.Option(["--json"], is_flag=True, callback=_set_json, expose_value=False, help="print the API's JSON"),
]  # fmt: skip


class Verb(click.Command):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.params += _EVERYWHERE


class Noun(click.Group):
    command_class = Verb
    group_class = type

    def __init__(self, *args: Any, **options: Any) -> None:
        options.setdefault("context_settings", {"help_option_names": ["-h", "--help"]})
        super().__init__(*args, **options)
        self.params += _EVERYWHERE


class SpecVerb(Verb):
    """A command whose options are the fields of a job kind (or preview), besides those it declares itself.

    ``derived`` says of fields that the job needs and the command works out where their values come from.
    """

    def __init__(self, *args: Any, kind: str, derived: Mapping[str, str] | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self._kind: str | None = kind
        self._derived = derived or {}

    def get_params(self, context: click.Context) -> list[click.Parameter]:
        if self._kind is not None:  # not before it is needed: pydantic takes long to import
            kind, self._kind = self._kind, None
            own = {param.name for param in self.params}
            made = [option for option in options_of(kind, self._derived) if option.name not in own]
            last = len(self.params) - len(_EVERYWHERE)
            self.params[last:last] = made
        return super().get_params(context)


def options_of(kind: str, derived: Mapping[str, str]) -> list[click.Option]:
    from mistudiod.specs import KINDS, PREVIEWS, JobRequest

    if kind in PREVIEWS:
        return _options(PREVIEWS[kind].model_fields, derived)
    detach = click.Option(["--detach"], is_flag=True, help="queue the job, print its id and do not wait for its end")
    return [*_options(KINDS[kind].model_fields, derived), *_options(JobRequest.model_fields, derived), detach]


def _options(fields: Mapping[str, FieldInfo], derived: Mapping[str, str]) -> list[click.Option]:
    return [_option(name, info, derived.get(name)) for name, info in fields.items() if name not in _HIDDEN]


def _option(name: str, info: FieldInfo, derived: str | None) -> click.Option:
    kind, many = _type_of(info.annotation)
    known: dict[str, Any] = {}
    if derived:
        known["show_default"] = derived
    elif info.is_required():
        known["required"] = True
    elif not many and info.default is not None:
        known |= {"default": info.default, "show_default": True}
    flag = f"--{name.replace('_', '-')}"
    return click.Option([flag, name], type=kind, multiple=many, help=info.description, **known)


def _type_of(annotation: Any) -> tuple[Any, bool]:
    """click's type of a field, and whether the option may be given several times."""
    if get_origin(annotation) in (Union, types.UnionType):  # X | None
        return _type_of(next(one for one in get_args(annotation) if one is not type(None)))
    if get_origin(annotation) is Literal:
        return click.Choice(get_args(annotation)), False
    if get_origin(annotation) is list:
        return _type_of(get_args(annotation)[0])[0], True
    return annotation, False
