"""The options that say where a passphrase comes from, and the refusal to take one from an argument."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from .options import AnyFunction, not_empty

_REFUSAL = (
    "a passphrase is never taken from an argument: arguments show in the process list and stay in the "
    "shell's history. Leave it out to be asked for it. If the one just typed was real, change it"
)


def _no_arguments(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> None:
    if value:
        raise click.UsageError(_REFUSAL, context)


def _descriptor(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) < 10):
        raise click.BadParameter("must be the number of an open file descriptor", context, parameter)
    return int(value)


def passphrase_options(prefixes: Mapping[str, str]) -> Callable[[AnyFunction], AnyFunction]:
    """Add the options that say where a passphrase comes from.

    `prefixes` has, for each passphrase, the prefix of its options and what it is called in their help.
    """
    options = [
        click.argument(
            "arguments",
            metavar="",
            nargs=-1,
            expose_value=False,
            callback=_no_arguments,
            type=click.UNPROCESSED,
        )
    ]
    for prefix, what in prefixes.items():
        options += [
            click.option(
                f"--{prefix}passphrase-fd",
                metavar="N",
                callback=_descriptor,
                help=f"Read {what} from an open file descriptor, to its end; 0 is standard input.",
            ),
            click.option(
                f"--{prefix}passphrase-file",
                type=click.Path(),
                callback=not_empty,
                help=f"Read {what} from a file of yours with mode 0600.",
            ),
        ]
    options += [
        click.option(
            "--askpass",
            metavar="PROGRAM",
            callback=not_empty,
            help="Ask with this program: it gets the question as its argument and prints the answer.",
        ),
        click.option("--pinentry", is_flag=True, help="Ask with pinentry, which has to be installed."),
    ]

    def add(function: AnyFunction) -> AnyFunction:
        for option in reversed(options):
            function = option(function)
        return function

    return add


def at_most_one(options: Mapping[str, Any], *names: str) -> None:
    """Raise a usage error if more than one of these options was given; a descriptor may be 0."""
    given = [name for name in names if options[name] is not None and options[name] is not False]
    if len(given) > 1:
        shown = " and ".join(f"--{name.replace('_', '-')}" for name in given)
        raise click.UsageError(f"{shown} cannot be combined", click.get_current_context())
