"""Issuing tokens: for a new session, and for a session's next generation."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from agentd_client.errors import (
    CannotBindError,
    NotWithinParentError,
    ParentNotValidError,
    StoreFullError,
    TokenNotValidError,
)
from agentd_client.protocol import reasons
from agentd_client.protocol.limits import MAX_DEPTH
from agentd_client.protocol.reasons import sentence
from agentd_client.protocol.results import CREATED, RENEWED, CreatedToken, PeerIdentity, Verification

from ..crypto import random_bytes
from ..process_identity import identify
from .records import (
    RANDOM_BYTES,
    KeyRecord,
    SessionRecord,
    bound_path,
    find_live_session,
    session_id,
    session_path,
)
from .rules import Grant, earliest, ends_after, grant_within, renewed, to_milliseconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..process_identity import Process
    from ..store import View
    from .binding import Binder
    from .clock import Instant
    from .manager_lifecycle import Context
    from .verifier import CachedToken


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


class NotRenewedError(TokenNotValidError):
    """A token that cannot be renewed, with the answer that a verification gives."""

    def __init__(self, answer: Verification) -> None:
        assert answer.reason is not None
        super().__init__(f"{sentence(answer.reason)} ({answer.reason}); log in again")
        self.answer = answer


class Issuer:
    """Issues tokens.

    Args:
        context: the parts it works with.
        binder: watches the processes of bound sessions.
        on_full: called if the store has no room for a session.
        limit: no session lasts longer than this many seconds, renewed or not; None is without limit.
    """

    def __init__(
        self, context: Context, binder: Binder, *, on_full: Callable[[], None], limit: int | None
    ) -> None:
        self._db, self._keys, self._verifier, self._journal, self._clock = context
        self._binder = binder
        self._on_full = on_full
        self._limit = limit

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
        parent = None if request.parent is None else self._open_parent(request.parent)

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
            return created, stored

        return create

    def _open_parent(self, token: object) -> CachedToken:
        opened = self._verifier.open(self._db, token)
        if isinstance(opened, Verification):
            raise _parent_not_valid(opened)
        return opened

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
        is_same_boot = parent.boot_id == record.boot_id
        expires_at = earliest(record.expires_at, parent.expires_at)
        boot_expires = earliest(
            record.boot_expires,
            parent.boot_expires if is_same_boot else None,
            None if expires_at is None else now.boot + max(0.0, expires_at - now.wall),
        )
        boot_max_expires = earliest(
            record.boot_max_expires, parent.boot_max_expires if is_same_boot else None
        )
        return replace(
            record,
            expires_at=expires_at,
            boot_expires=boot_expires,
            max_expires_at=earliest(record.max_expires_at, parent.max_expires_at),
            boot_max_expires=boot_max_expires,
            audience=grant.audience,
            scopes=grant.scopes,
            uses_left=grant.uses,
            ancestors=[*parent.ancestors, parent.session_id],
        )

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

    async def renew(self, token: object, by: PeerIdentity | None) -> CreatedToken:
        """A token of the next generation; durable on return.

        For the previous token, while it is valid, this makes the newest one again: a caller that lost the
        answer repeats the call.

        Raises:
            NotRenewedError: the token is not valid, or its key was replaced with grace.
        """
        opened = self._verifier.open(self._db, token)
        if isinstance(opened, Verification):
            raise NotRenewedError(opened)

        def renew_in(view: View) -> tuple[SessionRecord, bool]:
            now = self._clock.read()
            record = self._verifier.live_record(view, opened)
            if isinstance(record, Verification):
                raise NotRenewedError(record)
            live = find_live_session(view, opened.path, now)
            if live is None or not live.is_under_current_key:
                info = self._verifier.describe(opened.path, record)
                raise NotRenewedError(Verification(False, reasons.KEY_RESET, info))
            if opened.claims.gen != record.generation:
                return record, False
            record = renewed(record, live.parent, now, self._limit)
            view.put(opened.path, record.encode())
            self._journal.write(view, RENEWED, record, by=by)
            return record, True

        record, is_new = await self._db.write(renew_in)
        self._keys.current()
        now = self._clock.read()
        key = self._keys.accepted(opened.key_id, now)
        if key is None:  # replaced since the write, so the session has ended
            raise NotRenewedError(Verification(False, reasons.KEY_RESET, None))
        if is_new:
            self._verifier.uses.last_uses[opened.path] = now.wall
            self._journal.publish(RENEWED, record, by=by)
        return self._keys.make_token(key, record)


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
