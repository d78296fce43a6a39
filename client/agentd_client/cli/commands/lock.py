"""`agentctl lock`, `unlock` and `passwd`: the agent's keys, and the passphrase that they are locked with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ...protocol.methods import to_wire
from ...protocol.results import LockState, Protection
from ..exit_codes import DONE, NO
from ..options import AgentctlCommand, Settings
from ..output import show
from ..parameters import yes_option
from ..passphrase_options import at_most_one, passphrase_options
from ..report import warn

if TYPE_CHECKING:
    from ...blocking import Client
    from ..passphrase import Asker

LOCK_SECONDS = 15.0
"""How long the agent may take: it first finishes an unlock or a change of the passphrase, and gives a slow
disk a few seconds."""

_QUESTION = (
    "Without a passphrase anybody who reads the key file can make tokens, and the agent cannot be locked.\n"
    "Remove the passphrase?"
)


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


@click.command("unlock", cls=AgentctlCommand)
@passphrase_options({"": "the passphrase"})
@click.pass_obj
def unlock_command(settings: Settings, /, **sources: Any) -> None:
    """Unlock the agent with its passphrase.

    It asks for the passphrase up to three times, on the terminal, which does not show it, or without a
    terminal with the program in AGENTD_ASKPASS. A passphrase is never an argument or an environment
    variable. If the agent is not locked, nothing is asked.

    The agent needs about half a second. After a wrong passphrase it waits before it tries the next one from
    the same process: 1 s, 2 s, 4 s and so on, at most 30 s; and from any other process at most 5 s. So the
    timeout is 60 s, unless --timeout is given.
    """
    at_most_one(sources, "passphrase_fd", "passphrase_file", "askpass", "pinentry")
    with settings.connect() as agent:
        outcome = "the agent is not locked"
        state = LockState(locked=False)
        if agent.get_status().locked:
            from ..passphrase import UNLOCK_SECONDS, asker, with_passphrase

            asked = asker(sources)
            agent.timeout = settings.at_least(UNLOCK_SECONDS)
            state = with_passphrase(asked, "Passphrase of agentd: ", agent.unlock)
            outcome = "unlocked"
    show(settings, to_wire(state), human=lambda: [outcome])


@click.command("passwd", cls=AgentctlCommand)
@passphrase_options({"": "the present passphrase", "new-": "the new one"})
@click.option("--remove", is_flag=True, help="Remove the passphrase.")
@yes_option
@click.pass_obj
def passwd_command(settings: Settings, /, remove: bool, yes: bool, **sources: Any) -> int:
    """Set, change or remove the agent's passphrase.

    It asks for the present passphrase, if there is one, and twice for the new one: on the terminal, or with
    --askpass or --pinentry. A passphrase is never an argument or an environment variable. --remove asks for
    confirmation, or needs --yes, and exits with 1 if there is no passphrase.

    Sessions and their tokens are not affected, and the agent stays locked or unlocked. An interruption
    leaves the old passphrase or the new one.
    """
    at_most_one(sources, "passphrase_fd", "passphrase_file")
    at_most_one(sources, "askpass", "pinentry")
    at_most_one(sources | {"remove": remove}, "new_passphrase_fd", "new_passphrase_file", "remove")
    if sources["passphrase_fd"] is not None and sources["passphrase_fd"] == sources["new_passphrase_fd"]:
        raise click.UsageError(
            "a descriptor is read to its end, so it cannot hold both passphrases",
            click.get_current_context(),
        )
    from ..passphrase import UNLOCK_SECONDS, asker
    from ..terminal import confirmed

    with settings.connect() as agent:
        is_protected = agent.get_status().protected
        if remove and not is_protected:
            warn(settings, "the key file has no passphrase")
            return NO
        if remove and not yes and not confirmed(_QUESTION):
            warn(settings, "nothing was changed")
            return NO
        old_asker = asker(sources) if is_protected else None
        new_asker = None if remove else asker(sources, "new_")
        agent.timeout = settings.at_least(UNLOCK_SECONDS)
        protection = _change(agent, old_asker, new_asker)
    show(settings, to_wire(protection), human=lambda: [_summary(is_protected, protection.protected)])
    return DONE


def _change(agent: Client, old_asker: Asker | None, new_asker: Asker | None) -> Protection:
    from ...passphrase_input import wipe
    from ..passphrase import new_passphrase, with_passphrase

    new: bytearray | None = None

    def change(old: bytearray | None) -> Protection:
        nonlocal new
        if new is None and new_asker is not None:
            new = new_passphrase(new_asker)
        return agent.change_passphrase(old, new)

    try:
        if old_asker is None:
            return change(None)
        return with_passphrase(old_asker, "Present passphrase of agentd: ", change)
    finally:
        if new is not None:
            wipe(new)


def _summary(was_protected: bool, is_protected: bool) -> str:
    if not is_protected:
        return "the passphrase was removed from the key file"
    if was_protected:
        return "the key file's passphrase was changed"
    return "the key file now has a passphrase; `agentctl lock` locks the agent"
