"""The passphrase for a start without anybody: from a systemd credential, a file descriptor or a file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from agentd_client.passphrase_input import (
    READ_FLAGS,
    check_regular,
    failed,
    passphrase_of_descriptor,
    passphrase_of_file,
    read_passphrase,
)

CREDENTIAL = "agentd.passphrase"
"""The name of the credential: ``LoadCredential=agentd.passphrase:PATH`` in the unit (systemd.exec(5))."""

_LAST_STANDARD_DESCRIPTOR = 2

passphrase_from_file = passphrase_of_file


def passphrase_from_credential(environ: Mapping[str, str] = os.environ) -> bytearray | None:
    """The passphrase that the service manager hands over; None where it hands over none.

    Owner and mode are the manager's business: depending on its version and the file system the file
    is root's, with an entry for the service's user (acl(5)).

    Raises:
        PassphraseSourceError: the credential cannot be read, is not a regular file, or holds no passphrase.
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
    """As `passphrase_of_descriptor`; and closed, so that nobody can read from it again.

    The standard ones, 0 to 2, stay open.
    """
    try:
        return passphrase_of_descriptor(descriptor)
    finally:
        if descriptor > _LAST_STANDARD_DESCRIPTOR:
            with suppress(OSError):  # it was not open, which is what the refusal says
                os.close(descriptor)
