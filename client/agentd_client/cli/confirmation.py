"""The question before something that cannot be undone. `agentd` asks it too, so it imports nothing else."""

from __future__ import annotations

import sys

import click

yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


def confirmed(question: str) -> bool:
    """Ask on the terminal; a usage error without a terminal, Abort if the input ends."""
    if sys.stdin is None or not sys.stdin.isatty():
        raise click.UsageError("without a terminal to ask on, --yes is needed", click.get_current_context())
    # Not click.confirm, which prints a space to standard output.
    while True:
        click.echo(f"{question} [y/N]: ", nl=False, err=True)
        line = sys.stdin.readline()
        if not line:
            raise click.Abort
        answer = line.strip().casefold()
        if answer in ("y", "yes"):
            return True
        if answer in ("", "n", "no"):
            return False
