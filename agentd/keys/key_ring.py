"""The key ring: the root key and what is derived from it.

    root key ── "agent id"   → the agent's public id (a hash that reveals nothing of the key)
             ── "store"      → seals every value of the store
             ── "session"    → seals session keys, which are then stored as values

The root key itself is wiped as soon as the others are derived. With a passphrase on its file (`key_file.py`),
stopping the key ring takes the derived keys away, and only the passphrase brings them back.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Self

import trio

from agentd_client.errors import (
    KeyFileError,
    KeyRingDestroyedError,
    KeyRingNotRunningError,
    KeyRingRunningError,
)

from ..crypto import derive_into, open_into, open_sealed, random_into, seal
from ..lifecycle import Component, LoopLifecycle
from .argon2 import Cost, run_argon2
from .key_file import KEY_FILE, load_root_key, read_root_key, remove_root_key
from .memory import SecretKey, SecretMemory
from .passphrase import Passphrase, PassphraseText

STORE = "store"
SESSION = "session"

_AGENT_ID_BYTES = 16


def agent_id_of(root: memoryview) -> str:
    """The agent's public id."""
    return blake2b(b"agentd agent id", key=root, digest_size=_AGENT_ID_BYTES).hexdigest()


def derived_key(memory: SecretMemory, root: memoryview, purpose: str) -> SecretKey:
    """The key for a purpose, in locked memory; the caller wipes it."""
    derived = memory.new_key()
    with derived as view:
        derive_into(root, b"agentd key: " + purpose.encode(), view)
    return derived


class _DerivedKeys(dict[str, SecretKey]):
    """The keys by purpose; empty unless the key ring is running."""

    def __missing__(self, purpose: str) -> SecretKey:
        raise KeyRingNotRunningError


