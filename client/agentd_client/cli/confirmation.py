"""The question before something that cannot be undone."""

from __future__ import annotations

import sys

import click

yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


def confirmed(question: str) -> bool:
    """Ask on the terminal; a usage error where there is none to ask on."""
    if sys.stdin is None or not sys.stdin.isatty():
        raise click.UsageError("without a terminal to ask on, --yes is needed", click.get_current_context())
    return click.confirm(question, err=True)
