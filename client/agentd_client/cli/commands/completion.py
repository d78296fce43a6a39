"""`agentctl completion`: the script that teaches a shell to complete `agentctl`."""

from __future__ import annotations

import os

import click

from ..completion_script import SHELLS, completion_script
from ..group import COMPLETE_VARIABLE, NAME
from ..options import AgentctlCommand, Settings
from ..output import show


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
    if name not in SHELLS:
        raise click.UsageError(f"name the shell: {', '.join(SHELLS)}", click.get_current_context())
    command = click.get_current_context().find_root().command
    script = completion_script(command, NAME, COMPLETE_VARIABLE, name)
    show(settings, {"shell": name, "script": script}, human=lambda: [script], plain=[script])
