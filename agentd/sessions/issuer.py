"""The session keys in memory, and the tokens that are issued with them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from agentd_client.errors import (
    CannotBindError,
    KeyUnavailableError,
    NotWithinParentError,
    ParentNotValidError,
    SessionManagerNotRunningError,
    StoreDamagedError,
    StoreFullError,
)
from agentd_client.protocol.limits import MAX_DEPTH
from agentd_client.protocol.reasons import sentence
from agentd_client.protocol.results import APPROVED, CREATED, CreatedToken, PeerIdentity, Verification

from ..crypto import SealError, random_bytes
from ..process_identity import identify
from ..tokens import NONCE_BYTES, Claims, SealedToken, TokenError, open_token, seal_token
from .records import (
    KEY_PATH,
    KEY_RANDOM_BYTES,
    RANDOM_BYTES,
    KeyRecord,
    SessionRecord,
    bound_path,
    is_of_another_agent,
    key_id,
    read_key_record,
    session_id,
    session_path,
)
from .rules import Grant, child_of, ends_after, grant_within, is_in_grace, to_milliseconds
from .session_key import SessionKey

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..keys import KeyRing
    from ..process_identity import Process
    from ..store import DB, View
    from .binding import Binder
    from .clock import Clock, Instant
    from .manager_lifecycle import Context
    from .verifier import CachedToken

_MAX_KEYS = 8


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

    def grace_end(self, key_id: str) -> float | None:
        """Until when the tokens of that key verify, if it was replaced, by the record as it is now."""
        self.current()
        record = self._record
        return record.earlier_until if record is not None and record.earlier_key_id == key_id else None

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


class Approval(NamedTuple):
    """The decision that a session is opened by: of which request, by whom, and a code for the audit log."""

    request_id: str
    by: PeerIdentity
    reason: str | None = None


class SessionRequest(NamedTuple):
    """A request for a new session, already checked; see `SessionManager.open_session`."""

    ttl: int | None
    max_ttl: int | None
    label: str
    grant: Grant
    opened_by: PeerIdentity | None
    process: Process | None
    parent: object
    is_bound: bool
    approval: Approval | None = None


class Issuer:
    """Opens sessions and issues their tokens; calls `on_full` if the store has no room for a session."""

    def __init__(self, context: Context, binder: Binder, *, on_full: Callable[[], None]) -> None:
        self._db, self._keys, self._verifier, self._journal, self._clock = context
        self._binder = binder
        self._on_full = on_full

    async def create(self, request: SessionRequest) -> CreatedToken:
        """Open a session; durable on return."""
        if request.is_bound:
            await self._binder.make_room()
        now = self._clock.read()
        record = _new_record(request, now)
        if request.is_bound:
            record = self._bound(record, request)
        try:
            created, record = await self._db.write(self._creation(record, request, now))
        except Exception as error:
            # Not on cancellation: the session may still be opened, and then its process must be watched.
            if request.is_bound:
                self._binder.unbind(record.session_id)
            if isinstance(error, StoreFullError):
                self._on_full()
            raise
        self._journal.publish(CREATED, record, by=request.opened_by)
        if (approval := request.approval) is not None:
            self._journal.publish(APPROVED, record, by=approval.by, request_id=approval.request_id)
        return created

    def create_through(self, view: View, request: SessionRequest) -> CreatedToken:
        """Open a session in a transaction."""
        if request.is_bound:
            raise CannotBindError("a session that is opened in a transaction cannot be bound to a process")
        now = self._clock.read()
        return self._creation(_new_record(request, now), request, now)(view)[0]

    def _creation(
        self, record: SessionRecord, request: SessionRequest, now: Instant
    ) -> Callable[[View], tuple[CreatedToken, SessionRecord]]:
        """The operation that opens a session; it returns the token and the record as stored.

        The token is made in the same operation as its record and with the same key. So a reset comes before
        both, or after both and ends the session.
        """
        parent = None if request.parent is None else self._verifier.open(self._db, request.parent)
        if isinstance(parent, Verification):
            raise _parent_not_valid(parent)

        def create(view: View) -> tuple[CreatedToken, SessionRecord]:
            key = self._keys.ensure(view)
            stored = record
            if parent is not None:
                stored = self._child(view, key, record, request.grant, parent, now)
            created = self._keys.make_token(self._keys.of(key), stored)
            path = session_path(key.key_id, stored.session_id)
            view.put(path, stored.encode())
            if stored.bound_pid is not None:
                view.put(bound_path(path), b"")
            self._journal.write(view, CREATED, stored, by=request.opened_by)
            if (approval := request.approval) is not None:
                self._journal.write(
                    view,
                    APPROVED,
                    stored,
                    by=approval.by,
                    reason=approval.reason,
                    request_id=approval.request_id,
                    asked_by=request.opened_by,
                )
            return created, stored

        return create

    def _child(
        self,
        view: View,
        key: KeyRecord,
        record: SessionRecord,
        asked: Grant,
        parent_token: CachedToken,
        now: Instant,
    ) -> SessionRecord:
        if parent_token.key_id != key.key_id:
            raise ParentNotValidError("the session key was replaced: the parent can have no more children")
        parent = self._verifier.live_record(view, parent_token)
        if isinstance(parent, Verification):
            raise _parent_not_valid(parent)
        if len(parent.ancestors) >= MAX_DEPTH:
            raise NotWithinParentError(f"the parent already has {MAX_DEPTH} ancestors; nothing was stored")
        grant = grant_within(asked, parent)
        if grant.uses is not None and parent.uses_left is not None:
            uses_left = parent.uses_left - grant.uses
            view.put(parent_token.path, replace(parent, uses_left=uses_left).encode())
        return child_of(parent, record, grant, now)

    def _bound(self, record: SessionRecord, request: SessionRequest) -> SessionRecord:
        if request.opened_by is None:
            raise CannotBindError("there is no process to bind the session to; nothing was stored")
        process = request.process or identify(request.opened_by.pid)
        process = self._binder.bind(record.session_id, process)
        assert process.started is not None, "a session is bound to a live process only"
        return replace(
            record,
            bound_pid=process.pid,
            bound_started=process.started,
            bound_boot_id=process.boot_id,
        )


def _parent_not_valid(answer: Verification) -> ParentNotValidError:
    assert answer.reason is not None
    return ParentNotValidError(f"the parent: {sentence(answer.reason)}; nothing was stored")


def _new_record(request: SessionRequest, now: Instant) -> SessionRecord:
    expires_at, boot_expires = ends_after(request.ttl, now)
    max_expires_at, boot_max_expires = ends_after(request.max_ttl, now)
    uid, pid, exe, unit = request.opened_by or (None, None, None, None)
    return SessionRecord(
        session_id=session_id(random_bytes(RANDOM_BYTES), now.wall),
        label=request.label,
        created_at=to_milliseconds(now.wall),
        expires_at=expires_at,
        boot_id=now.boot_id,
        boot_expires=boot_expires,
        opened_uid=uid,
        opened_pid=pid,
        opened_exe=exe,
        opened_unit=unit,
        ttl=request.ttl,
        max_expires_at=max_expires_at,
        boot_max_expires=boot_max_expires,
        audience=request.grant.audience,
        scopes=request.grant.scopes,
        uses_left=request.grant.uses,
    )