class KeyRing(Component):
    """The owner of the root key. Create it with `create_key_ring`; leaving it as a context manager wipes it.

    `seal`, `open`, `new_key`, `wrap_key` and `unwrap_key` may be called from any thread; start, stop and
    destroy it on one event loop.
    """

    def __init__(
        self, keys_path: Path, logger: logging.Logger | None = None, *, cost: Cost | None = None
    ) -> None:
        self.path = keys_path
        self._cost = cost
        self._log = logger or logging.getLogger("agentd.keys")
        self._lifecycle = LoopLifecycle(
            "the key ring",
            running=KeyRingRunningError,
            destroyed=KeyRingDestroyedError,
            not_running=KeyRingNotRunningError,
        )
        self._memory = SecretMemory()
        self._derived = _DerivedKeys()
        self._agent_id = ""

    @classmethod
    async def create_key_ring(
        cls,
        *,
        keys_path: str | os.PathLike[str],
        passphrase: PassphraseText | None = None,
        fresh: bool = False,
        logger: logging.Logger | None = None,
        cost: Cost | None = None,
    ) -> Self:
        """Construct and start.

        Args:
            keys_path: the folder of the key file; created with mode 0700 if it is missing.
            passphrase: of the key file, existing or new. 1 to 1024 bytes, text as UTF-8, without a line
                ending; copied at once into locked memory, which is wiped.
            fresh: generate a new root key and replace the existing one. What was sealed with the old
                key can never be opened again.
            logger: says what was created; never a key.
            cost: of Argon2id for a new file with a passphrase; None measures it (`calibrated`).

        Raises:
            KeyFileError: the file is refused; the message names it, the reason and the remedy.
            AgentLockedError: the key file has a passphrase, and none was given.
            PassphraseError: the passphrase is wrong or invalid, or the file has none.
        """
        key_ring = cls(Path(keys_path), logger, cost=cost)
        await key_ring.start(passphrase=passphrase, fresh=fresh)
        return key_ring

    async def start(self, *, passphrase: PassphraseText | None = None, fresh: bool = False) -> None:
        """Read the root key, or generate one if there is none, and derive the others.

        Raises what `create_key_ring` raises. If it is already running, nothing changes and the passphrase is
        not checked. With a passphrase this takes about half a second, in a thread, one key ring at a time.
        """
        with Passphrase.copy_of(passphrase) as secret:
            async with self._lifecycle.start() as needed:
                if needed:
                    if secret is None:
                        await trio.to_thread.run_sync(self._load, None, fresh)
                    else:
                        await run_argon2(self._load, secret, fresh)

    async def stop(self) -> None:
        """Wipe every key from memory: its own, and those that were made or unwrapped with it.

        Shielded from cancellation. It can be stopped from another event loop if the one that started it has
        ended.
        """
        async with self._lifecycle.stop() as needed:
            if needed:
                self._wipe()

    async def destroy(self) -> None:
        """Remove the key file: what was sealed with it can never be opened again."""
        async with self._lifecycle.destroy() as needed:
            if needed:
                await trio.to_thread.run_sync(remove_root_key, self.path)

    def require_running(self) -> None:
        """Raise KeyRingNotRunningError unless it is running, WrongLoopError on another event loop."""
        self._lifecycle.require_running()

    @property
    def agent_id(self) -> str:
        """The agent's public id: 32 hexadecimal characters, the same for the life of the root key."""
        self._require_keys()
        return self._agent_id

    @property
    def memory_locked(self) -> bool:
        """Whether the keys' memory is kept out of swap."""
        return self._memory.locked

    @property
    def memory_secret(self) -> bool:
        """Whether the keys' memory is memfd_secret(2)'s, which no other process can read."""
        return self._memory.secret

    def new_key(self) -> SecretKey:
        """Generate a new key in secret memory."""
        self._require_keys()
        key = self._memory.new_key()
        with key as view:
            random_into(view)
        return key

    def seal(self, value: bytes, context: bytes) -> bytes:
        """Seal a store value under its context; no two results are alike."""
        with self._derived[STORE] as key:
            return seal(key, value, context)

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """Open what `seal` made; raises `agentd.crypto.SealError` for anything else."""
        with self._derived[STORE] as key:
            return open_sealed(key, sealed, context)

    def wrap_key(self, key: SecretKey, context: bytes) -> bytes:
        """Seal a key, from memory to ciphertext."""
        with self._derived[SESSION] as wrapping, key as secret:
            return seal(wrapping, secret, context)

    def unwrap_key(self, wrapped: bytes, context: bytes) -> SecretKey:
        """Open what `wrap_key` made, into locked memory; raises `SealError` for anything else."""
        key = self._memory.new_key()
        try:
            with self._derived[SESSION] as wrapping, key as secret:
                open_into(wrapping, wrapped, context, secret)
        except BaseException:
            key.wipe()
            raise
        return key

    def _require_keys(self) -> None:
        if not self._lifecycle.is_running:  # callable from any thread, unlike `require_running`
            raise KeyRingNotRunningError

    def _load(self, passphrase: Passphrase | None, fresh: bool) -> None:
        root = self._memory.new_key()
        try:
            with root as view:
                load_root_key(self.path, passphrase, view, fresh=fresh, cost=self._cost, logger=self._log)
                self._agent_id = agent_id_of(view)
                for purpose in (STORE, SESSION):
                    self._derived[purpose] = derived_key(self._memory, view, purpose)
        except BaseException:
            self._wipe()
            raise
        finally:
            root.wipe()

    def _wipe(self) -> None:
        # First, so that no other thread can unwrap a key with them.
        self._derived.clear()
        self._memory.wipe()
        self._memory = SecretMemory()  # frees the old pages


class ReadOnlyKeys:
    """The key of the store's values, for opening only; what `agentd.store.check_offline` takes."""

    def __init__(self, key: SecretKey, agent_id: str) -> None:
        self._key, self.agent_id = key, agent_id

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """Like `KeyRing.open`."""
        with self._key as key:
            return open_sealed(key, sealed, context)


@contextmanager
def read_only_keys(keys_path: Path, passphrase: PassphraseText | None = None) -> Iterator[ReadOnlyKeys]:
    """The store's key for the duration of a `with`, to check a store offline: changes nothing on the disk.

    With a passphrase, deriving the key takes about half a second.

    Raises:
        KeyFileError: there is no key file, or it is refused.
        AgentLockedError: it has a passphrase, and none was given.
        PassphraseError: the passphrase is wrong, or the file has none.
    """
    memory = SecretMemory()
    try:
        root = memory.new_key()
        with Passphrase.copy_of(passphrase) as secret, root as view:
            if not read_root_key(keys_path / KEY_FILE, secret, view):
                raise KeyFileError(f"{keys_path / KEY_FILE} does not exist")
            keys = ReadOnlyKeys(derived_key(memory, view, STORE), agent_id_of(view))
        root.wipe()
        yield keys
    finally:
        memory.wipe()
