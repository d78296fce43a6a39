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
from ..parameters import expiry, given_audience, given_scopes, given_uses, names
from ..program import become, complete
from ..report import warn

_STREAMS = ("input", "output", "error")


@click.command("exec", cls=AgentctlCommand, context_settings={"allow_interspersed_args": False})
@given_scopes
@given_audience
@click.option(
    "--ttl",
    callback=expiry,
    metavar="20m|8h|90|never",
    help="How long it lasts at the most; a bare number is seconds.  [default: the agent's own]",
)
@given_uses
@click.option("--label", help="What to call the session.  [default: the command's name]")
@click.option("--fd", "way", flag_value=FD, help="Hand the token over by file descriptor.  [default]")
@click.option("--file", "way", flag_value=FILE, help="Hand it over in a private file.")
@click.option("--env", "way", flag_value=ENV, help="Hand it over in the environment; see above.")
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

    The session is a child of the current one: its scopes, audience, lifetime and uses lie inside that one's,
    and it ends with it. It also ends with the command, however that ends. agentctl becomes the command:
    process, terminal, signals and exit code are the command's own.

    \b
    --fd    AGENTD_TOKEN_FD names an open descriptor of memory that nobody
            can change. Only what inherits the descriptor has the token: a
            program that closes descriptors (sudo; Python's subprocess
            without pass_fds) does not hand it on.
    --file  AGENTD_SESSION_TOKEN_PATH names a file that only the user can
            read. It can be renewed. For programs that know token files only.
    --env   AGENTD_TOKEN holds the token itself. Every process of the user can
            read it from the command's environment, everything that the
            command starts inherits it, and it may end up in logs and
            crash reports. For programs that know nothing else.

    The command gets no other token: the other variables that can name one are removed, and open descriptors
    that hold one are closed, whatever their number. So `agentctl verify` and the client library find the new
    session inside. Only the one in a file can be renewed: what runs for long needs a --ttl that is long
    enough. Where the command cannot be started the session is ended, and the exit code is 127 where there
    is no such command, else 126.
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
        except BaseException:  # Ctrl-C too: a session that nobody has the token of must not live on
            _take_back(agent, created, handover)
            raise


def _withhold_others(settings: Settings) -> None:
    # Before the command's own is laid ready: those open now are wider, or of other sessions.
    from ...token_file.descriptor import withhold_tokens

    for stream in withhold_tokens():
        warn(
            settings,
            f"standard {_STREAMS[stream]} held a session token; the command does not get it, only its own",
        )


def _environ(settings: Settings) -> dict[str, str]:
    # The command has to find the agent that made its session.
    found = dict(os.environ)
    if settings.socket is not None:
        found[paths.SOCKET_VARIABLE] = os.path.abspath(settings.socket)
    return found


def _take_back(agent: Client, created: CreatedToken, handover: Handover | None) -> None:
    if handover is not None:
        handover.take_back()
    with suppress(AgentdError):  # it ends with this process in any case
        agent.revoke_token(created.token)


def _default_label(name: str) -> str:
    # Its name alone: arguments hold secrets.
    return printable(os.path.basename(name))[:MAX_LABEL_CHARACTERS]
