"""`agentctl exec`: a session for one command, which this program then becomes."""

from __future__ import annotations

import click

from ..current_token import require_token
from ..handover import default_label, run_with, ways
from ..options import AgentctlCommand, Settings
from ..parameters import given_audience, given_scopes, given_uses, names, ttl
from ..program import complete


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
@ways
@click.argument(
    "arguments",
    metavar="[--] COMMAND [ARG]...",
    nargs=-1,
    required=True,
    type=click.UNPROCESSED,
    shell_complete=complete,
)
@click.pass_obj
def exec_command(
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
    --file  AGENTD_SESSION_TOKEN_PATH names a file that only the user can
            read. Its token can be renewed, and every ordinary program
            passes it on to what it starts.
    --fd    AGENTD_TOKEN_FD names an open descriptor of memory that nobody
            can change. It is for commands that cannot see the file, and no
            file holds the token. A program that closes descriptors
            (Python's subprocess without pass_fds, Node) does not pass it on.
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
            label=default_label(arguments[0]) if label is None else label,
            audience=names(audience),
            scopes=names(scopes),
            max_uses=max_uses,
            parent=parent.text,
            bound=True,
        )
        run_with(settings, agent, created, way, arguments)
