"""SessionManager: every operation on sessions, as programs call it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from agentd_client.protocol import reasons

from .counting import identity_of
from .issuer import Approval, SessionRequest
from .listing import audit_page, checked_selection, session_page
from .manager_lifecycle import ManagerLifecycle
from .records import accepted_key_ids, sessions_of_key
from .renewer import NotRenewedError
from .revoker import check_token_or_id
from .rules import checked_audience, checked_grace, checked_grant, checked_label, checked_scopes

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentd_client.protocol.results import (
        AuditPage,
        CreatedToken,
        Event,
        PeerIdentity,
        SessionPage,
        Verification,
    )

    from ..process_identity import Process
    from ..store import Transaction
    from .counting import By
    from .session_key import SessionKey


class SessionManager(ManagerLifecycle):
    """Opens, verifies and ends sessions. Create it with `create_session_manager`.

    An operation with a `tran`, a transaction of the same store, reads and writes through it, and nothing is
    seen elsewhere until it commits. Without one, an operation returns once its write is durable; cancelled
    while it waits for that, it may be carried out all the same.
    `by` is the peer that asks, for the audit log and for subscribers. A verification takes a `LazyPeer` too.

    Every operation may raise:
        SessionManagerNotRunningError, WrongLoopError: the manager is not running, or on another event loop.
        KeyRingNotRunningError: its key ring was stopped.
        ForeignTransactionError, TransactionEndedError: `tran` is another store's, or over; nothing was done.
        StoreError: the store failed or is damaged.
    """

    # --- the session key ---

    async def setup_key(self) -> SessionKey:
        """The session key; draws one only if there is none."""
        self._lifecycle.require_running()
        return self._keys.current() or self._keys.of(await self._db.write(self._keys.ensure, reserved=True))

    async def reset_key(
        self,
        tran: Transaction | None = None,
        *,
        grace_seconds: object = None,
        by: PeerIdentity | None = None,
    ) -> str:
        """Replace the session key, so that every earlier token is invalid. Returns the new key's id.

        This writes one record, however many sessions there are; they are swept later. Cancelled after the
        write was queued, the key may still be replaced soon after, which `key_id` shows.

        Args:
            tran: the transaction to write through.
            grace_seconds: how long tokens of the replaced key still verify. They allow nothing else.
            by: the peer that asks.

        Raises:
            InvalidGraceError: nothing was changed.
        """
        self._require_usable(tran)
        grace = checked_grace(grace_seconds)
        if tran is not None:
            return self._revoker.reset_key_through(tran, grace, by).key_id
        record = await self._revoker.reset_key(grace, by)
        self._log.info("session key replaced; earlier sessions end in %d s", grace)
        return record.key_id

    @property
    def key_id(self) -> str:
        """The id of the current session key; empty if there is none."""
        self._lifecycle.require_running()
        key = self._keys.current()
        return "" if key is None else key.id

    # --- sessions ---

    async def create_token(self, expiry: int | str | None = None, tran: Transaction | None = None) -> str:
        """Open a session and return its token; see `open_session`."""
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
        approval: Approval | None = None,
        tran: Transaction | None = None,
    ) -> CreatedToken:
        """Open a session.

        Cancelled after the write was queued, the session may still be opened, though nobody has its token:
        `list_sessions` shows it until it expires or is revoked by id. Cancelled before, nothing is stored.

        Args:
            expiry: whole seconds, `NEVER`, or None for the manager's default.
            label: one line for people.
            opened_by: the peer, as the kernel reported it.
            audience: names of the verifiers that accept its tokens; None is all.
            scopes: names of what it permits; None is everything.
            max_uses: how often it verifies; None is without limit.
            max_lifetime: how long it can be renewed, in whole seconds.
            parent: a token of the session that this one lies within and ends with.
            bound: it ends with the process that opens it.
            process: the identity of that process, taken when it connected; None for the process that has the
                peer's pid now.
            approval: the decision that it is opened by, for the audit log.
            tran: the transaction to write through.

        Raises:
            InvalidExpiryError, InvalidLabelError, InvalidUsesError: nothing was stored, here and below.
            InvalidAudienceError, InvalidScopesError: the same.
            ParentNotValidError, NotWithinParentError: the parent has ended, or has less than is asked for.
            CannotBindError: the process cannot be watched.
        """
        self._require_usable(tran)
        ttl, max_ttl = self._lifetimes.of_new_session(expiry, max_lifetime)
        grant = checked_grant(audience, scopes, max_uses)
        request = SessionRequest(
            ttl, max_ttl, checked_label(label), grant, opened_by, process, parent, bound, approval
        )
        if tran is not None:
            return self._issuer.create_through(tran, request)
        created = await self._issuer.create(request)
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
        """Whether this is a valid token, whatever its type.

        Raises only if the agent cannot know (not running, locked, or the store failed), and for an unusable
        audience or scopes.
        """
        if tran is not None:
            self._require_usable(tran)
            await trio.lowlevel.checkpoint()
            self._require_usable(tran)
            use = checked_audience(audience), checked_scopes(scopes)
            return self._verifier.consume_through(tran, token, *use).valid
        answer = self.verify_nowait(token, audience=audience, scopes=scopes)
        if answer is None:
            answer = await self.verify_and_consume(token, audience=audience, scopes=scopes)
        else:
            await trio.lowlevel.checkpoint()
        return answer.valid

    def verify_nowait(
        self, token: object, *, audience: object = None, scopes: object = None, by: By = None
    ) -> Verification | None:
        """Verify a token without waiting: with its session, or the reason why it is not valid.

        None if the session has limited uses, one of which this would take: then call `verify_and_consume`.
        """
        self._lifecycle.require_running()
        answer = self._verifier.verify(
            token,
            None if audience is None else checked_audience(audience),
            None if scopes is None else checked_scopes(scopes),
        )
        if answer is not None:
            if not answer.valid:
                self._rejected(answer, by)
            else:
                if self._on_use is not None:
                    self._on_use()
                if self._uses is not None:
                    self._uses.add(answer, by)
        return answer

    async def verify_and_consume(
        self, token: object, *, audience: object = None, scopes: object = None, by: By = None
    ) -> Verification:
        """Verify a token of a session with limited uses: valid once the use is durable."""
        self._lifecycle.require_running()
        answer = await self._verifier.consume(token, checked_audience(audience), checked_scopes(scopes))
        if answer.valid:
            self._used()
            if self._uses is not None:
                self._uses.add(answer, by)
        else:
            self._rejected(answer, by)
        return answer

    async def inspect_token(self, token: object, tran: Transaction | None = None) -> Verification:
        """All that is known of a token: whether it is valid, why not, and its session."""
        self._require_usable(tran)
        await trio.lowlevel.checkpoint()
        self._require_usable(tran)
        return self.inspect(token) if tran is None else self._verifier.inspect_through(tran, token)

    def inspect(
        self,
        token: object = None,
        *,
        id: object = None,
        audience: object = None,
        scopes: object = None,
    ) -> Verification:
        """What a verification of the token, or of the session with that id, would answer. Not a use."""
        self._lifecycle.require_running()
        use = checked_audience(audience), checked_scopes(scopes)
        if id is None:
            return self._verifier.inspect(token, *use)
        check_token_or_id(token, id)
        return self._verifier.inspect_id(str(id), *use)

    async def renew_token(self, token: object, *, by: PeerIdentity | None = None) -> CreatedToken:
        """A new token for the same session, whose lifetime begins again, up to its maximum.

        Cancelled, it may still be renewed; the previous token can be renewed again then.

        Raises:
            TokenNotValidError: the token is not valid, or was superseded.
        """
        self._lifecycle.require_running()
        try:
            renewed = await self._renewer.renew(token, by)
        except NotRenewedError as error:
            self._rejected(error.answer, by)
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
        """End one session, by its token or its id, and its descendants. Returns whether there was one.

        No verification that starts after this has returned succeeds. Cancelled, it may have ended it.
        """
        self._require_usable(tran)
        return await self._revoker.revoke(token, id, by=by, tran=tran)

    async def revoke_sessions(
        self,
        *,
        state: object = None,
        label: object = None,
        pid: object = None,
        parent: object = None,
        by: PeerIdentity | None = None,
    ) -> int:
        """End every session that meets all conditions, with its descendants; how many met them.

        In steps: a session opened during this may stay. The conditions are those of `list_sessions`.
        """
        self._lifecycle.require_running()
        return await self._revoker.revoke_selected(checked_selection(state, label, pid, parent), by)

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
            parent: the id of an ancestor.
            after: the `next` of the previous page.
            limit: the length of the page.
        """
        self._lifecycle.require_running()
        selection = checked_selection(state, label, pid, parent)
        return await session_page(self._db, self._verifier, self._clock, selection, after, limit)

    @property
    def expiry(self) -> int | None:
        """The default lifetime of a session in seconds; None is never."""
        return self._lifetimes.default_ttl

    @property
    def session_count(self) -> int:
        """Sessions under accepted keys, including those that have ended and are not yet swept."""
        self._lifecycle.require_running()
        key_ids = accepted_key_ids(self._db, self._clock.read())
        return sum(self._db.count(sessions_of_key(key_id)) for key_id in key_ids)

    def checked_lifetime(self, expiry: object) -> int | None:
        """How long a session with this `expiry` lasts, in whole seconds; raises as `open_session`."""
        return self._lifetimes.of_new_session(expiry, None)[0]

    # --- events and the audit log ---

    def on_event(self, subscriber: Callable[[Event], None]) -> Callable[[], None]:
        """Publish events on sessions to the subscriber, once they are durable; returns what ends this.

        What is done through a `tran` is no event; the audit log has it.
        """
        return self._journal.subscribers.subscribe(subscriber)

    async def write_audit_entry(
        self, kind: str, *, by: PeerIdentity | None = None, reason: str | None = None, times: int = 1
    ) -> None:
        """Write what happened to the agent as a whole to the audit log; durable on return."""
        self._lifecycle.require_running()
        await self._db.write(
            lambda view: self._journal.write(view, kind, by=by, reason=reason, times=times), reserved=True
        )

    def report_request(
        self,
        kind: str,
        request_id: str,
        label: str,
        *,
        by: PeerIdentity | None = None,
        asked_by: PeerIdentity | None = None,
        reason: str | None = None,
    ) -> None:
        """Publish what happened to a request for a session, and audit it without waiting."""
        self._journal.report_request(kind, request_id, label, by=by, asked_by=asked_by, reason=reason)

    async def list_audit(
        self,
        *,
        since: object = None,
        after: object = None,
        limit: object = None,
        kind: object = None,
        session: object = None,
    ) -> AuditPage:
        """Some entries of the audit log, newest first.

        Args:
            since: seconds since 1970; entries that ended before are left out.
            after: the `next` of the previous page.
            limit: the length of the page.
            kind: only entries of this kind, one of `EVENT_KINDS`.
            session: only those of the session with this id, or of those whose ids begin with it.
        """
        self._lifecycle.require_running()
        return await audit_page(self._journal, since, after, limit, kind, session)

    def _require_usable(self, tran: Transaction | None) -> None:
        self._lifecycle.require_running()
        if tran is not None:
            self._db.require_own(tran)

    def _used(self) -> None:
        if self._on_use is not None:
            self._on_use()

    def _rejected(self, answer: Verification, by: By) -> None:
        self._journal.reject(answer, by)
        if answer.reason == reasons.SUPERSEDED and answer.session is not None:
            peer = identity_of(by)
            self._log.warning(
                "a superseded token of session %s was used by process %s: it may have been stolen",
                answer.session.id,
                "unknown" if peer is None else peer.pid,
            )
            if self._revoke_on_reuse:
                self._revoker.end_soon(answer.session.id, reasons.REUSED)
