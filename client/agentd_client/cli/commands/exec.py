"""`agentctl exec`: a session for one command, which this program then becomes."""

from __future__ import annotations

import os
from contextlib import suppress

import click

from ... import paths
from ...blocking import Client
from ...errors import AgentdError
from ...protocol.limits import MAX_LABEL_CHARACTERS
from ...protocol.results import CreatedToken
from ..current_token import require_token
from ..handover import ENV, FD, FILE, Handover, hand_over
from ..options import AgentctlCommand, Settings
from ..output import printable
from ..parameters import given_audience, given_scopes, given_uses, names, ttl
from ..program import become, complete
from ..report import warn

_STREAMS = ("input", "output", "error")


@click.command("exec", cls=AgentctlCommand, context_settings={"allow_interspersed_args": False})
@given_scopes
@given_audience
@click.option(
    "--ttl",
    callback=ttl,
    metavar="20m|8h|90|never",
    help="How long it lasts at most; a bare number is seconds.  [default: set by the agent]",
)
@given_uses
@click.option("--label", help="A label for the session.  [default: the command's name]")
@click.option("--fd", "way", flag_value=FD, help="Pass the token by file descriptor.  [default]")
@click.option("--file", "way", flag_value=FILE, help="Pass it in a private file.")
@click.option("--env", "way", flag_value=ENV, help="Pass it in the environment; see above.")
@click.argument(
    "arguments",
    metavar="[--] COMMAND [ARG]...",
    nargs=-1,
    required=True,
    type=click.UNPROCESSED,
    shell_complete=complete,
)
@click.pass_obj
def command(
    settings: Settings,
    scopes: tuple[str, ...],
    audience: tuple[str, ...],
    ttl: int | str | None,
    max_uses: int | None,
    label: str | None,
    way: str | None,
    arguments: tuple[str, ...],
) -> None:
    """Run a command with a session of its own.

    The session is a child of the current one: its scopes, audience, lifetime and uses lie inside its
    parent's, and it ends with its parent. It also ends with the command. agentctl becomes the command:
    process, terminal, signals and exit code are the command's own.

    \b
    --fd    AGENTD_TOKEN_FD names an open descriptor of memory that nobody
            can change. Only processes that inherit the descriptor have the
            token: a program that closes descriptors (sudo; Python's
            subprocess without pass_fds) does not pass it on.
    --file  AGENTD_SESSION_TOKEN_PATH names a file that only the user can
            read. Its token can be renewed. For programs that only support
            token files.
    --env   AGENTD_TOKEN holds the token itself. Every process of the user can
            read it from the command's environment, everything that the
            command starts inherits it, and it may end up in logs and
            crash reports. For programs that support nothing else.

    The command gets no other token: other variables that can name one are removed, and open descriptors that
    hold one are closed, whatever their number. So `agentctl verify` and the client library find the new
    session in the command. Only a token in a file can be renewed: otherwise choose a --ttl that is long
    enough. If the command cannot be run, the session is ended and the exit code is 127 if it does not
    exist, else 126.
    """  # noqa: D301 - the \b is meant: click keeps the lines that follow
    parent = require_token(settings)
    with settings.connect() as agent:
        created = agent.create_token(
            expiry=ttl,
            label=_default_label(arguments[0]) if label is None else label,
            audience=names(audience),
            scopes=names(scopes),
            max_uses=max_uses,
            parent=parent.text,
            bound=True,
        )
        handover: Handover | None = None
        try:
            _withhold_others(settings)
            handover = hand_over(created, way or FD)
            become(arguments, handover.environ(_environ(settings)))
        except BaseException:  # also Ctrl-C: nobody has the token, so the session must not stay open
            _take_back(agent, created, handover)
            raise


def _withhold_others(settings: Settings) -> None:
    # Before the command's own is prepared: those open now have more rights, or are of other sessions.
    from ...token_file.descriptor import withhold_tokens

    for stream in withhold_tokens():
        warn(
            settings,
            f"standard {_STREAMS[stream]} held a session token; the command only gets its own",
        )


def _environ(settings: Settings) -> dict[str, str]:
    # The command has to find the agent that opened its session.
    found = dict(os.environ)
    if settings.socket is not None:
        found[paths.SOCKET_VARIABLE] = os.path.abspath(settings.socket)
    return found


def _take_back(agent: Client, created: CreatedToken, handover: Handover | None) -> None:
    if handover is not None:
        handover.take_back()
    with suppress(AgentdError):  # the session ends with this process in any case
        agent.revoke_token(created.token)


def _default_label(name: str) -> str:
    # Only its name: arguments may be secret.
    return printable(os.path.basename(name))[:MAX_LABEL_CHARACTERS]
