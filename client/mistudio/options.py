"""What every command line can say, and options made of the fields of a job kind: no option is written twice."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from mistudio.api import Client
from mistudio.completion import contexts_known, named
from mistudio.routes import NOUNS

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

_HIDDEN = frozenset({"kind", "spec"})


@dataclass
class Call:
    """What one command line asked for, whichever command it was."""

    host: str | None = None
    context: str | None = None
    json: bool = False
    columns: tuple[str, ...] = ()
    _client: Client | None = field(default=None, repr=False)

    @property
    def client(self) -> Client:
        if self._client is None:
            try:
                self._client = Client(self.host, self.context)
            except ValueError as error:
                raise click.UsageError(str(error)) from error
        return self._client

    def close(self) -> None:
        if self._client:
            self._client.close()


pass_call = click.make_pass_decorator(Call, ensure=True)


def _kept(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    """A callback that puts what was given into the Call."""

    def keep(context: click.Context, _option: click.Parameter, value: Any) -> None:
        if value:
            setattr(context.ensure_object(Call), name, value)

    return keep


def _everywhere(taken: Sequence[str] = ()) -> list[click.Parameter]:
    """Accepted before and after a subcommand alike: the last parameters of every command and group.

    ``taken``: flags that mean something else to a command (--context is a length to ``dataset tokenize``).
    """
    flags = [flag for flag in ("-c", "--context") if flag not in taken]
    return [
        click.Option(
            ["studio_host", "-H", "--host"], callback=_kept("host"), expose_value=False, metavar="HOST",
            help="where the studio is: a host, host:port, URL or unix:/path [default: MISTUDIO_HOST, else a context]",
        ),
        click.Option(
            ["studio_context", *flags], callback=_kept("context"), expose_value=False, metavar="NAME",
            shell_complete=contexts_known,
            help="a studio by its name [default: MISTUDIO_CONTEXT, else the one chosen, else this machine]",
        ),
        click.Option(["--json"], is_flag=True, callback=_kept("json"), expose_value=False, help="print the API's JSON"),
    ]  # fmt: skip


def columned(command: Callable[..., Any]) -> Callable[..., Any]:
    """For a command that prints a table: which fields of the JSON it is to show."""

    def keep(context: click.Context, _option: click.Parameter, given: str | None) -> None:
        names = tuple(name.strip() for name in (given or "").split(",") if name.strip())
        context.ensure_object(Call).columns = names

    return click.option(
        "--columns", callback=keep, expose_value=False, metavar="FIELD,...",
        help="show these fields of the JSON, as name,progress.done",
    )(command)  # fmt: skip


def source_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """SOURCE of what is brought in, and whose file it is."""
    remote = click.option("--remote-path", is_flag=True, help="SOURCE is a path on the studio's machine")
    return click.argument("source", shell_complete=_files)(remote(command))


def _files(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(incomplete, type="file")]  # the shell does it


class Verb(click.Command):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.params += _everywhere()


class Noun(click.Group):
    command_class = Verb
    group_class = type

    def __init__(self, *args: Any, **options: Any) -> None:
        options.setdefault("context_settings", {"help_option_names": ["-h", "--help"]})
        super().__init__(*args, **options)
        self.params += _everywhere()


class SpecVerb(Verb):
    """A command whose options are the fields of a job kind (or preview), besides those it declares itself.

    ``derived`` says of fields that the job needs and the command works out where their values come from; with ``only``
    there are options for these fields of the kind, which must be given unless they are derived.
    """

    def __init__(
        self,
        *args: Any,
        kind: str,
        derived: Mapping[str, str] | None = None,
        only: Sequence[str] = (),
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self.kind = kind
        self._derived, self._only = derived or {}, only
        self._made: list[str] | None = None

    def get_params(self, context: click.Context) -> list[click.Parameter]:
        if self._made is None:  # not before it is needed: pydantic takes long to import
            own = {param.name for param in self.params}
            made = [option for option in options_of(self.kind, self._derived, self._only) if option.name not in own]
            self._made = [str(option.name) for option in made]
            last = len(self.params) - len(_everywhere())
            self.params[last:] = [*made, *_everywhere([flag for option in made for flag in option.opts])]
        return super().get_params(context)

    def invoke(self, context: click.Context) -> Any:
        """What nobody gave is None, not the default that help shows: the studio has it, and a preset has another."""
        for name in self._made or ():
            if context.get_parameter_source(name) is ParameterSource.DEFAULT:
                context.params[name] = None
        return super().invoke(context)


def options_of(kind: str, derived: Mapping[str, str], only: Sequence[str] = ()) -> list[click.Option]:
    from mistudiod.specs import KINDS, PREVIEWS, USES, JobRequest

    if kind in PREVIEWS:
        return _options(PREVIEWS[kind].model_fields, derived, dict(zip(NOUNS, NOUNS, strict=True)))
    detach = click.Option(["--detach"], is_flag=True, help="queue the job, print its id and do not wait for its end")
    fields = KINDS[kind].model_fields
    own = _options({name: fields[name] for name in only or fields}, derived, USES[kind], bool(only))
    return [*own, *_options(JobRequest.model_fields, derived, {}), detach]


def _options(
    fields: Mapping[str, FieldInfo], derived: Mapping[str, str], nouns: Mapping[str, str], needed: bool = False
) -> list[click.Option]:
    """``nouns``: of what there is of a noun a field names one (the model of a label job is none of the studio's)."""
    return [
        _option(name, info, derived.get(name), nouns.get(name), needed)
        for name, info in fields.items()
        if name not in _HIDDEN
    ]


def _option(name: str, info: FieldInfo, derived: str | None, noun: str | None, needed: bool) -> click.Option:
    kind, many = _type_of(info.annotation)
    known: dict[str, Any] = {}
    if derived:
        known["show_default"] = derived
    elif info.is_required() or needed:
        known["required"] = True
    elif many:
        if isinstance(info.default, list):
            known |= {"default": info.default, "show_default": True}
        known["callback"] = _gathered
        kind = CommaSeparated(kind)
    elif info.default is not None:
        known |= {"default": info.default, "show_default": True}
    if noun:
        known["shell_complete"] = named(noun)
    flag = f"--{name.replace('_', '-')}"
    if kind is bool:
        flag += f"/--no-{flag[2:]}"
    return click.Option([flag, name], type=kind, multiple=many, help=info.description, **known)


def _gathered(_context: click.Context, _option: click.Parameter, given: tuple[list[Any], ...]) -> list[Any] | None:
    """The values of an option that was given several times; None when it was not given."""
    return [value for values in given for value in values] or None


class CommaSeparated(click.ParamType[Any]):
    """One value, or several with commas between: ``--width 4096,8192``."""

    def __init__(self, kind: Any) -> None:
        self._kind = click.types.convert_type(kind)
        self.name = self._kind.name

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        return f"{self._kind.get_metavar(param, ctx) or self.name.upper()},..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[Any]:
        if isinstance(value, list):
            return value
        parts = [part.strip() for part in str(value).split(",")]
        if not all(parts):
            self.fail(f"{value!r} lacks a value; give one, or several with commas between", param, ctx)
        return [self._kind.convert(part, param, ctx) for part in parts]

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        *before, last = incomplete.split(",")
        offered = self._kind.shell_complete(ctx, param, last)
        return [CompletionItem(",".join([*before, item.value]), item.type, item.help) for item in offered]


def _type_of(annotation: Any) -> tuple[Any, bool]:
    """click's type of a field, and whether the option may be given several times."""
    if get_origin(annotation) in (Union, types.UnionType):  # X | None
        return _type_of(next(one for one in get_args(annotation) if one is not type(None)))
    if get_origin(annotation) is Annotated:
        return _type_of(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return click.Choice(get_args(annotation)), False
    if get_origin(annotation) is list:
        return _type_of(get_args(annotation)[0])[0], True
    return annotation, False
