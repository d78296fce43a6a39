"""Session keys: the public handle, the keys in memory, and the tokens that are made and opened with them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from msgspec.structs import replace

from agentd_client.errors import KeyUnavailableError, SessionManagerNotRunningError, StoreDamagedError
from agentd_client.protocol.results import CreatedToken

from ..crypto import SealError, random_bytes
from ..tokens import NONCE_BYTES, Claims, SealedToken, TokenError, open_token, seal_token
from .records import (
    KEY_PATH,
    KEY_RANDOM_BYTES,
    KeyRecord,
    SessionRecord,
    is_of_another_agent,
    key_id,
    read_key_record,
)
from .rules import is_in_grace

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..keys import KeyRing, SecretKey
    from ..store import DB, View
    from .clock import Clock, Instant

_MAX_KEYS = 8


class SessionKey:
    """A handle on the key in locked memory: `len()` is 32, `bytes()` gives the caller a copy of its own.

    It raises `KeyUnavailableError` once the manager or its key ring has stopped, the key was reset (by any
    manager of the store), or the agent is locked. `id` is public: tokens carry it in their footer.

    Within a `with` it is a buffer, without a copy. The view that `with` gives is read-only, and using it
    raises ValueError after the end, or once the key is wiped. From Python 3.12 on `memoryview(key)` gives one
    too; before that a class written in Python cannot be a buffer itself::

        with key as view:
            digest = hashlib.blake2b(data, key=view)

    Anything made from a view (another view, a call in another thread) must not outlive the `with`: it would
    keep the key from being wiped.

    Args:
        key_id: public.
        secret: the key itself, which the owner of this handle uses without a further check.
        require_current: raises if the handle may no longer be used.
    """

    def __init__(self, key_id: str, secret: SecretKey, require_current: Callable[[SessionKey], None]) -> None:
        self.id = key_id
        self.secret = secret
        self._require_current = require_current
        self._held: list[memoryview] = []

    def __enter__(self) -> memoryview:
        self._require_current(self)
        view = self.secret.locked_copy()
        self._held.append(view)
        return view

    def __exit__(self, *exc: object) -> None:
        self.secret.release_copy(self._held.pop())

    def __buffer__(self, flags: int) -> memoryview:
        if not self._held:
            raise BufferError("a session key is a buffer within `with key:` only")
        self._require_current(self)
        return self.secret.locked_copy()

    def __release_buffer__(self, view: memoryview) -> None:
        self.secret.release_copy(view)

    def __len__(self) -> int:
        self._require_current(self)
        return len(self.secret)

    def __bytes__(self) -> bytes:
        self._require_current(self)
        return bytes(self.secret)

    def __repr__(self) -> str:
        return f"SessionKey(id={self.id!r})"


class SessionKeys:
    """The session keys in memory, by id. Which one is current is decided by the store's record alone."""

    def __init__(self, db: DB, key_ring: KeyRing, clock: Clock) -> None:
        self._db = db
        self._key_ring = key_ring
        self._clock = clock
        self._agent_id = key_ring.agent_id
        # Bound into every token, so that no other agent opens it.
        self._implicit = b"agentd:" + self._agent_id.encode()
        self._subject = str(os.geteuid())
        self._keys: dict[str, SessionKey] = {}
        self._sealed: bytes | None = None
        self._current: SessionKey | None = None
        self._record: KeyRecord | None = None
        self._is_open = False

    def open(self) -> None:
        """Allow keys in memory, until `close`."""
        self._is_open = True

    def close(self) -> None:
        """Zero every key in memory, and allow none until `open`."""
        self._is_open = False
        for key in self._keys.values():
            key.secret.wipe()
        self._keys.clear()
        self._sealed = self._current = self._record = None

    # --- the record in the store ---

    def ensure(self, view: View) -> KeyRecord:
        """The current key's record; draws a key only if there is none."""
        sealed = view.sealed(KEY_PATH)
        if self._record is not None and sealed is not None and sealed == self._sealed:
            return self._record  # equal bytes are the same record
        return read_key_record(view) or self.replace(view)

    def replace(self, view: View, grace_seconds: int = 0) -> KeyRecord:
        """Draw a new session key and make it the current one.

        With grace, tokens of the replaced key verify for that long. A key that was replaced earlier is gone.
        """
        new_id = key_id(random_bytes(KEY_RANDOM_BYTES), self._agent_id)
        key = self._key_ring.new_key()
        try:
            wrapped = self._key_ring.wrap_key(key, new_id.encode())
        finally:
            key.wipe()
        now = self._clock.read()
        record = KeyRecord(new_id, wrapped, now.wall)
        replaced = read_key_record(view) if grace_seconds else None
        if replaced is not None:
            record = replace(
                record,
                earlier_key_id=replaced.key_id,
                earlier_wrapped=replaced.wrapped,
                earlier_until=now.wall + grace_seconds,
                earlier_boot_id=now.boot_id,
                earlier_boot_until=now.boot + grace_seconds,
            )
        view.put(KEY_PATH, record.encode())
        return record

    def end_grace(self, view: View) -> None:
        """Delete the earlier key from the record if its grace is over."""
        record = read_key_record(view)
        if record is None or not record.earlier_key_id:
            return
        if not is_in_grace(record, record.earlier_key_id, self._clock.read()):
            view.put(KEY_PATH, KeyRecord(record.key_id, record.wrapped, record.created_at).encode())

    # --- keys in memory ---

    def current(self) -> SessionKey | None:
        """The current key, by the record as it is now; None if there is none. Wipes a key it replaced."""
        return self.current_for(self._db.sealed(KEY_PATH)[0])

    def current_for(self, sealed: bytes | None) -> SessionKey | None:
        """The key of the record with these stored bytes; None if there is no record.

        Sealing is randomised, so equal bytes are the same record: the common case costs one comparison.
        """
        if sealed is not None and sealed == self._sealed:
            return self._current
        self._sealed, self._current, self._record = None, None, None
        if sealed is None:
            return None
        record = KeyRecord.decode(self._db.unseal(KEY_PATH, sealed))
        key = self.of(record)
        # A different record: the key was reset, and the old one is no longer needed.
        for replaced in [known for known in self._keys if known not in (key.id, record.earlier_key_id)]:
            self._wipe(replaced)
        self._sealed, self._current, self._record = sealed, key, record
        return key

    def accepted(self, key_id: str, now: Instant) -> SessionKey | None:
        """The key with that id if its tokens verify, by the record last given to `current_for`."""
        if not self._is_open:  # unknown, which is not a no
            raise SessionManagerNotRunningError
        return None if self._record is None else self.accepted_by(self._record, key_id, now)

    def accepted_by(self, record: KeyRecord, key_id: str, now: Instant) -> SessionKey | None:
        """The key with that id if its tokens verify, by a key record."""
        if key_id == record.key_id:
            return self.of(record)
        if is_in_grace(record, key_id, now):
            return self._unwrapped(key_id, record.earlier_wrapped)
        if key_id in self._keys and key_id == record.earlier_key_id:
            self._wipe(key_id)  # its grace is over
        return None

    def in_memory(self, key_id: str) -> SessionKey | None:
        """The key with that id if it was used before; it may have been replaced since."""
        return self._keys.get(key_id)

    def of(self, record: KeyRecord) -> SessionKey:
        """The key that a record makes the current one."""
        return self._unwrapped(record.key_id, record.wrapped)

    def is_of_another_agent(self, key_id: str) -> bool:
        """Whether a key with that id belonged to another agent."""
        return is_of_another_agent(key_id, self._agent_id)

    # --- tokens ---

    def make_token(self, key: SessionKey, record: SessionRecord) -> CreatedToken:
        """A token of the record's newest generation; no two are alike."""
        claims = Claims(
            iss=self._agent_id,
            sub=self._subject,
            jti=record.session_id,
            iat=record.created_at if record.renewed_at is None else record.renewed_at,
            exp=record.expires_at,
            gen=record.generation,
        )
        nonce = random_bytes(NONCE_BYTES)
        with key.secret as secret:
            token = seal_token(secret, key.id, claims, implicit=self._implicit, nonce=nonce)
        return CreatedToken(token, record.session_id, record.expires_at)

    def open_token(self, key: SessionKey, token: SealedToken) -> Claims | None:
        """The claims of a token that was made with this key by this agent; None for any other."""
        try:
            with key.secret as secret:
                return open_token(secret, token, implicit=self._implicit)
        except TokenError:
            return None

    # --- inside ---

    def _unwrapped(self, key_id: str, wrapped: bytes) -> SessionKey:
        if not self._is_open:  # a task that was waiting for the store must not bring a key back
            raise SessionManagerNotRunningError
        known = self._keys.get(key_id)
        if known is not None:
            return known
        if len(self._keys) >= _MAX_KEYS:
            # Left by a transaction that was rolled back, or can be unsealed again; never the current one.
            self._wipe(next(key.id for key in self._keys.values() if key is not self._current))
        try:
            secret = self._key_ring.unwrap_key(wrapped, key_id.encode())
        except SealError as error:
            raise StoreDamagedError("the session key's record is not genuine") from error
        key = self._keys[key_id] = SessionKey(key_id, secret, self._require_current)
        return key

    def _wipe(self, key_id: str) -> None:
        self._keys.pop(key_id).secret.wipe()

    def _require_current(self, key: SessionKey) -> None:
        """Refuse a handle whose key is no longer the current one.

        This reads the store, so it refuses from the very commit that replaces the key.
        """
        if not self._is_open or self.current() is not key:
            raise KeyUnavailableError
