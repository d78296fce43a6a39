"""`agentctl unlock`: load the agent's keys with its passphrase."""

from __future__ import annotations

import click

from ...protocol.methods import to_wire
from ...protocol.results import LockState
from ..options import AgentctlCommand, Settings
from ..output import show
from ..passphrase.options import at_most_one, passphrase_options


@click.command("unlock", cls=AgentctlCommand)
@passphrase_options
@click.pass_obj
def unlock_command(
    settings: Settings,
    passphrase_fd: int | None,
    passphrase_file: str | None,
    askpass: str | None,
    pinentry: bool,
) -> None:
    """Unlock the agent with its passphrase.

    It asks for the passphrase up to three times, on the terminal, which does not show it, or without a
    terminal with the program in AGENTD_ASKPASS. A passphrase is never an argument or an environment
    variable. If the agent is not locked, nothing is asked.

    The agent needs about half a second. After a wrong passphrase it waits before it tries the next one from
    the same process: 1 s, 2 s, 4 s and so on, at most 30 s; and from any other process at most 5 s. So the
    timeout is 60 s, unless --timeout is given.
    """
    at_most_one(
        {
            "--passphrase-fd": passphrase_fd,
            "--passphrase-file": passphrase_file,
            "--askpass": askpass,
            "--pinentry": pinentry,
        }
    )
    with settings.connect() as agent:
        outcome = "the agent is not locked"
        state = LockState(locked=False)
        if agent.get_status().locked:
            from ..passphrase.asking import UNLOCK_SECONDS, asker, with_passphrase

            asked = asker(passphrase_fd, passphrase_file, askpass, pinentry)
            agent.timeout = settings.at_least(UNLOCK_SECONDS)
            state = with_passphrase(asked, "Passphrase of agentd: ", agent.unlock)
            outcome = "unlocked"
    show(settings, to_wire(state), human=lambda: [outcome])
