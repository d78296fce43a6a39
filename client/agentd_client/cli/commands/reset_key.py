"""`agentctl reset-key`: end every session, at once or after a grace period."""

from __future__ import annotations

import click

from ...durations import format_duration
from ..confirmation import confirmed, yes_option
from ..exit_codes import DONE, NO
from ..options import AgentctlCommand, Settings
from ..output import printable, show
from ..parameters import seconds
from ..report import warn


@click.command("reset-key", cls=AgentctlCommand)
@click.option(
    "--grace",
    callback=seconds,
    metavar="10m",
    help="How long existing tokens still verify, and do nothing else.  [default: not at all]",
)
@yes_option
@click.pass_obj
def command(settings: Settings, grace: int | None, yes: bool) -> int:
    """Replace the session key, which ends every session.

    Every token that the agent has made becomes invalid, including this caller's own: at once, or after the
    grace period. On a terminal it asks for confirmation; otherwise it needs --yes.
    """
    when = f" in {format_duration(grace)}" if grace else ""
    if not yes and not confirmed(f"End every session of this agent{when}?"):
        warn(settings, "nothing was changed")
        return NO
    with settings.connect() as agent:
        key_id = agent.reset_key(grace)
    effect = f"every session ends{when}" if grace else "every session was ended"
    show(
        settings,
        {"keyId": key_id},
        human=lambda: [
            f"{effect}; the new session key is {printable(key_id)}",
            "open a new session with `agentctl login`",
        ],
    )
    return DONE
