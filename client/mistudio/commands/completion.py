"""``mistudio completion``."""

from __future__ import annotations

import click

from mistudio import output
from mistudio.options import Verb


@click.command("completion", cls=Verb)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that lets a shell complete commands, options and names.

    \b
    bash and zsh:  eval "$(mistudio completion bash)"
    fish:          mistudio completion fish | source
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    made = kind(context.find_root().command, {}, "mistudio", "_MISTUDIO_COMPLETE")
    output.text(made.source_template % made.source_vars())
