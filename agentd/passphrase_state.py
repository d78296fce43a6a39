"""Whether the key file has a passphrase, and the tasks that run only while it has one."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import trio

from agentd_client.errors import KeyFileError, NoPassphraseError

from .keys import KEY_FILE, Cost, PassphraseText, change_passphrase, is_protected


class PassphraseState:
    """Whether one key file has a passphrase; true if it has.

    Args:
        keys_path: the folder of the key file.
        logger: for changes of the key file; never a key or a passphrase.
        cost: of Argon2id for a new passphrase; None measures it.
    """

    def __init__(self, keys_path: Path, logger: logging.Logger, cost: Cost | None) -> None:
        self._keys_path = keys_path
        self._log = logger
        self._cost = cost
        self._is_set = False
        self._changed = trio.Event()

    def __bool__(self) -> bool:
        """Whether the key file has a passphrase."""
        return self._is_set

    def require(self) -> None:
        """Raise NoPassphraseError if there is none: nobody could unlock the agent again."""
        if not self._is_set:
            raise NoPassphraseError

    def set(self, is_set: bool) -> None:
        """Record that the key file was made or changed."""
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
