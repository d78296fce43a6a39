"""Sealed values, each bound to the key it is stored under.

The associated data of a value is a fixed domain and its stored key, so a value that was moved, swapped or
forged does not open. Not detected: an earlier value of the same path, or a whole earlier store, put back.
"""

from __future__ import annotations

from typing import Protocol

from agentd_client.errors import StoreDamagedError

from ..crypto import SealError
from .errors import RESTORE
from .keypath import readable

_DOMAIN = b"agentd store 1\0"


class ReadOnlyKeys(Protocol):
    """What reading the store takes: `agentd.keys.ReadOnlyKeys`, or a key ring. Callable from any thread."""

    @property
    def agent_id(self) -> str:
        """Public; the same for the life of a root key."""
        ...

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """Open what `KeyRing.seal` made; raises `SealError` for anything else."""
        ...


class KeyRing(ReadOnlyKeys, Protocol):
    """What the store uses of `agentd.keys.KeyRing`; callable from any thread."""

    def seal(self, value: bytes, context: bytes) -> bytes:
        """Seal under a fresh nonce: no two results are alike."""
        ...


class Unsealer:
    """Opens the values stored under their keys."""

    def __init__(self, keys: ReadOnlyKeys) -> None:
        self._open = keys.open

    def open(self, key: bytes, sealed: bytes) -> bytes:
        """The value stored under `key`; raises `StoreDamagedError`, which names the path but no value."""
        try:
            return self._open(sealed, _DOMAIN + key)
        except SealError:
            raise StoreDamagedError(
                f"the store is damaged at {readable(key)}: its value was not sealed there by this agent; "
                + RESTORE
            ) from None


class Sealer(Unsealer):
    """Seals values under their stored keys, and opens them."""

    def __init__(self, key_ring: KeyRing) -> None:
        super().__init__(key_ring)
        self._seal = key_ring.seal

    def seal(self, key: bytes, value: bytes) -> bytes:
        """The bytes to store under `key`."""
        return self._seal(value, _DOMAIN + key)


def checked_value(value: object) -> bytes:
    """The value itself; TypeError unless it is exactly `bytes`."""
    if type(value) is not bytes:
        raise TypeError(f"a value is bytes, not {type(value).__name__}")
    return value
