"""Completion of another program's command line: its name by PATH, and files after it."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import click
    from click.shell_completion import CompletionItem


def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The commands that begin so, where none was typed yet; otherwise files, which the shell finds itself."""
    from click.shell_completion import CompletionItem

    if context.params.get(parameter.name or "") or "/" in incomplete:
        return [CompletionItem(incomplete, type="file")]
    return [CompletionItem(name) for name in sorted(_commands(incomplete))]


def _commands(prefix: str) -> set[str]:
    found = set()
    for folder in os.get_exec_path():
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(prefix) and os.access(entry.path, os.X_OK) and entry.is_file():
                    found.add(entry.name)
    return found
