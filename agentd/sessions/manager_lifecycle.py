"""The life of a session manager: its parts are built, started and stopped."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple, Self

import trio

from agentd_client.errors import (
    AgentdError,
    KeyRingNotRunningError,
    SessionManagerDestroyedError,
    SessionManagerNotRunningError,
    SessionManagerRunningError,
)
from agentd_client.lifecycle import LifecycleEvent

from ..lifecycle import Component, LoopLifecycle
from .binding import Binder
from .clock import Clock, SystemClock
from .issuer import Issuer, SessionKeys
from .journal import Journal, Subscribers
from .records import BOUND_PATH, KEY_PATH, SESSIONS_PATH
from .renewer import Renewer
from .revoker import Revoker
from .rules import Lifetimes, checked_ttl
from .upkeep import SWEEP_INTERVAL_SECONDS, Upkeep
from .verifier import Verifier

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..keys import KeyRing
    from ..store import DB

STOP_WRITE_SECONDS = 2.0  # the most that a stop waits for its last writes


class Context(NamedTuple):
    """What every operation on sessions works with."""

    db: DB
    keys: SessionKeys
    verifier: Verifier
    journal: Journal
    clock: Clock


class ManagerLifecycle(Component):
    """The life of a `SessionManager`, which adds the operations."""

    def __init__(
        self,
        db: DB,
        key_ring: KeyRing,
        expiry: int | str | None = None,
        logger: logging.Logger | None = None,
        clock: Clock | None = None,
        *,
        max_lifetime: int | str | None = None,
        lifetime_limit: int | str | None = None,
        revoke_on_reuse: bool = False,
        subscribers: Subscribers | None = None,
        on_use: Callable[[], None] | None = None,
        audit_uses: str = "none",
    ) -> None:
        """See `create_session_manager`."""
        self._db = db
        self._key_ring = key_ring
        self._log = logger or logging.getLogger("agentd.sessions")
        self._clock = clock or SystemClock()
        self._revoke_on_reuse = revoke_on_reuse
        self._on_use = on_use
        self._lifecycle = LoopLifecycle(
            "the session manager",
            running=SessionManagerRunningError,
            destroyed=SessionManagerDestroyedError,
            not_running=SessionManagerNotRunningError,
        )
        self._lifetimes = Lifetimes(
            checked_ttl(expiry, None), checked_ttl(max_lifetime, None), checked_ttl(lifetime_limit, None)
        )
        self._unobserve_key_ring: Callable[[], None] = lambda: None
        self._keys = SessionKeys(db, key_ring, self._clock)
        subscribers = Subscribers(self._log) if subscribers is None else subscribers
        self._journal = Journal(db, self._clock, self._log, subscribers, audit_uses=audit_uses)
        self._uses = self._journal.uses
        self._verifier = Verifier(db, self._keys, self._journal, self._clock)
        context = Context(db, self._keys, self._verifier, self._journal, self._clock)
        self._revoker = Revoker(context)
        self._binder = Binder(context, self._revoker, self._log)
        self._upkeep = Upkeep(context, self._binder, self._lifecycle, self._log)
        self._issuer = Issuer(context, self._binder, on_full=self._upkeep.want_room)
        self._renewer = Renewer(context, self._lifetimes.limit)

    @classmethod
    async def create_session_manager(
        cls,
        *,
        db: DB,
        key_ring: KeyRing,
        expiry: int | str | None = None,
        logger: logging.Logger | None = None,
        fresh: bool = False,
        clock: Clock | None = None,
        max_lifetime: int | str | None = None,
        lifetime_limit: int | str | None = None,
        revoke_on_reuse: bool = False,
        subscribers: Subscribers | None = None,
        on_use: Callable[[], None] | None = None,
        audit_uses: str = "none",
    ) -> Self:
        """Construct and start.

        Args:
            db: a running store; it must outlive the manager.
            key_ring: the running key ring of that store.
            expiry: the default lifetime of a session, in whole seconds; None is never.
            logger: for what was done; it never gets a token or a key.
            fresh: end every session and draw a new session key. The audit log stays.
            clock: where to read the time.
            max_lifetime: the default limit on renewing a session, in whole seconds from its opening;
                None is without end.
            lifetime_limit: the most that a session may last, renewed or not, in whole seconds. A request for
                more is refused; a default is cut short. None is without limit.
            revoke_on_reuse: end a session when a superseded token of it is used.
            subscribers: to events, if they are to outlive this manager.
            on_use: called whenever a session is opened, verified or renewed, but not when it is inspected.
            audit_uses: which valid verifications are recorded in the audit log: "none", "all", counted by
                session, process and minute, or "first", those of each session by each process.

        Raises:
            InvalidExpiryError: a lifetime is unusable.
            StoreError: the store failed or is damaged.
        """
        manager = cls(
            db,
            key_ring,
            expiry,
            logger,
            clock,
            max_lifetime=max_lifetime,
            lifetime_limit=lifetime_limit,
            revoke_on_reuse=revoke_on_reuse,
            subscribers=subscribers,
            on_use=on_use,
            audit_uses=audit_uses,
        )
        await manager.start(fresh=fresh)
        return manager

    # --- life cycle ---

    async def start(self, *, fresh: bool = False) -> None:
        """Make sure that there is a session key; with `fresh`, delete every session and the key first.

        Sessions whose process ended while the manager was stopped are ended before this returns.
        Cancelled, it leaves the manager stopped; with `fresh`, some or all sessions may be gone then.
        """
        async with self._lifecycle.start() as needed:
            if needed:
                self._key_ring.require_running()
                self._journal.subscribers.belong_here()
                self._keys.open()
                try:
                    if fresh:
                        await self._clear()
                    self._journal.start()
                    # As an operation: after anything that a cancelled start or destroy has queued.
                    await self._db.write(self._keys.ensure, reserved=True)
                    self._keys.current()
                    await self._binder.bind_again()
                    self._key_ring.require_running()
                    self._unobserve_key_ring = self._key_ring.observe(self._key_ring_changed)
                except BaseException:
                    self._release()
                    raise

    async def stop(self) -> None:
        """Wipe the session key from memory. Sessions and key stay in the store.

        It cannot be cancelled. It waits for a start in progress and then takes a few seconds at most, even if
        the disk hangs. It works from another event loop if its own has ended.
        """
        async with self._lifecycle.stop() as needed:
            if needed:
                try:
                    # These writes only save space and keep an expiry final; the key must not wait for them.
                    with trio.move_on_after(STOP_WRITE_SECONDS):
                        await self._upkeep.delete_known_expired()
                        await self._upkeep.write_pending()
                except AgentdError as error:
                    self._log.warning("last uses and counted entries were not written: %s", error)
                finally:
                    self._release()

    async def destroy(self) -> None:
        """Delete every session-related record from the store, which must still be running.

        The audit log stays. Cancelled, this leaves the manager stopped and some or all of the records gone;
        called again, it deletes the rest.
        """
        async with self._lifecycle.destroy() as needed:
            if needed:
                await self._clear()

    def _release(self) -> None:
        self._unobserve_key_ring()
        self._binder.close()
        self._verifier.clear_cache()
        self._keys.close()

    def _key_ring_changed(self, event: LifecycleEvent) -> None:
        if event is LifecycleEvent.STOPPED:
            # Its keys are wiped, so cached tokens must not verify any more.
            self._verifier.clear_cache()
            self._keys.close()
            self._lifecycle.fail_with(
                KeyRingNotRunningError("the key ring was stopped; stop the session manager too")
            )

    async def _clear(self) -> None:
        # The key goes first: without it no session is live, wherever this is interrupted.
        await self._db.delete(KEY_PATH)
        await self._db.clear(SESSIONS_PATH)
        await self._db.clear(BOUND_PATH)

    # --- standing tasks ---

    async def run(
        self,
        *,
        sweep_interval_seconds: float = SWEEP_INTERVAL_SECONDS,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """The standing tasks: watch the processes of bound sessions, write what is noted in memory, sweep.

        Only disk space and bound sessions depend on them; without this no session can be bound.
        It reports `started` once sessions can be bound.
        """
        self._lifecycle.require_home()
        await self._upkeep.run(sweep_interval_seconds, task_status)

    async def sweep(self) -> int:
        """Delete the records of all sessions that have ended, in small steps; returns how many."""
        self._lifecycle.require_running()
        return await self._upkeep.sweep()
