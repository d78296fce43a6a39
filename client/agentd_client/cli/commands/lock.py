"""`agentctl lock`: take the keys out of the agent's memory."""

from __future__ import annotations

import click

from ...protocol.wire import to_wire
from ..options import AgentctlCommand, Settings
from ..output import show

LOCK_SECONDS = 15.0
"""How long the agent may take: an unlock or a change of the passphrase that is under way comes first, some
seconds, and a slow disk has some more before the keys go without it."""


@click.command("lock", cls=AgentctlCommand)
@click.pass_obj
def command(settings: Settings) -> None:
    """Lock the agent: it wipes its keys and answers nobody.

    Sessions stay, and their tokens are good again once it is unlocked; until then nobody can know, and asking
    about them is an error (69). An agent whose key file has no passphrase cannot be locked: `agentctl passwd`
    gives it one.

    An unlock that is under way comes first, and a slow disk has a few seconds: so the agent is given 15 s, if
    --timeout does not say otherwise.
    """
    with settings.connect() as agent:
        agent.timeout = settings.at_least(LOCK_SECONDS)
        state = agent.lock()
    show(settings, to_wire(state), human=lambda: ["locked; `agentctl unlock` unlocks it"])
