"""One run of `agentctl`, from its arguments to its exit code."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence

import click

from .. import __version__
from ..errors import (
    AgentdError,
    InvalidMessageError,
    InvalidParamsError,
    LocalParamsError,
    UnknownMethodError,
)
from ..versions import difference
from .current_token import refuse_tokens
from .exit_codes import exit_code
from .group import COMPLETE_VARIABLE, NAME, root
from .options import Settings
from .output import settle_stderr, whole_output
from .report import report


def run(arguments: Sequence[str], *, now: Callable[[], float] = time.time) -> int:
    """Run the command; returns the exit code and raises nothing.

    Not click's own `main`, which turns a broken pipe into exit code 1, and that means "no" here.
    """
    settings = Settings(now)
    try:
        with whole_output():
            return _carry_out(list(arguments), settings)
    except (KeyboardInterrupt, click.Abort) as error:
        if sys.stderr is not None and sys.stderr.isatty():
            click.echo(err=True)  # ends the line in which the terminal shows ^C
        return exit_code(error)
    except Exception as error:
        # A parsing error comes before the options are known.
        as_json = settings.json or (isinstance(error, click.UsageError) and "--json" in arguments)
        report(error, as_json=as_json, debug=settings.debug, advice=_difference(settings, error))
        return exit_code(error)
    finally:
        settle_stderr()


def _difference(settings: Settings, error: Exception) -> str | None:
    """How the versions differ, if that may be the reason of the error; the agent tells its own in `hello`."""
    if isinstance(error, LocalParamsError) or not isinstance(error, _OTHER_VERSIONS):
        return None
    try:
        with settings.connect() as agent:
            return difference(agent.hello(), __version__)
    except (AgentdError, OSError, KeyboardInterrupt):
        return None


_OTHER_VERSIONS = (UnknownMethodError, InvalidParamsError, InvalidMessageError)
"""Errors that `agentctl` only gets if its version and the agent's differ."""


def _carry_out(arguments: list[str], settings: Settings) -> int:
    instruction = os.environ.get(COMPLETE_VARIABLE)
    if instruction:
        from click.shell_completion import shell_complete

        return shell_complete(root, {"obj": settings}, NAME, COMPLETE_VARIABLE, instruction)
    refuse_tokens(arguments)
    try:
        with root.make_context(NAME, arguments, obj=settings) as context:
            return root.invoke(context) or 0
    except click.exceptions.Exit as done:  # after --help and --version
        return done.exit_code
