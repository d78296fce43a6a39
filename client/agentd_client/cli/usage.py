"""Usage errors that do not quote the command line.

People put a passphrase or a token where it does not belong: after an option that takes none, as a command,
as a number. The process list and the shell's history have it then, but a log or a recorded terminal must
not.
"""

from __future__ import annotations

import re
from typing import Any

import click

_OPTION_NAME = r"-[A-Za-z]|--[a-z]{2,16}(-[a-z]{1,16}){0,3}"
"""An unknown option is shown if it looks like this, and not like something that a generator made up."""


_KINDS = {"integer": "must be a whole number", "float": "must be a number"}


def usage_sentence(error: click.ClickException) -> str:
    """The error message for a person. Messages of these programs stay as they are; they never quote a value.

    Those of click do. They are recognised by the module that raised the error, so that options need no
    special types.
    """
    if not _is_from_click(error) or isinstance(error, click.BadOptionUsage | click.MissingParameter):
        return error.format_message()  # the latter two name the option and nothing else
    if isinstance(error, click.NoSuchOption):
        return _no_such_option(error)
    if isinstance(error, click.BadParameter) and error.param is not None:
        return f"Invalid value for {error.param.get_error_hint(error.ctx)}: {_expectation(error.param.type)}"
    if isinstance(error, click.UsageError) and error.ctx is not None:
        if not isinstance(error.ctx.command, click.Group):
            return f"Too many arguments for `{error.ctx.command_path}`."
        is_missing = error.message == "Missing command."
        return error.message if is_missing else f"No such command.{_nearest(error)}"
    return "The command line is not understood."


class HelpfulGroup(click.Group):
    """A group that suggests similar commands for an unknown one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; raises UsageError with `possibilities`."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches

            error.possibilities = get_close_matches(args[0].casefold(), self.list_commands(ctx))  # type: ignore[attr-defined]
            raise


def _is_from_click(error: click.ClickException) -> bool:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = "" if trace is None else trace.tb_frame.f_globals.get("__name__", "")
    return module.partition(".")[0] == "click"


def _no_such_option(error: click.NoSuchOption) -> str:
    name = error.option_name.partition("=")[0]
    message = f"No such option '{name}'." if re.fullmatch(_OPTION_NAME, name) else "No such option."
    return message + _nearest(error)


def _nearest(error: click.UsageError) -> str:
    names: list[str] = getattr(error, "possibilities", None) or []
    near = ", ".join(f"'{name}'" for name in names)
    return f" Did you mean {near}?" if near else ""


def _expectation(kind: click.ParamType[Any]) -> str:
    if isinstance(kind, click.Choice):
        return f"must be one of {', '.join(map(str, kind.choices))}"
    if isinstance(kind, click.IntRange):
        limits = [f"at least {kind.min}"] if kind.min is not None else []
        limits += [f"at most {kind.max}"] if kind.max is not None else []
        return ", ".join(["must be a whole number", *limits])
    return _KINDS.get(kind.name, f"must be a {kind.name}")
