"""Every operation on sessions, as programs call it: arguments checked, then handed to whoever does it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from agentd_client.protocol import reasons
from agentd_client.protocol.results import (
    AuditPage,
    CreatedToken,
    Event,
    PeerIdentity,
    SessionPage,
    Verification,
)

from .changer import NotRenewedError
from .ender import check_one, path_of
from .grants import checked_asker, checked_scopes
from .records import KEY_PATH, sessions_of_key
from .rules import grace_seconds as _grace_seconds
from .selection import checked_selection, page
from .standing import keys_that_count, standing

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    from ..lifecycle import LoopLifecycle
    from ..process_identity import Process
    from ..store import DB, Transaction
    from .audit import AuditLog
    from .changer import Changer
    from .clock import Clock
    from .creator import Creator
    from .ender import Ender
    from .journal import Journal
    from .key_holder import KeyHolder
    from .session_key import SessionKey
    from .verifier import Verifier


class SessionOperations:
    """The operations of a `SessionManager`, which makes the parts that they are handed to.

    One that takes a `tran` of the same store reads and writes through it, and nothing is
    seen elsewhere until it commits. Without one, an operation answers once its write is on the disk;
    cancelled while it waits for that, it may be carried out all the same.
    `by` is the peer that asks, for the audit log and for subscribers.

    Raises, whatever is called:
        SessionManagerNotRunningError, WrongLoopError: the manager does not run, or on another event loop.
        KeyRingNotRunningError: its key ring was stopped.
        ForeignTransactionError, TransactionEndedError: `tran` is another store's, or over; nothing was done.
    """

    _db: DB
    _log: logging.Logger
    _clock: Clock
    _lifecycle: LoopLifecycle
    _keys: KeyHolder
    _audit: AuditLog
    _journal: Journal
    _verifier: Verifier
    _changer: Changer
    _ender: Ender
    _creator: Creator
    _revoke_on_reuse: bool
    _on_use: Callable[[], None] | None

    def on_event(self, subscriber: Callable[[Event], None]) -> Callable[[], None]:
        """Be told of whatever happens to sessions, once it is on the disk; returns what ends this."""
        return self._journal.subscribers.subscribe(subscriber)

    # --- the session key ---

    async def setup_key(self) -> SessionKey:
        """The session key; draws one only where there is none."""
        self._lifecycle.require_running()
        key = self._keys.current(self._db.sealed(KEY_PATH)[0])
        return key or self._keys.of(await self._db.write(self._keys.ensure, reserved=True))

    async def reset_key(
        self,
        tran: Transaction | None = None,
        *,
        grace_seconds: object = None,
        by: PeerIdentity | None = None,
    ) -> str:
        """Replace the session key: every earlier token is invalid from then on. Returns the new key's id.

        One record is written, however many sessions there are; theirs no longer count and are swept later.
        Cancelled once the write was handed to the store, the key may be replaced all the same, soon after;
        `key_id` shows whether it was. Cancelled before, it is not.

        Args:
            tran: the transaction to write through.
            grace_seconds: for so long tokens of the key that is replaced verify, and do nothing else.
            by: the peer that asks.

        Raises:
            InvalidGraceError: nothing was changed.
        """
        self._require_usable(tran)
        grace = _grace_seconds(grace_seconds)
        if tran is not None:
            return self._ender.reset_key_through(tran, grace, by).key_id
        record = await self._ender.reset_key(grace, by)
        self._log.info("session key replaced; earlier sessions end in %d s", grace)
        return record.key_id

    # --- sessions ---

    async def create_token(self, expiry: int | str | None = None, tran: Transaction | None = None) -> str:
        """Open a session and return the token that proves it; `expiry` as for `open_session`.

        Cancelled, it may open the session all the same: see there.
        """
        return (await self.open_session(expiry, tran=tran)).token

    async def open_session(
        self,
        expiry: object = None,
        label: object = None,
        opened_by: PeerIdentity | None = None,
        *,
        audience: object = None,
        scopes: object = None,
        max_uses: object = None,
        max_lifetime: object = None,
        parent: object = None,
        bound: bool = False,
        process: Process | None = None,
        tran: Transaction | None = None,
    ) -> CreatedToken:
        """Open a session.

        Cancelled once the record was handed to the store, the session may be opened all the same, though
        nobody has its token: `list_sessions` shows it until it expires or is revoked by its id. Cancelled
        before, nothing is stored.

        Args:
            expiry: whole seconds, `NEVER`, or None for the manager's default.
            label: one line for people.
            opened_by: the peer, as the kernel reported it.
            audience: the names of those who may take its tokens for good; None is everyone.
            scopes: the names of what it is good for; None is everything.
            max_uses: how often it verifies; None is without limit.
            max_lifetime: whole seconds beyond which renewing does not go.
            parent: a token of the session that this one lies within and ends with.
            bound: it ends with the process that opens it.
            process: the identity of that process, taken when it connected; None for whichever process has the
                opener's pid now.
            tran: the transaction to write through.

        Raises:
            InvalidExpiryError, InvalidLabelError, InvalidAudienceError, InvalidScopesError, InvalidUsesError:
                nothing was stored.
            ParentNotValidError, NotWithinParentError, CannotBindError: nothing was stored.
            StoreError: nothing was stored.
        """
        self._require_usable(tran)
        asked = self._creator.checked(
            expiry, max_lifetime, label, audience, scopes, max_uses, opened_by, process, parent, bound
        )
        if tran is not None:
            return self._creator.create_through(tran, asked)
        created = await self._creator.create(asked)
        self._lifecycle.require_running()
        self._used()
        return created

    async def verify_token(
        self,
        token: object,
        tran: Transaction | None = None,
        *,
        audience: object = None,
        scopes: object = None,
    ) -> bool:
        """Whether this is a valid token, whatever it is that was handed in.

        Raises only where the agent cannot know: not running, locked, or the store failed; and for an audience
        or scopes that are none.
        """
        if tran is not None:
            self._require_usable(tran)
            await trio.lowlevel.checkpoint()
            self._require_usable(tran)
            asker = checked_asker(audience), checked_scopes(scopes)
            return self._changer.count_use_through(tran, token, *asker).valid
        found = self.verify_nowait(token, audience=audience, scopes=scopes)
        if found is None:
            found = await self.verify_and_consume(token, audience=audience, scopes=scopes)
        else:
            await trio.lowlevel.checkpoint()
        return found.valid

    def verify_nowait(
        self, token: object, *, audience: object = None, scopes: object = None, by: PeerIdentity | None = None
    ) -> Verification | None:
        """Verify a token, with its session or the reason why not: never waits, fast for one seen before.

        None where the session has limited uses, and this one has to be counted: `verify_and_consume`.
        """
        self._lifecycle.require_running()
        found = self._verifier.verify(
            token,
            None if audience is None else checked_asker(audience),
            None if scopes is None else checked_scopes(scopes),
        )
        if found is not None:
            if not found.valid:
                self._refuse(found, by)
            elif self._on_use is not None:
                self._on_use()
        return found

    async def verify_and_consume(
        self, token: object, *, audience: object = None, scopes: object = None, by: PeerIdentity | None = None
    ) -> Verification:
        """Verify a token of a session with limited uses: yes once there is one use less on the disk."""
        self._lifecycle.require_running()
        found = await self._changer.count_use(token, checked_asker(audience), checked_scopes(scopes))
        if found.valid:
            self._used()
        else:
            self._refuse(found, by)
        return found

    async def inspect_token(self, token: object, tran: Transaction | None = None) -> Verification:
        """All that is known of a token: whether it is valid, why not, and its session."""
        self._require_usable(tran)
        await trio.lowlevel.checkpoint()
        self._require_usable(tran)
        return self.inspect(token) if tran is None else self._verifier.judge_through(tran, token)

    def inspect(
        self,
        token: object = None,
        *,
        id: object = None,
        audience: object = None,
        scopes: object = None,
    ) -> Verification:
        """What a verification would say, with all that is known; looking is no use and changes nothing.

        Args:
            token: anything.
            id: of a session, in place of a token of it.
            audience: who would take it for good.
            scopes: what it would have to be good for.
        """
        self._lifecycle.require_running()
        asker = checked_asker(audience), checked_scopes(scopes)
        if id is None:
            return self._verifier.inspect(token, *asker)
        check_one(token, id)
        path = path_of(self._db, str(id), self._clock)
        found = None if path is None else standing(self._db, path, self._clock.read())
        if path is None or found is None:
            return Verification(False, reasons.REVOKED, None)
        return self._verifier.inspect_record(path, found.record, *asker)

    async def renew_token(self, token: object, *, by: PeerIdentity | None = None) -> CreatedToken:
        """A new token for the same session, whose lifetime begins anew, up to its hard maximum.

        Cancelled, it may be renewed all the same; the token that there was can be renewed again then.

        Raises:
            TokenNotValidError: the token is not valid, or was superseded.
            StoreError: nothing was written; the token is as good as before.
        """
        self._lifecycle.require_running()
        try:
            renewed = await self._changer.renew(token, by)
        except NotRenewedError as error:
            self._refuse(error.answer, by)
            raise
        self._used()
        return renewed

    async def revoke_token(
        self,
        token: object = None,
        *,
        id: object = None,
        tran: Transaction | None = None,
        by: PeerIdentity | None = None,
    ) -> bool:
        """End one session, by its token or its id, with all below it. Returns whether there was one to end.

        After this has answered, no verification that starts later says yes. Cancelled, it may have ended it.
        """
        self._require_usable(tran)
        return await self._ender.revoke(token, id, by=by, tran=tran)

    async def revoke_sessions(
        self,
        *,
        state: object = None,
        label: object = None,
        pid: object = None,
        parent: object = None,
        by: PeerIdentity | None = None,
    ) -> int:
        """End every session that fits all of the conditions, with all below it; how many fitted.

        In steps: one that is opened meanwhile may stay. The conditions are those of `list_sessions`.
        """
        self._lifecycle.require_running()
        return await self._ender.revoke_those(checked_selection(state, label, pid, parent), by)

    async def list_sessions(
        self,
        *,
        state: object = None,
        label: object = None,
        pid: object = None,
        parent: object = None,
        after: object = None,
        limit: object = None,
    ) -> SessionPage:
        """Some of the sessions that have not been ended, newest first.

        Args:
            state: `ACTIVE` or `EXPIRED`.
            label: the label, in which * stands for any text and ? for any character.
            pid: the process that opened it.
            parent: the id of a session above it.
            after: the `next` of the page before.
            limit: how many at the most.
        """
        self._lifecycle.require_running()
        selection = checked_selection(state, label, pid, parent)
        return await page(self._db, self._verifier, self._clock, selection, after, limit)

    async def list_audit(
        self, *, since: object = None, after: object = None, limit: object = None
    ) -> AuditPage:
        """Some entries of the audit log, newest first; see `AuditLog.page`."""
        self._lifecycle.require_running()
        return await self._audit.page(since, after, limit)

    @property
    def session_count(self) -> int:
        """Sessions under the keys that count, those included that have ended and are not yet swept."""
        self._lifecycle.require_running()
        key_ids = keys_that_count(self._db, self._clock.read())
        return sum(self._db.count(sessions_of_key(key_id)) for key_id in key_ids)

    @property
    def key_id(self) -> str:
        """The id of the present session key; empty where there is none."""
        self._lifecycle.require_running()
        key = self._keys.current(self._db.sealed(KEY_PATH)[0])
        return "" if key is None else key.id

    def _require_usable(self, tran: Transaction | None) -> None:
        self._lifecycle.require_running()
        if tran is not None:
            self._db.require_own(tran)

    def _used(self) -> None:
        if self._on_use is not None:
            self._on_use()

    def _refuse(self, answer: Verification, by: PeerIdentity | None) -> None:
        self._journal.refused(answer, by)
        if answer.reason == reasons.SUPERSEDED and answer.session is not None:
            self._log.warning(
                "a superseded token of session %s was used by process %s: it may have been stolen",
                answer.session.id,
                "unknown" if by is None else by.pid,
            )
            if self._revoke_on_reuse:
                self._ender.end_soon(answer.session.id, reasons.REUSED)
