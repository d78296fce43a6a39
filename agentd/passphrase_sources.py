"""Where the passphrase of the command `agentd` comes from; never from an argument or the environment.

All of it blocks. The buffer is the caller's to wipe.
"""

from __future__ import annotations

from agentd_client.errors import PassphraseError

from .config import Settings
from .locking import passphrase_from_credential, passphrase_from_descriptor, passphrase_from_file


def unattended_passphrase(settings: Settings, descriptor: int | None) -> bytearray | None:
    """The passphrase that is handed over without anybody typing it, or None.

    Args:
        settings: may name a file.
        descriptor: to read from, to its end; before everything else.

    Raises:
        PassphraseError: there is none where it was said to be.
    """
    if descriptor is not None:
        return passphrase_from_descriptor(descriptor)
    if settings.passphrase_file:
        return passphrase_from_file(settings.passphrase_file)
    return passphrase_from_credential()


def new_passphrase(settings: Settings, descriptor: int | None, *, ask: bool) -> bytearray | None:
    """The passphrase of a key file that is to be made; with `ask`, typed twice where none is handed over.

    In the main thread only.
    """
    given = unattended_passphrase(settings, descriptor)
    if given is not None or not ask:
        return given
    from agentd_client.cli.passphrase.asking import new_passphrase as typed
    from agentd_client.cli.terminal import Terminal

    if not Terminal.is_there():
        raise PassphraseError("there is no terminal to ask on; use --passphrase-fd or --passphrase-file")
    return typed(Terminal())
