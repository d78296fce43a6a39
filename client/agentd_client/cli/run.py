"""One call of `agentctl`, from its arguments to its exit code: every ending is decided here."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence

import click

from .current_token import refuse_tokens
from .exit_codes import exit_code
from .group import COMPLETE_VARIABLE, NAME, root
from .options import Settings
from .report import report


def run(arguments: Sequence[str], *, now: Callable[[], float] = time.time) -> int:
    """Carry out the command; returns what to exit with and raises nothing.

    click's own `main` is not used: it turns a broken pipe into exit code 1, which means "no" here.
    """
    settings = Settings(now)
    try:
        return _carry_out(list(arguments), settings)
    except click.exceptions.Exit as done:
        return done.exit_code
    except (KeyboardInterrupt, click.Abort) as error:
        if sys.stderr is not None and sys.stderr.isatty():
            click.echo(err=True)  # ends the line in which the terminal shows ^C
        return exit_code(error)
    except Exception as error:
        if isinstance(error, OSError):
            _give_up_stdout()
        if not isinstance(error, BrokenPipeError):
            # An error of parsing comes before the options are known.
            as_json = settings.json or (isinstance(error, click.UsageError) and "--json" in arguments)
            report(error, as_json=as_json, debug=settings.debug)
        return exit_code(error)


def _carry_out(arguments: list[str], settings: Settings) -> int:
    instruction = os.environ.get(COMPLETE_VARIABLE)
    if instruction:
        from click.shell_completion import shell_complete

        return shell_complete(root, {"obj": settings}, NAME, COMPLETE_VARIABLE, instruction)
    refuse_tokens(arguments)
    with root.make_context(NAME, arguments, obj=settings) as context:
        return root.invoke(context) or 0


def _give_up_stdout() -> None:
    # What could not be written is still in Python's buffer: the interpreter would try again at its end, say
    # so and change the exit code (the note on SIGPIPE in the documentation of Python's signal module).
    if sys.stdout is None:  # closed by the shell
        return
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
