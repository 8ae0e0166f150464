"""``mistudio``: the command line. Every command is a thin layer over the Client."""

from __future__ import annotations

from typing import Any

import click

from mistudio import output
from mistudio.commands import label_files, label_one, marks, sae_export, sae_keep, steer_ranges, steer_runs  # noqa: F401 - of nouns
from mistudio.commands.backup import backup
from mistudio.commands.completion import completion
from mistudio.commands.context import context
from mistudio.commands.dataset import dataset
from mistudio.commands.demo import demo
from mistudio.commands.disk import clean, disk
from mistudio.commands.feature import feature
from mistudio.commands.job import job
from mistudio.commands.label import label
from mistudio.commands.model import model
from mistudio.commands.neuronpedia import neuronpedia
from mistudio.commands.plan import plan
from mistudio.commands.profile import profile
from mistudio.commands.sae import sae
from mistudio.commands.secret import secret
from mistudio.commands.service import service
from mistudio.commands.session import session
from mistudio.commands.settings import log, settings
from mistudio.commands.steer import steer
from mistudio.commands.studio import doctor, monitor, ps, status
from mistudio.commands.token import token
from mistudio.commands.tokenization import tokenization
from mistudio.commands.train import train
from mistudio.commands.trash import trash
from mistudio.errors import ApiError, NoService, Unreachable, VersionMismatch, WrongCertificate
from mistudio.near import did_you_mean
from mistudio.options import Call, Noun
from mistudio.watch import EXIT_INTERRUPTED, Failed
from mistudiod import __version__

EXIT_CODES = """\b
Exit codes:
  0  done                        6  the studio finds the request wrong
  1  something else went wrong   7  no studio answers
  2  the command is wrong        8  it took too long
  3  there is no such thing      9  studio and client differ in version
  4  it is not allowed          10  the job failed
  5  it is in conflict          11  the job was stopped
130  interrupted"""
_OURS = (ApiError, Failed, Unreachable, WrongCertificate, VersionMismatch, NoService)
_EXPECTED = (*_OURS, TimeoutError, FileNotFoundError)
_RENAMED = "; it is called "
_OF_STATUS = {400: 6, 401: 4, 403: 4, 404: 3, 409: 5, 412: 5, 413: 6, 415: 6, 421: 4, 429: 5}


class Root(Noun):
    """Where every error becomes a sentence (with --json the API's error object) and an exit code."""

    def invoke(self, context: click.Context) -> Any:
        call = context.ensure_object(Call)  # before there are subcommands: all of them find this one
        try:
            return super().invoke(context)
        except KeyboardInterrupt:
            raise click.exceptions.Exit(EXIT_INTERRUPTED) from None
        except click.UsageError as error:
            if not call.json:
                raise
            message = error.format_message()
            output.error(message, {"code": "usage", "message": message})
            raise click.exceptions.Exit(error.exit_code) from error
        except _EXPECTED as error:
            near = _near(call, error.missing, error.message) if isinstance(error, ApiError) and error.missing else ""
            exit_code, body = explained(error)
            body["message"] = f"{body['message']}{near}"
            output.error(f"{error}{near}", body if call.json else None)
            raise click.exceptions.Exit(exit_code) from error
        finally:
            call.close()


def _near(call: Call, missing: tuple[str, str], message: str) -> str:
    """What there is of nearly that name, unless the studio knows what it is called now."""
    noun, ref = missing
    if _RENAMED in message:
        return ""
    try:
        return did_you_mean(ref, [one["name"] for one in call.client.every_artifact(noun)])
    except (ApiError, Unreachable, TimeoutError):
        return ""


def explained(error: Exception) -> tuple[int, dict[str, object]]:
    """The exit code of an error, and the error object that the API has or would have for it."""
    if isinstance(error, ApiError):
        body: dict[str, object] = {"code": error.code, "message": error.message, **error.about}
        return _OF_STATUS.get(error.status, 1), {**body, "fields": error.fields} if error.fields else body
    if isinstance(error, Failed):
        return error.exit_code, error.body
    for kind, code, exit_code in (
        (Unreachable, "unreachable", 7),
        (WrongCertificate, "certificate", 4),
        (TimeoutError, "timeout", 8),
        (VersionMismatch, "version", 9),
        (NoService, "service", 1),
        (FileNotFoundError, "not_found", 3),
    ):
        if isinstance(error, kind):
            return exit_code, {"code": code, "message": str(error)}
    raise AssertionError(error)


@click.group("mistudio", cls=Root, epilog=EXIT_CODES)
@click.version_option(__version__, message="%(version)s")
def main() -> None:
    """Train, read and steer sparse autoencoders in a studio on this machine or another."""


for command in (
    *(status, ps, doctor, monitor, demo, model, dataset, tokenization, train, plan, sae, feature, label, steer),
    *(trash, disk, clean, session, profile, job, context, token, secret, settings, log, completion, neuronpedia),
    service,
    backup,
):
    main.add_command(command)

if __name__ == "__main__":
    main()
