"""`agentctl request`: a session that a person grants, for a command or to pass on."""

from __future__ import annotations

import sys
from contextlib import suppress

import click

from ...blocking import Client
from ...durations import format_duration
from ...errors import AgentdError
from ...protocol.limits import MAX_REQUEST_SECONDS
from ...protocol.results import GrantedToken
from ..asking import by_another_terminal
from ..handover import check_possible, default_label, run_with, ways
from ..options import AgentctlCommand, Settings
from ..output import is_terminal, show, write_now
from ..parameters import agent_uid_option, given_audience, given_scopes, names, seconds, ttl
from ..program import complete
from ..report import remark
from ..request_view import EVERYTHING
from ..wording import ends, listed


def _wait(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    found = seconds(context, parameter, value)
    if found is not None and not 1 <= found <= MAX_REQUEST_SECONDS:
        most = format_duration(MAX_REQUEST_SECONDS)
        raise click.BadParameter(f"must be from 1 s to {most}", context, parameter)
    return found


@click.command("request", cls=AgentctlCommand, context_settings={"allow_interspersed_args": False})
@given_scopes
@given_audience
@click.option(
    "--ttl",
    callback=ttl,
    metavar="10m|8h|90|never",
    help="How long it lasts; a bare number is seconds.  [default: set by the agent]",
)
@click.option(
    "--uses",
    "max_uses",
    type=click.IntRange(min=1),
    metavar="N",
    help="How often it can be verified.  [default: unlimited]",
)
@click.option("--reason", help="What it is needed for; the person is shown it as the asker's words.")
@click.option("--label", help="A label for the session.  [default: the command's name]")
@click.option(
    "--wait",
    callback=_wait,
    metavar="2m|90",
    help="How long to wait for an answer.  [default: as long as the agent does, 5 minutes]",
)
@agent_uid_option
@ways
@click.option("--show", "shown", is_flag=True, help="Also print the token to a terminal.")
@click.argument(
    "arguments",
    metavar="[--] [COMMAND [ARG]...]",
    nargs=-1,
    type=click.UNPROCESSED,
    shell_complete=complete,
)
@click.pass_obj
def request_command(
    settings: Settings,
    scopes: tuple[str, ...],
    audience: tuple[str, ...],
    ttl: int | str | None,
    max_uses: int | None,
    reason: str | None,
    label: str | None,
    wait: int | None,
    agent_uid: int | None,
    way: str | None,
    shown: bool,
    arguments: tuple[str, ...],
) -> None:
    """Ask a person for a session, for a command or to pass on.

    It waits until a person has approved or denied the request, with `agentctl approve` or wherever else
    requests are shown. The person sees who asks, for what and why, and may grant less. Ctrl-C withdraws the
    request, and it ends with this process. Denied, it exits with 77; unanswered, or if there are too many
    requests, with 75.

    With a COMMAND, agentctl becomes it, as `agentctl exec` does: the session ends with the command, which
    gets no other token, and finds this one as --file (the default), --fd or --env say; see `agentctl exec
    --help`. Without one it prints the token and nothing else; to a terminal, where others may see it, only
    with --show.

    It also works at the agent's ask socket, which --socket or AGENTD_SOCKET names: for programs in a sandbox,
    and with --agent-uid UID at the one of another user's agent. A sandbox without a home folder has no place
    for the file: set XDG_RUNTIME_DIR to a folder in it, or use --fd.
    """
    context = click.get_current_context()
    if arguments and shown:
        raise click.UsageError("--show is for the token; a command gets it", context)
    if way is not None and not arguments:
        raise click.UsageError(f"--{way} is for a command, and none is given", context)
    if is_terminal() and not shown and not arguments:
        raise click.UsageError("a token is shown on a terminal only with --show", context)
    if arguments:
        check_possible(way)
    with settings.connect(agent_uid) as agent:
        granted = agent.request_token(
            ttl,
            default_label(arguments[0]) if label is None and arguments else label,
            audience=names(audience),
            scopes=names(scopes),
            max_uses=max_uses,
            reason=reason,
            bound=bool(arguments),
            wait=wait,
            on_waiting=by_another_terminal(settings),
        )
        if arguments:
            remark(settings, _granted(granted, settings.now()))
            run_with(settings, agent, granted, way, arguments)
        _print(settings, agent, granted)


def _granted(granted: GrantedToken, now: float) -> str:
    """What was granted, which may be less than what was asked for."""
    return f"granted: {listed(granted.scopes, EVERYTHING)}, {ends(granted.expires_at, now)}"


def _print(settings: Settings, agent: Client, granted: GrantedToken) -> None:
    document = {
        "token": granted.token,
        "id": granted.id,
        "expiresAt": granted.expires_at,
        "audience": granted.audience,
        "scopes": granted.scopes,
        "maxUses": granted.max_uses,
    }
    is_read = False
    try:
        remark(settings, _granted(granted, settings.now()))
        show(settings, document, human=lambda: [granted.token], plain=[granted.token])
        is_read = write_now() and sys.stdout is not None
    finally:
        if not is_read:  # also after Ctrl-C: nobody has the token, so the session must not stay open
            with suppress(AgentdError):  # at the ask socket; it ends when its time is over
                agent.revoke_token(granted.token)
