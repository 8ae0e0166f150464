"""Writes docs/settings.md, docs/cli.md, docs/api.md and docs/events.md from the tables that the program itself reads.

    python scripts/docs.py

tests/test_docs.py fails when what lies there is not what this would write.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

DOCS = Path(__file__).parent.parent / "docs"
_MADE = "<!-- Made by scripts/docs.py: do not edit. -->\n"


def settings() -> Iterator[str]:
    from mistudiod.settings import default_of, table

    yield "# Settings of the daemon\n"
    yield (
        "A flag of `mistudiod` beats the environment, that beats the file, that beats the default. The file is TOML,\n"
        "`~/.config/mistudio/mistudio.toml` or `/etc/mistudio/mistudio.toml`, or what `--config` or `MISTUDIO_CONFIG`\n"
        "names; an unknown name in it is an error, an unknown `MISTUDIO_…` variable a warning.\n"
    )
    yield "| in the file | flag | environment | default | what it is |\n|---|---|---|---|---|"
    for setting in table():
        name = setting.name
        # The default data folder follows the home folder of whoever runs this.
        default = "~/.local/share/mistudio" if name == "data" else str(default_of(setting))
        flag, variable = f"--{name.replace('_', '-')}", f"MISTUDIO_{name.upper()}"
        shown = f"`{default}`" if default else "none"
        yield f"| `{name}` | `{flag}` | `{variable}` | {shown} | {setting.metadata['help']} |"
    yield (
        "\nThe client has settings of its own: `MISTUDIO_HOST`, `MISTUDIO_FINGERPRINT`, `MISTUDIO_CONTEXT` and `MISTUDIO_TOKEN`;"
        "\nthe daemon ignores them. See [the command line](cli.md)."
    )


def cli() -> Iterator[str]:
    from mistudio.cli import EXIT_CODES, main

    yield "# The command line\n"
    yield (
        "`--json`, `-H/--host` and `-c/--context` may stand before or after a command, and are left out below. Data goes\n"
        "to stdout, everything else to stderr; `--json` prints the API's own JSON ([api.md](api.md)).\n"
    )
    yield f"```\n{EXIT_CODES.replace(chr(8), '').strip()}\n```\n"
    yield from _commands(main, click.Context(main, info_name="mistudio"))


def _commands(group: click.Group, context: click.Context) -> Iterator[str]:
    for name in sorted(group.list_commands(context)):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        inner = click.Context(command, info_name=name, parent=context)
        if isinstance(command, click.Group):
            yield f"## mistudio {name}\n\n{_paragraph(command.help)}\n"
            yield from _commands(command, inner)
        else:
            yield from _command(command, inner)


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    params = command.get_params(context)
    arguments = [param.make_metavar(context) for param in params if isinstance(param, click.Argument)]
    level = "##" if context.parent is not None and context.parent.parent is None else "###"
    yield f"{level} {' '.join([context.command_path, *arguments])}\n\n{_paragraph(command.help)}\n"
    rows = [row for param in params if isinstance(param, click.Option) and (row := _option(param, context))]
    if rows:
        yield "| option | what it is |\n|---|---|\n" + "\n".join(rows) + "\n"


def _option(option: click.Option, context: click.Context) -> str | None:
    if {"--json", "--host", "--context", "--help"} & set(option.opts) or option.hidden:
        return None
    record = option.get_help_record(context)
    if record is None:
        return None
    return f"| `{record[0]}` | {' '.join(record[1].split()).replace('|', chr(92) + '|')} |"


def _paragraph(text: str | None) -> str:
    return "\n".join(line.strip() for line in (text or "").replace(chr(8), "").strip().splitlines())


def api() -> Iterator[str]:
    from mistudiod.api.openapi import document
    from mistudiod.api.table import ROUTES

    found = json.loads(json.dumps(document(ROUTES)))
    yield "# The HTTP API\n"
    yield (
        "The daemon describes itself at `/api/openapi.json` (OpenAPI 3.1); this page is made of the same table.\n\n"
        '- Bodies and answers are JSON. An error is `{"error": {"code", "message", "fields"?}}`: a word for programs,\n'
        "  a sentence for people, and what is wrong with which field, all of them at once.\n"
        "- On this machine no token is needed. A daemon that listens on a network wants `Authorization: Bearer TOKEN` on\n"
        "  every route, with at least the scope that stands beside it; `mistudio token create` makes one. The UNIX\n"
        "  socket `mistudiod.sock` in the data folder needs none: only the daemon's own user can open it; nor does\n"
        "  `/run/mistudio/api.sock` of a service, which the members of its group can open.\n"
        "- A browser logs in at `/login`, by a pairing code or a token, and sends a cookie from then on. Whatever comes through\n"
        "  a proxy needs a token too ([operations.md](operations.md#behind-nginx-or-caddy)).\n"
        "- A list is a page: give its `next` as `cursor` for the one that follows; null is the end.\n"
        "- What happens, as it happens: [events.md](events.md).\n"
        "- Below `/v1` the studio speaks OpenAI's API, to whatever client or front end does: [openai.md](openai.md).\n"
    )
    yield "| route | scope | what it does |\n|---|---|---|"
    for path, methods in found["paths"].items():
        for method, operation in methods.items():
            yield f"| [`{method.upper()} {path}`](#{operation['operationId']}) | {operation['x-scope']} | {operation['summary']} |"
    for path, methods in found["paths"].items():
        for method, operation in methods.items():
            yield from _operation(f"{method.upper()} {path}", operation)
    yield "\n## What is sent and answered\n"
    for name, schema in sorted(found["components"]["schemas"].items()):
        yield from _schema(name, schema)


def _operation(title: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"\n### {operation['operationId']}\n\n`{title}` — {operation['summary']}\n"
    for one in operation["parameters"]:
        needed = ", needed" if one["required"] and one["in"] != "path" else ""
        yield f"- `{one['name']}` ({one['in']}{needed}): {one.get('description', '')}"
    if body := operation.get("requestBody"):
        (media, content), *_ = body["content"].items()
        yield f"- body: {_named(content['schema']) if media == 'application/json' else media}"
    for status, answer in operation["responses"].items():
        if int(status) < 400:
            content = answer.get("content", {})
            what = _named(next(iter(content.values()))["schema"]) if content else answer["description"]
            yield f"- {status}: {what if 'text/event-stream' not in content else 'text/event-stream'}"
    refused = {s: a["description"].removeprefix("code ") for s, a in operation["responses"].items() if int(s) >= 400}
    yield "- refused: " + ", ".join(f"{status} {code}" for status, code in refused.items())


def _schema(name: str, schema: dict[str, Any]) -> Iterator[str]:
    yield f"### {name}\n"
    if "enum" in schema:
        yield ", ".join(f"`{value}`" for value in schema["enum"]) + "\n"
        return
    if "properties" not in schema:
        yield f"{_named(schema)}\n"
        return
    needed = schema.get("required", [])
    yield "| field | type | default | what it is |\n|---|---|---|---|"
    for field, one in schema["properties"].items():
        default = "needed" if field in needed else f"`{json.dumps(one['default'])}`" if "default" in one else ""
        yield f"| `{field}` | {_named(one)} | {default} | {one.get('description', '')} |"
    yield ""


def _named(schema: dict[str, Any]) -> str:
    """A schema in a word or a few."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for word in ("anyOf", "oneOf"):
        if word in schema:
            return " or ".join(_named(one) for one in schema[word])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_named(schema.get('items', {}))}"
    limits = [f"{sign} {schema[key]}" for key, sign in _LIMITS.items() if key in schema]
    return " ".join([schema.get("type", "anything"), *limits])


_LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def events() -> Iterator[str]:
    from mistudiod.api.answers import Job, System
    from mistudiod.api.stream import TOPIC_MODELS
    from mistudiod.bus import RING
    from mistudiod.database import KEPT_EVENTS

    yield "# Events\n"
    yield (
        "`GET /api/events?topics=job,metric` is a stream of server-sent events (WHATWG HTML, section 9.2): what happens, as\n"
        "it happens. Without `topics` all come.\n"
    )
    yield "| event | id | data | what it tells |\n|---|---|---|---|"
    for topic, (model, has_id, about) in TOPIC_MODELS.items():
        fields = ", ".join(f"`{name}`" for name in model.model_fields)
        shown = f"[{model.__name__}](api.md#{model.__name__.lower()})" if model in (Job, System) else fields
        yield f"| `{topic}` | {'yes' if has_id else 'no'} | {shown} | {about} |"
    yield (
        "\nState events, those with an id, are numbered by the database in the transaction that makes them true: they come in\n"
        "that order, none is dropped, and the numbers go on after a restart. A reader that connects for the first time is\n"
        "sent the number of the newest, as a record without data. One that comes back with it, as `Last-Event-ID` (browsers\n"
        f"do that by themselves) or `?after=`, is told what it has missed: from the last {RING:,} in memory, else from the last\n"
        f"{KEPT_EVENTS:,} in the database. When even that does not reach back, or the number is another database's, `reset`\n"
        "comes with a snapshot, and the stream goes on from there.\n\n"
        "Readings, those without, are sent 10 times a second at most for each job (of metrics and live features: for each SAE),\n"
        "the newest always, and before the state that follows it. They are not told again: after a gap ask\n"
        "`/api/jobs/{id}/metrics?after_step=` for the steps that are missing, and `/api/jobs/{id}/live`.\n\n"
        "A comment, `: ping`, comes every 15 s. A reader that is 1,024 states behind, or takes nothing for a minute, is\n"
        "let go, and resumes when it comes back. There are 256 streams at most (429).\n\n"
        "## Steering\n\n"
        '`POST /api/steer` and `POST /api/saes/{ref}/ranges` answer with events too, unless the body has `"stream": false`.\n'
        "They have no id and are not told again: whoever hangs up stops the work at the next token, and nothing is kept.\n\n"
        "| event | data | what it tells |\n|---|---|---|\n"
        "| `progress` | `stage`, `done`, `total`, `unit`, `eta_s` | how far loading or calibration has come |\n"
        "| `text` | `tokens`, `texts` of `row` and `text` | what comes next in the text of a row, and how many tokens each "
        "has by now; of each sample the rows are the baseline, then the steered texts in their order |\n"
        "| `result` | [Steered](api.md#steered), or [RangeList](api.md#rangelist) | all of it; the stream ends |\n"
        "| `error` | as the body of a refusal | why there is no result; the stream ends |\n\n"
        "What is refused before the first event is an ordinary refusal, with its HTTP status."
    )


def made() -> dict[Path, str]:
    """Each page and its text."""
    pages = {"settings": settings, "cli": cli, "api": api, "events": events}
    return {
        DOCS / f"{name}.md": _MADE + re.sub(r"\n{3,}", "\n\n", "\n".join(page())).strip() + "\n"
        for name, page in pages.items()
    }


if __name__ == "__main__":
    for path, text in made().items():
        path.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{path.name}: {len(text.splitlines())} lines\n")
