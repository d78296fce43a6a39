"""`agentctl reset-key`: end every session at once."""

from __future__ import annotations

import sys

import click

from ..exit_codes import DONE, NO
from ..options import AgentctlCommand, Settings
from ..output import printable, show
from ..report import warn


@click.command("reset-key", cls=AgentctlCommand)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def command(settings: Settings, yes: bool) -> int:
    """Replace the session key: every session ends.

    Every token that the agent has made is invalid from then on, this caller's own too. On a terminal it asks
    first; anywhere else it needs --yes.
    """
    if not yes and not _confirmed():
        warn(settings, "nothing was changed")
        return NO
    with settings.connect() as agent:
        key_id = agent.reset_key()
    show(
        settings,
        {"keyId": key_id},
        human=lambda: [
            f"every session has ended; the new session key is {printable(key_id)}",
            "open a new session with `agentctl login`",
        ],
    )
    return DONE


def _confirmed() -> bool:
    if sys.stdin is None or not sys.stdin.isatty():
        raise click.UsageError("without a terminal to ask on, --yes is needed", click.get_current_context())
    return click.confirm("End every session of this agent?", err=True)
