"""The options that every command has, before or after its name, and what they set."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import click

from .. import paths
from ..blocking import Client
from ..session import Session
from . import interrupts

DEFAULT_TIMEOUT_SECONDS = 2.0
DEFAULT_PATIENCE_SECONDS = 0.5
"""How long to wait for an agent that is not there, without --timeout; one that is starting needs far less."""

MAX_TIMEOUT_SECONDS = 3600.0

AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])


class Settings:
    """The values of the shared options; `now` returns the time in seconds since 1970."""

    __slots__ = ("debug", "json", "now", "patience", "socket", "timeout", "token_file")

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self.json = False
        self.debug = False
        self.socket: str | None = None
        self.timeout = DEFAULT_TIMEOUT_SECONDS
        self.patience: float | None = DEFAULT_PATIENCE_SECONDS
        self.token_file: str | None = None
        self.now = now

    @property
    def token_path(self) -> str:
        """The token file's path."""
        return self.token_file or paths.session_token_path()

    def at_least(self, seconds: float) -> float:
        """The timeout of a call that takes longer than others, unless --timeout was given."""
        return self.timeout if self.patience is None else max(self.timeout, seconds)

    def connect(self, agent_uid: int | None = None) -> Client:
        """Connect to the agent, which may be another user's; raises as `Client.connect` does."""
        return Client.connect(self.socket, timeout=self.timeout, patience=self.patience, agent_uid=agent_uid)

    def session(self) -> Session:
        """The session of the token file; touches no file."""
        return Session.create_session(session_token_path=self.token_path)


def not_empty(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """The callback of an option that must not be empty.

    An empty one comes from an unset shell variable, and something else was meant than no option.
    """
    if value == "":
        raise click.BadParameter("must not be empty", context, parameter)
    return value


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    # An option that was not given must not undo the one given before the command's name.
    if value is not None and value is not False:
        setattr(context.ensure_object(Settings), str(parameter.name), not_empty(context, parameter, value))


def _keep_timeout(context: click.Context, parameter: click.Parameter, value: float | None) -> None:
    if value is not None and not 0 < value <= MAX_TIMEOUT_SECONDS:  # NaN is neither
        limit = f"{MAX_TIMEOUT_SECONDS:.0f}"
        raise click.BadParameter(f"must be a number of seconds above 0, at most {limit}", context, parameter)
    _keep(context, parameter, value)
    if value is not None:  # it also applies to waiting for an agent that is starting
        context.ensure_object(Settings).patience = None


def shared_options() -> list[click.Parameter]:
    """The options of the group and of each of its commands."""
    return [
        click.Option(
            ["--json"], is_flag=True, expose_value=False, callback=_keep, help="Print one JSON object."
        ),
        click.Option(
            ["--socket"],
            type=click.Path(),
            expose_value=False,
            callback=_keep,
            help=f"The agent's socket, instead of {paths.SOCKET_VARIABLE} and the default.",
        ),
        click.Option(
            ["--timeout"],
            type=float,
            metavar="SECONDS",
            expose_value=False,
            callback=_keep_timeout,
            help=f"How long to wait for the agent.  [default: {DEFAULT_TIMEOUT_SECONDS:g}, "
            f"{DEFAULT_PATIENCE_SECONDS:g} if no agent is there]",
        ),
        click.Option(
            ["--token-file"],
            type=click.Path(),
            expose_value=False,
            callback=_keep,
            help=f"The token file, instead of {paths.TOKEN_VARIABLE}, {paths.TOKEN_FD_VARIABLE}, "
            f"{paths.TOKEN_PATH_VARIABLE} and the default.",
        ),
        click.Option(
            ["--debug"], is_flag=True, expose_value=False, callback=_keep, help="Show an error's traceback."
        ),
    ]


class AgentctlCommand(click.Command):
    """A command with the shared options after its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(shared_options())

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an interruption lets it clean up."""
        with interrupts.Noted():
            return super().invoke(ctx)
