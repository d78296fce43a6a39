"""The session keys that are in memory: drawn, sealed for the store, and unsealed again on demand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentd_client.errors import SessionManagerNotRunningError, StoreDamagedError

from ..crypto import SealError, random_bytes
from . import identifiers
from .records import KEY_PATH, KeyRecord
from .session_key import SessionKey

if TYPE_CHECKING:
    from ..keys import KeyRing
    from ..store import DB, View
    from .clock import Clock

_MAX_KEYS = 8


class KeyHolder:
    """Handles by key id. The store's record says which key is the present one; this only remembers."""

    def __init__(self, db: DB, key_ring: KeyRing, clock: Clock) -> None:
        self._db = db
        self._key_ring = key_ring
        self._clock = clock
        self._keys: dict[str, SessionKey] = {}
        self._sealed: bytes | None = None
        self._current: SessionKey | None = None
        self._is_open = False

    def open(self) -> None:
        """Let keys come into memory, until `close`."""
        self._is_open = True

    def replace(self, view: View) -> KeyRecord:
        """Draw a new session key and make it the present one, in whatever transaction `view` belongs to."""
        key_id = identifiers.key_id(random_bytes(identifiers.RANDOM_BYTES))
        key = self._key_ring.new_key()
        try:
            wrapped = self._key_ring.wrap_key(key, key_id.encode())
        finally:
            key.wipe()
        record = KeyRecord(key_id, wrapped, self._clock.read().wall)
        view.put(KEY_PATH, record.encode())
        return record

    def ensure(self, view: View) -> KeyRecord:
        """The present key's record; draws a key only where there is none."""
        stored = view.get(KEY_PATH)
        return self.replace(view) if stored is None else KeyRecord.decode(stored)

    def current(self, sealed: bytes | None) -> SessionKey | None:
        """The key of the record whose stored bytes these are; None where there is no record.

        Sealing is randomised, so equal bytes are the same record: the common case costs one comparison.
        """
        if sealed is not None and sealed == self._sealed:
            return self._current
        self._sealed, self._current = None, None
        if sealed is None:
            return None
        key = self.of(KeyRecord.decode(self._db.unseal(KEY_PATH, sealed)))
        # Another record than before: the key was reset, and the old one has no further use.
        for replaced in [known for known in self._keys if known != key.id]:
            self._keys.pop(replaced).wipe()
        self._sealed, self._current = sealed, key
        return key

    def of(self, record: KeyRecord) -> SessionKey:
        """The handle of a key record."""
        if not self._is_open:  # whoever waited for the store meanwhile must not bring a key back
            raise SessionManagerNotRunningError
        known = self._keys.get(record.key_id)
        if known is not None:
            return known
        if len(self._keys) >= _MAX_KEYS:
            # Of a transaction that was rolled back, or another that can unseal it again; never the present.
            oldest = next(key for key in self._keys.values() if key is not self._current)
            self._keys.pop(oldest.id).wipe()
        try:
            secret = self._key_ring.unwrap_key(record.wrapped, record.key_id.encode())
        except SealError as error:
            raise StoreDamagedError("the session key's record is not genuine") from error
        key = self._keys[record.key_id] = SessionKey(record.key_id, secret)
        return key

    def close(self) -> None:
        """Zero every key in memory, and let none come back."""
        self._is_open = False
        for key in self._keys.values():
            key.wipe()
        self._keys.clear()
        self._sealed = self._current = None
