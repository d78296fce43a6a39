"""Opening sessions: the record of what was asked for, inside the parent's where there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from agentd_client.durations import format_duration
from agentd_client.errors import (
    CannotBindError,
    InvalidExpiryError,
    NotWithinParentError,
    ParentNotValidError,
    StoreFullError,
)
from agentd_client.protocol.limits import MAX_DEPTH
from agentd_client.protocol.methods import NEVER
from agentd_client.protocol.reasons import sentence
from agentd_client.protocol.results import CREATED, CreatedToken, PeerIdentity, Verification

from ..crypto import random_bytes
from ..process_identity import identify
from . import identifiers
from .grants import Grant, checked_grant, checked_label, within
from .records import KeyRecord, SessionRecord, bound_path, session_path
from .rules import earlier, ends_after, expiry_seconds, millisecond

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..process_identity import Process
    from ..store import DB, View
    from .binder import Binder
    from .clock import Clock, Instant
    from .journal import Journal
    from .key_holder import KeyHolder
    from .minter import Minter
    from .opened_token import OpenedToken
    from .verifier import Verifier


class Asked(NamedTuple):
    """What somebody asks of a new session, checked; see `SessionManager.open_session`."""

    lasts: int | None
    max_lasts: int | None
    label: str
    grant: Grant
    opened_by: PeerIdentity | None
    process: Process | None
    parent: object
    is_bound: bool


class Creator:
    """Opens sessions.

    Args:
        on_full: called when there is no room for a session.
        expiry, max_lifetime: for whoever does not say; whole seconds, None is never and without end.
        lifetime_limit: whole seconds that no session goes beyond, whoever opens it; None is without.
    """

    def __init__(
        self,
        db: DB,
        keys: KeyHolder,
        verifier: Verifier,
        minter: Minter,
        journal: Journal,
        binder: Binder,
        clock: Clock,
        *,
        on_full: Callable[[], None],
        expiry: int | None,
        max_lifetime: int | None,
        lifetime_limit: int | None,
    ) -> None:
        self._db = db
        self._keys = keys
        self._verifier = verifier
        self._minter = minter
        self._journal = journal
        self._binder = binder
        self._clock = clock
        self._on_full = on_full
        self._expiry = expiry
        self._max_lifetime = max_lifetime
        self._limit = lifetime_limit

    def checked(
        self,
        expiry: object,
        max_lifetime: object,
        label: object,
        audience: object,
        scopes: object,
        max_uses: object,
        opened_by: PeerIdentity | None,
        process: Process | None,
        parent: object,
        bound: bool,
    ) -> Asked:
        """What was asked, or the error that names what is wrong with it."""
        lasts = expiry_seconds(expiry, self._expiry)
        if expiry is None:
            lasts = _shorter(lasts, self._limit)
        else:
            self._check_limit("expiry", lasts)
        if max_lifetime is not None:
            max_lasts = expiry_seconds(max_lifetime, None)
            self._check_limit("hard maximum", max_lasts)
            lasts = _shorter(lasts, max_lasts)
        elif lasts is None or self._max_lifetime is None:
            max_lasts = None
        else:
            max_lasts = max(lasts, self._max_lifetime)
        max_lasts = _shorter(max_lasts, self._limit)
        grant = checked_grant(audience, scopes, max_uses)
        return Asked(lasts, max_lasts, checked_label(label), grant, opened_by, process, parent, bound)

    def _check_limit(self, what: str, seconds: int | None) -> None:
        # Refused, not cut short: who asked for it would count on it.
        if self._limit is not None and (seconds is None or seconds > self._limit):
            asked = NEVER if seconds is None else format_duration(seconds)
            raise InvalidExpiryError(
                f"the {what} {asked} lies beyond the longest that a session may last here, "
                f"{format_duration(self._limit)} (session_max_lifetime); ask for less, or leave it out"
            )

    async def create(self, asked: Asked) -> CreatedToken:
        """Open the session; answered once it is on the disk."""
        if asked.is_bound:
            await self._binder.make_room()
        now = self._clock.read()
        record = self._bound(_record(asked, now), asked)
        try:
            created, record = await self._db.write(self._opening(record, asked, now))
        except Exception as error:
            # Not where it was cancelled: the session may be opened all the same, and has to be watched.
            if asked.is_bound:
                self._binder.unbind(record.session_id)
            if isinstance(error, StoreFullError):
                self._on_full()
            raise
        self._journal.tell(CREATED, record, by=asked.opened_by)
        return created

    def create_through(self, view: View, asked: Asked) -> CreatedToken:
        """Open the session in a transaction of the caller's."""
        if asked.is_bound:
            raise CannotBindError("a session that is opened in a transaction cannot be bound to a process")
        now = self._clock.read()
        return self._opening(_record(asked, now), asked, now)(view)[0]

    def _opening(
        self, record: SessionRecord, asked: Asked, now: Instant
    ) -> Callable[[View], tuple[CreatedToken, SessionRecord]]:
        """The operation that opens a session; gives its token and its record as it was stored.

        The token is made with the key that the record stands under, in the same operation: so a reset comes
        before both, or after both and ends the session.
        """
        parent = None if asked.parent is None else self._open_parent(asked.parent)

        def open_session(view: View) -> tuple[CreatedToken, SessionRecord]:
            key = self._keys.ensure(view)
            entered = record
            if parent is not None:
                entered = self._child(view, key, record, asked.grant, parent, now)
            created = self._minter.mint(self._keys.of(key), entered)
            path = session_path(key.key_id, entered.session_id)
            view.put(path, entered.encode())
            if entered.bound_pid is not None:
                view.put(bound_path(path), b"")
            self._journal.write(view, CREATED, entered, by=asked.opened_by)
            return created, entered

        return open_session

    def _open_parent(self, token: object) -> OpenedToken:
        opened = self._verifier.open(self._db, token)
        if isinstance(opened, Verification):
            assert opened.reason is not None
            raise ParentNotValidError(f"the parent: {sentence(opened.reason)}; nothing was stored")
        return opened

    def _child(
        self,
        view: View,
        key: KeyRecord,
        record: SessionRecord,
        asked: Grant,
        parent: OpenedToken,
        now: Instant,
    ) -> SessionRecord:
        if parent.key_id != key.key_id:
            raise ParentNotValidError(
                "the session key was replaced: the parent's token opens nothing any more"
            )
        above = self._verifier.found_in(view, parent)
        if isinstance(above, Verification):
            assert above.reason is not None
            raise ParentNotValidError(f"the parent: {sentence(above.reason)}; nothing was stored")
        if len(above.ancestors) >= MAX_DEPTH:
            raise NotWithinParentError(f"there are {MAX_DEPTH} sessions above it already; nothing was stored")
        grant = within(asked, above)
        if grant.uses is not None and above.uses_left is not None:
            view.put(parent.path, replace(above, uses_left=above.uses_left - grant.uses).encode())
        in_its_boot = above.boot_id == record.boot_id
        expires = earlier(record.expires, above.expires)
        boot_expires = earlier(
            record.boot_expires,
            above.boot_expires if in_its_boot else None,
            None if expires is None else now.boot + max(0.0, expires - now.wall),
        )
        return replace(
            record,
            expires=expires,
            boot_expires=boot_expires,
            max_expires=earlier(record.max_expires, above.max_expires),
            boot_max_expires=earlier(
                record.boot_max_expires, above.boot_max_expires if in_its_boot else None
            ),
            audience=grant.audience,
            scopes=grant.scopes,
            uses_left=grant.uses,
            ancestors=[*above.ancestors, above.session_id],
        )

    def _bound(self, record: SessionRecord, asked: Asked) -> SessionRecord:
        if not asked.is_bound:
            return record
        if asked.opened_by is None:
            raise CannotBindError("there is no process to bind the session to; nothing was stored")
        process = self._binder.bind(record.session_id, asked.process or identify(asked.opened_by.pid))
        assert process.started is not None, "only what lives is bound to"
        return replace(
            record,
            bound_pid=process.pid,
            bound_started=process.started,
            bound_boot_id=process.boot_id,
        )


def _record(asked: Asked, now: Instant) -> SessionRecord:
    session_id = identifiers.session_id(random_bytes(identifiers.RANDOM_BYTES), now.wall)
    expires, boot_expires = ends_after(asked.lasts, now)
    max_expires, boot_max_expires = ends_after(asked.max_lasts, now)
    by = asked.opened_by
    return SessionRecord(
        session_id=session_id,
        label=asked.label,
        made=millisecond(now.wall),
        expires=expires,
        boot_id=now.boot_id,
        boot_expires=boot_expires,
        opened_uid=None if by is None else by.uid,
        opened_pid=None if by is None else by.pid,
        opened_exe=None if by is None else by.exe,
        opened_unit=None if by is None else by.unit,
        lasts=asked.lasts,
        max_expires=max_expires,
        boot_max_expires=boot_max_expires,
        audience=asked.grant.audience,
        scopes=asked.grant.scopes,
        uses_left=asked.grant.uses,
    )


def _shorter(one: int | None, other: int | None) -> int | None:
    return min((each for each in (one, other) if each is not None), default=None)
