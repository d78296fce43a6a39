"""The options that say where a passphrase comes from. Their errors quote nothing, as it may be one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])

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


def _filled(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value == "":  # an unset shell variable
        raise click.BadParameter("must not be empty", context, parameter)
    return value


def _pair(prefix: str, what: str) -> list[Callable[[AnyFunction], AnyFunction]]:
    return [
        click.option(
            f"--{prefix}passphrase-fd",
            metavar="N",
            callback=_descriptor,
            help=f"Read {what} from an open file descriptor, to its end; 0 is standard input.",
        ),
        click.option(
            f"--{prefix}passphrase-file",
            type=click.Path(),
            callback=_filled,
            help=f"Read {what} from a file of yours with mode 0600.",
        ),
    ]


_NO_ARGUMENTS = click.argument(
    "arguments", metavar="", nargs=-1, expose_value=False, callback=_no_arguments, type=click.UNPROCESSED
)
_PROGRAMS = [
    click.option(
        "--askpass",
        metavar="PROGRAM",
        callback=_filled,
        help="Ask with this program: it gets the question as its argument and prints the answer.",
    ),
    click.option("--pinentry", is_flag=True, help="Ask with pinentry, which has to be installed."),
]


def passphrase_options(function: AnyFunction) -> AnyFunction:
    """Add the options that say where the passphrase comes from."""
    for option in reversed([_NO_ARGUMENTS, *_pair("", "the passphrase"), *_PROGRAMS]):
        function = option(function)
    return function


def both_passphrases_options(function: AnyFunction) -> AnyFunction:
    """Add those options for the present passphrase and for a new one."""
    pairs = [*_pair("", "the present passphrase"), *_pair("new-", "the new one")]
    for option in reversed([_NO_ARGUMENTS, *pairs, *_PROGRAMS]):
        function = option(function)
    return function


def at_most_one(given: Mapping[str, object]) -> None:
    """Raise a usage error if more than one of these options was given; a descriptor may be 0."""
    names = [name for name, value in given.items() if value is not None and value is not False]
    if len(names) > 1:
        raise click.UsageError(f"{' and '.join(names)} cannot be combined", click.get_current_context())
