"""Where `agentd` reads a passphrase from: a systemd credential, a file descriptor, a file or the terminal.

Never from an argument or the environment. All of it blocks. The caller wipes the buffer.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from agentd_client.errors import PassphraseError
from agentd_client.passphrase_input import (
    READ_FLAGS,
    check_regular,
    failed,
    passphrase_of_descriptor,
    passphrase_of_file,
    read_passphrase,
)

from .config import Settings

CREDENTIAL = "agentd.passphrase"
"""The name of the credential: ``LoadCredential=agentd.passphrase:PATH`` in the unit (systemd.exec(5))."""

_LAST_STANDARD_DESCRIPTOR = 2


def unattended_passphrase(settings: Settings, descriptor: int | None) -> bytearray | None:
    """The passphrase for a start with no user present; None if no source is configured.

    Args:
        settings: may name a file.
        descriptor: read to its end; takes precedence.

    Raises:
        PassphraseError: a source is configured but has no passphrase.
    """
    if descriptor is not None:
        return passphrase_from_descriptor(descriptor)
    if settings.passphrase_file:
        return passphrase_of_file(settings.passphrase_file)
    return passphrase_from_credential()


def new_passphrase(settings: Settings, descriptor: int | None, *, ask: bool) -> bytearray | None:
    """The passphrase for a new key file. With `ask`, it is typed twice if no source is configured.

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


def passphrase_from_credential(environ: Mapping[str, str] = os.environ) -> bytearray | None:
    """The passphrase in a systemd credential; None if there is none.

    Owner and mode are not checked: depending on systemd's version and the file system, the file belongs to
    root and has an ACL entry for the service's user (acl(5)).

    Raises:
        PassphraseSourceError: it cannot be read, is not a regular file, or holds no passphrase.
    """
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        return None
    path = Path(folder) / CREDENTIAL
    source = f"credential {path}"
    try:
        descriptor = os.open(path, READ_FLAGS)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise failed(source, error) from None
    try:
        check_regular(source, os.fstat(descriptor))
        return read_passphrase(source, descriptor)
    finally:
        os.close(descriptor)


def passphrase_from_descriptor(descriptor: int) -> bytearray:
    """Like `passphrase_of_descriptor`, then closes it, unless it is one of the standard ones, 0 to 2."""
    try:
        return passphrase_of_descriptor(descriptor)
    finally:
        if descriptor > _LAST_STANDARD_DESCRIPTOR:
            with suppress(OSError):  # not open, as the error says
                os.close(descriptor)
