"""Whether the key file has a passphrase: what changes that, and what runs only as long as it is so."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import trio

from agentd_client.errors import KeyFileError, NoPassphraseError

from .keys import KEY_FILE, Cost, PassphraseText, change_passphrase, is_protected


class Protection:
    """The passphrase of one key file, as far as it is known without it.

    Args:
        keys_path: the folder of the key file.
        logger: where to say what was changed; never a key or a passphrase.
        cost: of Argon2id for a new passphrase; None measures it.
    """

    def __init__(self, keys_path: Path, logger: logging.Logger, cost: Cost | None) -> None:
        self._keys_path = keys_path
        self._log = logger
        self._cost = cost
        self._is_there = False
        self._changed = trio.Event()

    def __bool__(self) -> bool:
        """Whether there is one."""
        return self._is_there

    def require(self) -> None:
        """Raise NoPassphraseError where there is none: nobody could unlock the agent again."""
        if not self._is_there:
            raise NoPassphraseError(
                "without a passphrase the agent cannot be locked; set one with `agentctl passwd`"
            )

    def set(self, is_there: bool) -> None:
        """The key file was made or changed."""
        if is_there != self._is_there:
            self._is_there = is_there
            self._changed.set()
            self._changed = trio.Event()

    async def look(self) -> bool | None:
        """Look at the key file; None where there is none. Raises KeyFileError where it is refused."""
        found = await trio.to_thread.run_sync(is_protected, self._keys_path / KEY_FILE)
        if found is not None:
            self.set(found)
        return found

    async def change(self, old: PassphraseText | None, new: PassphraseText | None) -> None:
        """Give the key file another passphrase, a first one, or none; raises as `change_passphrase`."""
        try:
            await change_passphrase(self._keys_path, old, new, cost=self._cost, logger=self._log)
        except KeyFileError:
            # A file that was renamed into a folder that cannot be synced is the key file from then on.
            with trio.CancelScope(shield=True), suppress(KeyFileError):
                await self.look()
            raise
        self.set(new is not None)

    async def while_there(self, watch: Callable[[], Awaitable[None]]) -> None:
        """Run something that locks the agent for as long as there is a passphrase, again and again."""
        while True:
            async with trio.open_nursery() as watching:
                if self._is_there:
                    watching.start_soon(watch)
                await self._changed.wait()
                watching.cancel_scope.cancel()
