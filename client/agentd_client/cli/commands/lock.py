"""`agentctl lock`: wipe the keys from the agent's memory."""

from __future__ import annotations

import click

from ...protocol.methods import to_wire
from ..options import AgentctlCommand, Settings
from ..output import show

LOCK_SECONDS = 15.0
"""How long the agent may take: it first finishes an unlock or a change of the passphrase, and gives a slow
disk a few seconds."""


@click.command("lock", cls=AgentctlCommand)
@click.pass_obj
def lock_command(settings: Settings) -> None:
    """Lock the agent, which wipes its keys.

    Sessions stay, and their tokens are valid again once the agent is unlocked; until then verifying them is
    an error (69). An agent whose key file has no passphrase cannot be locked: set one with `agentctl
    passwd`.

    The agent first finishes an unlock in progress and gives a slow disk a few seconds, so the timeout is 15
    s, unless --timeout is given.
    """
    with settings.connect() as agent:
        agent.timeout = settings.at_least(LOCK_SECONDS)
        state = agent.lock()
    show(settings, to_wire(state), human=lambda: ["locked; `agentctl unlock` unlocks it"])
