"""`agentctl revoke`: end one session, the caller's own or another."""

from __future__ import annotations

import re

import click

from ..current_token import CurrentToken, require_token, token_from_stdin
from ..exit_codes import DONE, NO
from ..options import AgentctlCommand, Settings
from ..output import show

_SESSION_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,63}")


def _stdin_or_id(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    # An empty one comes from an unset shell variable and must not end the caller's own session. What is no
    # id is not repeated: it may be a token.
    if value is None or value == "-" or _SESSION_ID.fullmatch(value):
        return value
    raise click.UsageError("that is neither `-` nor a session's id", context)


@click.command("revoke", cls=AgentctlCommand)
@click.argument("which", metavar="[- | ID]", required=False, callback=_stdin_or_id)
@click.pass_obj
def command(settings: Settings, which: str | None) -> int:
    """End a session; the token file stays.

    Without an argument it is the session of the current token; with `-` that of the token on standard input;
    else the session of that id, which is no secret. `agentctl logout` also removes the token file. Exits 1
    where there was no session to end.
    """
    found: CurrentToken | None = None
    if which is None:
        found = require_token(settings)
        token: str | None = found.text
    else:
        token = token_from_stdin() if which == "-" else None
    with settings.connect() as agent:
        revoked = agent.revoke_token(token) if token is not None else agent.revoke_token(id=which)
    ended = "the session was ended" if revoked else "there was no session to end"
    if found is not None:
        ended += f"; its token is still in {found.origin}"
    show(settings, {"revoked": revoked}, human=lambda: [ended])
    return DONE if revoked else NO
