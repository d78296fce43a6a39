"""The session keys that are in memory: drawn, sealed for the store, and unsealed again on demand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from agentd_client.errors import KeyUnavailableError, SessionManagerNotRunningError, StoreDamagedError

from ..crypto import SealError, random_bytes
from . import identifiers
from .records import KEY_PATH, KeyRecord
from .rules import counts_as_earlier
from .session_key import SessionKey

if TYPE_CHECKING:
    from ..keys import KeyRing
    from ..store import DB, View
    from .clock import Clock, Instant

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
        self._record: KeyRecord | None = None
        self._is_open = False

    def open(self) -> None:
        """Let keys come into memory, until `close`."""
        self._is_open = True

    def replace(self, view: View, grace_seconds: int = 0) -> KeyRecord:
        """Draw a new session key and make it the present one, in whatever transaction `view` belongs to.

        With grace the tokens of the one it replaces verify for so long; of one before that nothing is left.
        """
        key_id = identifiers.key_id(random_bytes(identifiers.KEY_RANDOM_BYTES), self._key_ring.agent_id)
        key = self._key_ring.new_key()
        try:
            wrapped = self._key_ring.wrap_key(key, key_id.encode())
        finally:
            key.wipe()
        now = self._clock.read()
        record = KeyRecord(key_id, wrapped, now.wall)
        stored = view.get(KEY_PATH) if grace_seconds else None
        if stored is not None:
            before = KeyRecord.decode(stored)
            record = replace(
                record,
                earlier_key_id=before.key_id,
                earlier_wrapped=before.wrapped,
                earlier_until=now.wall + grace_seconds,
                earlier_boot_id=now.boot_id,
                earlier_boot_until=now.boot + grace_seconds,
            )
        view.put(KEY_PATH, record.encode())
        return record

    def end_grace(self, view: View) -> bool:
        """Forget the earlier key if its grace is over; whether that was so."""
        stored = view.get(KEY_PATH)
        record = None if stored is None else KeyRecord.decode(stored)
        if record is None or not record.earlier_key_id:
            return False
        if counts_as_earlier(record, record.earlier_key_id, self._clock.read()):
            return False
        view.put(KEY_PATH, KeyRecord(record.key_id, record.wrapped, record.made).encode())
        return True

    def ensure(self, view: View) -> KeyRecord:
        """The present key's record; draws a key only where there is none."""
        sealed = view.sealed(KEY_PATH)
        if self._record is not None and sealed is not None and sealed == self._sealed:
            return self._record  # equal bytes are the same record
        stored = view.get(KEY_PATH)
        return self.replace(view) if stored is None else KeyRecord.decode(stored)

    def current(self, sealed: bytes | None) -> SessionKey | None:
        """The key of the record whose stored bytes these are; None where there is no record.

        Sealing is randomised, so equal bytes are the same record: the common case costs one comparison.
        """
        if sealed is not None and sealed == self._sealed:
            return self._current
        self._sealed, self._current, self._record = None, None, None
        if sealed is None:
            return None
        record = KeyRecord.decode(self._db.unseal(KEY_PATH, sealed))
        key = self.of(record)
        # Another record than before: the key was reset, and the old one has no further use.
        for replaced in [known for known in self._keys if known not in (key.id, record.earlier_key_id)]:
            self._keys.pop(replaced).secret.wipe()
        self._sealed, self._current, self._record = sealed, key, record
        return key

    def accepting(self, key_id: str, now: Instant) -> SessionKey | None:
        """The key of that id if its tokens verify, by the record that `current` was last given."""
        if not self._is_open:  # it cannot be known, which is not a no
            raise SessionManagerNotRunningError
        if self._record is None:
            return None
        return self.of_id(self._record, key_id, now)

    def in_memory(self, key_id: str) -> SessionKey | None:
        """The key of that id as far as it was used before; whether its tokens verify is another question."""
        return self._keys.get(key_id)

    def is_of_another_agent(self, key_id: str) -> bool:
        """Whether a key of that id was another agent's."""
        return identifiers.is_of_another_agent(key_id, self._key_ring.agent_id)

    def of_id(self, record: KeyRecord, key_id: str, now: Instant) -> SessionKey | None:
        """The key of that id if its tokens verify, by a key record."""
        if key_id == record.key_id:
            return self.of(record)
        if counts_as_earlier(record, key_id, now):
            return self._handle(key_id, record.earlier_wrapped)
        if key_id in self._keys and key_id == record.earlier_key_id:
            self._keys.pop(key_id).secret.wipe()  # its grace is over
        return None

    def of(self, record: KeyRecord) -> SessionKey:
        """The handle of a record's present key."""
        return self._handle(record.key_id, record.wrapped)

    def _handle(self, key_id: str, wrapped: bytes) -> SessionKey:
        if not self._is_open:  # whoever waited for the store meanwhile must not bring a key back
            raise SessionManagerNotRunningError
        known = self._keys.get(key_id)
        if known is not None:
            return known
        if len(self._keys) >= _MAX_KEYS:
            # Of a transaction that was rolled back, or another that can unseal it again; never the present.
            oldest = next(key for key in self._keys.values() if key is not self._current)
            self._keys.pop(oldest.id).secret.wipe()
        try:
            secret = self._key_ring.unwrap_key(wrapped, key_id.encode())
        except SealError as error:
            raise StoreDamagedError("the session key's record is not genuine") from error
        key = self._keys[key_id] = SessionKey(key_id, secret, self._require_present)
        return key

    def _require_present(self, key: SessionKey) -> None:
        """Refuse whoever holds a handle on a key that is not the present one any more.

        The store is asked, so that it holds from the very commit that replaces the key.
        """
        if not self._is_open or self.current(self._db.sealed(KEY_PATH)[0]) is not key:
            raise KeyUnavailableError

    def close(self) -> None:
        """Zero every key in memory, and let none come back."""
        self._is_open = False
        for key in self._keys.values():
            key.secret.wipe()
        self._keys.clear()
        self._sealed = self._current = self._record = None
