"""`agentctl prompt`: asks the person at the desktop about requests for sessions."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from ...errors import ConfigError
from ..exit_codes import DONE
from ..options import AgentctlCommand, Settings
from ..report import remark

if TYPE_CHECKING:
    from ...prompt.asking import Place, Say
    from ...prompt.dialogues import PassphraseSource

NOTIFICATION, PINENTRY, ASKPASS = "notification", "pinentry", "askpass"


@click.command("prompt", cls=AgentctlCommand)
@click.option(
    "--with",
    "way",
    type=click.Choice([NOTIFICATION, PINENTRY, ASKPASS]),
    default=NOTIFICATION,
    show_default=True,
    help="How to ask: a desktop notification, pinentry, or the program in AGENTD_ASKPASS or SSH_ASKPASS.",
)
@click.pass_obj
def prompt_command(settings: Settings, way: str) -> int:
    """Ask at the desktop about requests until SIGTERM or Ctrl-C.

    Each request that waits is shown with what `agentctl requests` says about it, and the buttons Approve
    and Deny. The first answer counts, wherever it is given; a request that is decided elsewhere, withdrawn
    or over is no longer shown. Only Approve is a yes. Closing a notification or dialogue is no answer.

    A notification needs a session bus and a desktop whose notifications have buttons. pinentry has a third
    button, Not now, except in GNOME's, where there is none for Deny. An askpass program is run with
    SSH_ASKPASS_PROMPT=confirm: it says yes by exit status 0 and no by 1.

    If approving takes the passphrase of the key file (`opening = "passphrase"`), pinentry or the askpass
    program asks for it. It waits for an agent that is not there.
    """
    try:
        import anyio

        from ...prompt.asking import ask_until_stopped

        place, source = _place(way, partial(remark, settings))
    except ImportError as error:
        raise ConfigError(f"{error.name} is missing: install agentd-client with the extra notify") from None
    anyio.run(ask_until_stopped, settings, place, source, partial(remark, settings))
    return DONE


def _place(way: str, say: Say) -> tuple[Place, PassphraseSource | None]:
    from ...prompt import dialogues

    if way == PINENTRY:
        return dialogues.pinentry_place(), dialogues.pinentry_source
    if way == ASKPASS:
        return dialogues.askpass_place(), dialogues.askpass_source
    from ...prompt.bus import session_bus
    from ...prompt.notifications import Notifications

    session_bus()  # to say at once if nothing leads to it
    return Notifications(say), dialogues.any_source()
