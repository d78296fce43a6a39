"""The scripts that teach a shell to complete a command."""

from __future__ import annotations

import click

SHELLS = ("bash", "zsh", "fish")


def completion_script(command: click.Command, name: str, variable: str, shell: str) -> str:
    """The script for one of `SHELLS`; it asks the command of that name, in that environment variable."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    completer = kind(command, {}, name, variable)
    # Not its source(), which starts a bash only to warn about old versions.
    return completer.source_template % completer.source_vars()
