"""`agentctl passwd`: set, change or remove the passphrase of the agent's key file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ...protocol.methods import to_wire
from ...protocol.results import Protection
from ..confirmation import confirmed, yes_option
from ..exit_codes import DONE, NO
from ..options import AgentctlCommand, Settings
from ..output import show
from ..passphrase.options import at_most_one, both_passphrases_options
from ..report import warn

if TYPE_CHECKING:
    from ...blocking import Client
    from ..passphrase.asking import Asker

_QUESTION = (
    "Without a passphrase anybody who reads the key file can make tokens, and the agent cannot be locked.\n"
    "Remove the passphrase?"
)


@click.command("passwd", cls=AgentctlCommand)
@both_passphrases_options
@click.option("--remove", is_flag=True, help="Remove the passphrase.")
@yes_option
@click.pass_obj
def passwd_command(
    settings: Settings,
    passphrase_fd: int | None,
    passphrase_file: str | None,
    new_passphrase_fd: int | None,
    new_passphrase_file: str | None,
    askpass: str | None,
    pinentry: bool,
    remove: bool,
    yes: bool,
) -> int:
    """Set, change or remove the agent's passphrase.

    It asks for the present passphrase, if there is one, and twice for the new one: on the terminal, or with
    --askpass or --pinentry. A passphrase is never an argument or an environment variable. --remove asks for
    confirmation, or needs --yes, and exits with 1 if there is no passphrase.

    Sessions and their tokens are not affected, and the agent stays locked or unlocked. An interruption
    leaves the old passphrase or the new one.
    """
    at_most_one({"--passphrase-fd": passphrase_fd, "--passphrase-file": passphrase_file})
    at_most_one({"--askpass": askpass, "--pinentry": pinentry})
    new = {"--new-passphrase-fd": new_passphrase_fd, "--new-passphrase-file": new_passphrase_file}
    at_most_one({**new, "--remove": remove})
    if passphrase_fd is not None and passphrase_fd == new_passphrase_fd:
        raise click.UsageError(
            "a descriptor is read to its end, so it cannot hold both passphrases",
            click.get_current_context(),
        )
    from ..passphrase.asking import UNLOCK_SECONDS, asker

    with settings.connect() as agent:
        is_protected = agent.get_status().protected
        if remove and not is_protected:
            warn(settings, "the key file has no passphrase")
            return NO
        if remove and not yes and not confirmed(_QUESTION):
            warn(settings, "nothing was changed")
            return NO
        old_asker = asker(passphrase_fd, passphrase_file, askpass, pinentry) if is_protected else None
        new_asker = None if remove else asker(new_passphrase_fd, new_passphrase_file, askpass, pinentry)
        agent.timeout = settings.at_least(UNLOCK_SECONDS)
        protection = _change(agent, old_asker, new_asker)
    show(settings, to_wire(protection), human=lambda: [_summary(is_protected, protection.protected)])
    return DONE


def _change(agent: Client, old_asker: Asker | None, new_asker: Asker | None) -> Protection:
    from ...passphrase_input import wipe
    from ..passphrase.asking import new_passphrase, with_passphrase

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
