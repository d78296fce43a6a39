"""`agentctl token`: the current token, for programs that pass it on."""

from __future__ import annotations

import click

from ...blocking import Client
from ..current_token import NotLoggedInError, require_token
from ..options import AgentctlCommand, Settings
from ..output import is_terminal, show

HEADER, HEADERS_JSON = "header", "headers-json"


@click.command("token", cls=AgentctlCommand)
@click.option("--header", "form", flag_value=HEADER, help="Print it as an HTTP header.")
@click.option("--headers-json", "form", flag_value=HEADERS_JSON, help="Print a JSON object of HTTP headers.")
@click.option("--show", "shown", is_flag=True, help="Also print it to a terminal.")
@click.pass_obj
def token_command(settings: Settings, form: str | None, shown: bool) -> None:
    """Print the current session token.

    In a pipe it prints the token and nothing else; on a terminal, where others may see it, only with --show.
    It does not check whether the token is still valid; `agentctl verify` does.

    \b
    --header        Authorization: Bearer TOKEN
                    as in `agentctl token --header | curl -H @- URL`, where
                    the token is in no argument.
    --headers-json  {"Authorization": "Bearer TOKEN"}
                    as the header helpers of MCP clients print it.

    These two are for calling servers: like a program that calls one, they renew the session of the token file
    in the last third of its lifetime, if the agent answers. That is not a use of the session.
    """  # noqa: D301 - the \b is meant: click keeps the lines that follow
    if is_terminal() and not shown:
        raise click.UsageError("a token is shown on a terminal only with --show", click.get_current_context())
    token = require_token(settings).text if form is None else _sendable(settings)
    bearer = f"Bearer {token}"
    if form is None:
        show(settings, {"token": token}, human=lambda: [token], plain=[token])
    elif form == HEADER:
        header = f"Authorization: {bearer}"
        show(settings, {"header": header}, human=lambda: [header], plain=[header])
    else:
        from ..output import show_json

        show_json({"Authorization": bearer})


def _sendable(settings: Settings) -> str:
    """The current token, renewed first if that is due.

    Raises:
        InvalidTokenError: what the environment holds cannot be a token, and could be several headers.
    """
    from ...protocol.methods import stripped_token
    from ...token_file.renewal import Known, follow, sendable

    found = require_token(settings)
    if not found.is_from_file:
        return stripped_token(found.text)
    with Client(settings.socket, settings.timeout, 0) as agent:  # one that is away is not waited for
        token = follow(sendable(settings.session(), Known(), settings.now), agent._carry_out)
    if token is None:
        raise NotLoggedInError
    return token
