"""The agent's passphrase: whether the key file has one, and where it is read from.

It is read from a systemd credential, a file descriptor, a file or the terminal, never from an argument or the
environment. All of these block, and the caller wipes the buffer.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import trio

from agentd_client.errors import KeyFileError, NoPassphraseError, PassphraseError
from agentd_client.passphrase_input import (
    check_regular,
    failed,
    passphrase_of_descriptor,
    passphrase_of_file,
    read_passphrase,
)
from agentd_client.private import READ_FLAGS

from .config import Settings
from .crypto import wipe
from .keys import KEY_FILE, Cost, PassphraseText, change_passphrase, is_protected

CREDENTIAL = "agentd.passphrase"
"""The name of the credential: ``LoadCredential=agentd.passphrase:PATH`` in the unit (systemd.exec(5))."""

_LAST_STANDARD_DESCRIPTOR = 2


class PassphraseState:
    """Whether the key file has a passphrase, and the tasks that run only while it has one.

    proves_presence: whoever knows the passphrase is the person. False if the first one was set while the
    agent ran: any program can set it.
    """

    def __init__(self, keys_path: Path, logger: logging.Logger, cost: Cost | None) -> None:
        self._keys_path = keys_path
        self._log = logger
        self._cost = cost
        self._is_set = False
        self.proves_presence = False
        self._changed = trio.Event()

    def __bool__(self) -> bool:
        return self._is_set

    def require(self) -> None:
        """Raise NoPassphraseError if there is none: nobody could unlock the agent again."""
        if not self._is_set:
            raise NoPassphraseError

    def set(self, is_set: bool) -> None:
        """Record that the key file was made or changed."""
        self.proves_presence = self.proves_presence and is_set
        if is_set != self._is_set:
            self._is_set = is_set
            self._changed.set()
            self._changed = trio.Event()

    async def refresh(self) -> bool | None:
        """Read it from the key file; None if there is no key file, KeyFileError if it is refused."""
        found = await trio.to_thread.run_sync(is_protected, self._keys_path / KEY_FILE)
        if found is not None:
            self.set(found)
        return found

    async def change(self, old: PassphraseText | None, new: PassphraseText | None) -> None:
        """Set, change or remove the passphrase; raises what `change_passphrase` raises."""
        try:
            await change_passphrase(self._keys_path, old, new, cost=self._cost, logger=self._log)
        except KeyFileError:
            # The new file may already be in place: its rename succeeded, and syncing the folder failed.
            with trio.CancelScope(shield=True), suppress(KeyFileError):
                await self.refresh()
            raise
        self.set(new is not None)

    async def run_while_set(self, watch: Callable[[], Awaitable[None]]) -> None:
        """Run `watch` whenever there is a passphrase, and cancel it when there is none."""
        while True:
            async with trio.open_nursery() as watching:
                if self._is_set:
                    watching.start_soon(watch)
                await self._changed.wait()
                watching.cancel_scope.cancel()


@contextmanager
def wiping(passphrase: bytearray | None) -> Iterator[bytearray | None]:
    """Lend the passphrase for the duration of a `with`, then wipe it."""
    try:
        yield passphrase
    finally:
        if passphrase is not None:
            wipe(passphrase)


def unattended_passphrase(settings: Settings, descriptor: int | None) -> bytearray | None:
    """The passphrase for a start with no user present; None if no source is configured.

    The descriptor takes precedence. Raises PassphraseError if a source is configured but has no passphrase.
    """
    if descriptor is not None:
        return passphrase_from_descriptor(descriptor)
    if settings.passphrase_file:
        return passphrase_of_file(settings.passphrase_file)
    return passphrase_from_credential()


def new_passphrase(settings: Settings, descriptor: int | None, *, ask: bool) -> bytearray | None:
    """The passphrase for a new key file; without a source and with `ask` (main thread only), it is typed."""
    given = unattended_passphrase(settings, descriptor)
    if given is not None or not ask:
        return given
    from agentd_client.cli import passphrase

    asked = passphrase.terminal_asker()
    if asked is None:
        raise PassphraseError("there is no terminal to ask on; use --passphrase-fd or --passphrase-file")
    return passphrase.new_passphrase(asked)


def passphrase_from_credential(environ: Mapping[str, str] = os.environ) -> bytearray | None:
    """The passphrase in a systemd credential; None if there is none, PassphraseSourceError if it is unusable.

    Owner and mode are not checked: depending on systemd's version and the file system, the file belongs to
    root and has an ACL entry for the service's user (acl(5)).
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
