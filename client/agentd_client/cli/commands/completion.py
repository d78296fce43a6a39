"""`agentctl completion`: the script that teaches a shell to complete `agentctl`."""

from __future__ import annotations

import os

import click
from click.shell_completion import get_completion_class

from ..group import COMPLETE_VARIABLE, NAME
from ..options import AgentctlCommand, Settings
from ..output import show

SHELLS = ("bash", "zsh", "fish")


@click.command("completion", cls=AgentctlCommand)
@click.argument("shell", type=click.Choice(SHELLS), required=False)
@click.pass_obj
def completion_command(settings: Settings, shell: str | None) -> None:
    """Print the shell's completion script.

    The default is the shell in the variable SHELL. For bash, add this to ~/.bashrc:

    \b
        eval "$(agentctl completion bash)"
    """  # noqa: D301 - the \b is meant: click keeps the lines that follow
    name = shell or os.path.basename(os.environ.get("SHELL", ""))
    kind = get_completion_class(name) if name in SHELLS else None
    if kind is None:
        raise click.UsageError(f"name the shell: {', '.join(SHELLS)}", click.get_current_context())
    completer = kind(click.get_current_context().find_root().command, {}, NAME, COMPLETE_VARIABLE)
    # Not its source(), which starts a bash only to warn about old versions.
    script = completer.source_template % completer.source_vars()
    show(settings, {"shell": name, "script": script}, human=lambda: [script], plain=[script])
