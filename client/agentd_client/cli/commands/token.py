"""`agentctl token`: the current token, for programs that pass it on."""

from __future__ import annotations

import click

from ..current_token import require_token
from ..options import AgentctlCommand, Settings
from ..output import is_terminal, show


@click.command("token", cls=AgentctlCommand)
@click.option("--show", "shown", is_flag=True, help="Also print it to a terminal.")
@click.pass_obj
def token_command(settings: Settings, shown: bool) -> None:
    """Print the current session token.

    In a pipe it prints the token and nothing else; on a terminal, where others may see it, only with --show.
    It does not check whether the token is still valid; `agentctl verify` does.
    """
    if is_terminal() and not shown:
        raise click.UsageError("a token is shown on a terminal only with --show", click.get_current_context())
    token = require_token(settings).text
    show(settings, {"token": token}, human=lambda: [token], plain=[token])
