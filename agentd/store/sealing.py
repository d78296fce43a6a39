"""Sealed values: what the store writes is bound to where it writes it.

The context of a sealed value is a fixed domain and the stored key, so a value that was moved to another
path, swapped with one, or made up does not open. What this does not show: that an earlier value of the
same path, or a whole earlier store, was put back.
"""

from __future__ import annotations

from typing import Protocol

from agentd_client.errors import StoreDamagedError

from ..crypto import SealError
from .keypath import readable

_DOMAIN = b"agentd store 1\0"


class KeyRing(Protocol):
    """What the store uses of `agentd.keys.KeyRing`; callable from any thread."""

    @property
    def agent_id(self) -> str:
        """Public; the same for the life of a root key."""
        ...

    def seal(self, value: bytes, context: bytes) -> bytes:
        """Seal under a fresh nonce: no two results are alike."""
        ...

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """Open what `seal` made; raises `SealError` where it is anything else."""
        ...


class Sealer:
    """Seals values under their stored keys."""

    def __init__(self, key_ring: KeyRing) -> None:
        self._seal = key_ring.seal
        self._open = key_ring.open

    def seal(self, key: bytes, value: bytes) -> bytes:
        """The bytes to store under `key`."""
        return self._seal(value, _DOMAIN + key)

    def open(self, key: bytes, sealed: bytes) -> bytes:
        """The value stored under `key`; raises `StoreDamagedError`, which names the path and no value."""
        try:
            return self._open(sealed, _DOMAIN + key)
        except SealError:
            raise StoreDamagedError(
                f"the store is damaged at {readable(key)}: its value was not sealed there by this agent; "
                "restore the store, or begin anew with `agentd init --fresh`"
            ) from None


def checked_value(value: object) -> bytes:
    """The value, or TypeError: only `bytes` is kept as it is."""
    if type(value) is not bytes:
        raise TypeError(f"a value is bytes, not {type(value).__name__}")
    return value
