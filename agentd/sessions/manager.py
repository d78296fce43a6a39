"""SessionManager: its life, its standing tasks, and the one place that puts its parts together."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Self

import trio

from agentd_client.errors import (
    AgentdError,
    KeyRingNotRunningError,
    SessionManagerDestroyedError,
    SessionManagerNotRunningError,
    SessionManagerRunningError,
)
from agentd_client.lifecycle import LifecycleEvent, Observer, State

from ..lifecycle import LoopLifecycle
from .audit import AuditLog
from .binder import Binder
from .changer import Changer
from .clock import Clock, SystemClock
from .creator import Creator
from .ender import Ender
from .journal import Journal
from .key_holder import KeyHolder
from .minter import Minter
from .operations import SessionOperations
from .records import BOUND_PATH, KEY_PATH, SESSIONS_PATH
from .rules import expiry_seconds
from .subscribers import Subscribers
from .sweeper import Sweeper
from .verifier import Verifier

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agentd_client.protocol.results import PeerIdentity

    from ..keys import KeyRing
    from ..store import DB

SWEEP_INTERVAL_SECONDS = 600.0
NOTING_INTERVAL_SECONDS = 60.0
"""Between writings of what is noted in memory: last uses, and refusals that were counted."""

TIDYING_SECONDS = 2.0  # for what a stop still writes


class SessionManager(SessionOperations):
    """Opens, judges and ends sessions. Create it with `create_session_manager`.

    This is its life and its standing tasks; what it can do is in `SessionOperations`.
    """

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
    ) -> None:
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
        self._expiry = expiry_seconds(expiry, None)
        self._watching: Callable[[], None] = lambda: None
        minter = Minter(key_ring.agent_id, str(os.geteuid()))
        self._keys = KeyHolder(db, key_ring, self._clock)
        self._audit = AuditLog(db, self._clock, self._log)
        subscribers = Subscribers(self._log) if subscribers is None else subscribers
        self._journal = Journal(self._audit, self._clock, subscribers)
        self._verifier = Verifier(
            db,
            self._keys,
            minter.implicit,
            self._clock,
            on_first_seen=lambda path, generation: self._changer.note_first_seen(path, generation),
            on_expired=self._journal.expired,
        )
        parts = (db, self._keys, self._verifier)
        limit = expiry_seconds(lifetime_limit, None)
        self._changer = Changer(*parts, minter, self._journal, self._clock, lifetime_limit=limit)
        self._ender = Ender(*parts, self._journal, self._clock)
        self._binder = Binder(db, self._ender, self._verifier, self._clock, self._log)
        self._sweeper = Sweeper(*parts, self._journal, self._clock)
        self._creator = Creator(
            *parts,
            minter,
            self._journal,
            self._binder,
            self._clock,
            on_full=self._sweeper.want_room,
            expiry=self._expiry,
            max_lifetime=expiry_seconds(max_lifetime, None),
            lifetime_limit=limit,
        )

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
    ) -> Self:
        """Construct and start.

        Args:
            db: a running store; it must outlive the manager.
            key_ring: the running key ring of that store.
            expiry: how long a session lasts where its opener does not say, in whole seconds; None is never.
            logger: where to say what was done; never a token or a key.
            fresh: end every session and draw a new session key. The audit log stays.
            clock: where to read the time.
            max_lifetime: whole seconds from a session's opening beyond which renewing does not go, where its
                opener does not say; None is without end.
            lifetime_limit: whole seconds from its opening that no session goes beyond, renewed or not.
                Whoever asks for more is refused; a default is cut short. None is without.
            revoke_on_reuse: end a session when a token of it is used that a renewal has superseded.
            subscribers: who hears of events, where they are to outlive this manager.
            on_use: called whenever a session is opened, verified or renewed; looking is no use.

        Raises:
            InvalidExpiryError: the default expiry is not usable.
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
        )
        await manager.start(fresh=fresh)
        return manager

    async def start(self, *, fresh: bool = False) -> None:
        """Make sure that there is a session key; with `fresh`, forget every session and the key first.

        Sessions that are bound to a process which has ended meanwhile are ended before this returns.
        Cancelled, it leaves the manager stopped; with `fresh` some or all of the sessions may be gone then.
        """
        async with self._lifecycle.start() as needed:
            if needed:
                self._key_ring.require_running()
                self._journal.subscribers.belong_here()
                self._keys.open()
                try:
                    if fresh:
                        await self._clear()
                    self._audit.start()
                    # By the writer: after whatever a start or destroy that was cancelled has handed over.
                    await self._db.write(self._keys.ensure, reserved=True)
                    self._keys.current(self._db.sealed(KEY_PATH)[0])
                    await self._binder.bind_again()
                    self._key_ring.require_running()
                    self._watching = self._key_ring.observe(self._key_ring_changed)
                except BaseException:
                    self._let_go()
                    raise

    async def stop(self) -> None:
        """Wipe the session key from memory. Sessions and key stay in the store.

        Not cancelled once it is called. It waits for a start that is under way, and is over in a few seconds
        then, whatever the disk does. It works from another event loop where its own has ended.
        """
        async with self._lifecycle.stop() as needed:
            if needed:
                try:
                    # Space, and what a clock set back might revive: not worth keeping the key for.
                    with trio.move_on_after(TIDYING_SECONDS):
                        await self._sweeper.delete_seen_expired()
                        await self._write_notes()
                except AgentdError as error:
                    self._log.warning("what was noted in memory is left unwritten: %s", error)
                finally:
                    self._let_go()

    async def destroy(self) -> None:
        """Clear every session-related record from the store, which must still be running.

        The audit log stays: that everything was cleared is no reason to forget what was done. Cancelled, it
        leaves the manager stopped and some or all of the records gone; called again, it clears the rest.
        """
        async with self._lifecycle.destroy() as needed:
            if needed:
                await self._clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    @property
    def expiry(self) -> int | None:
        """How long a session lasts where its opener does not say, in seconds; None is without end."""
        return self._expiry

    @property
    def state(self) -> State:
        """Stopped, running or destroyed."""
        return self._lifecycle.state

    def observe(self, observer: Observer) -> Callable[[], None]:
        """Be told of every life-cycle event; returns the function that ends this."""
        return self._lifecycle.observe(observer)

    async def note(
        self, kind: str, *, by: PeerIdentity | None = None, reason: str | None = None, times: int = 1
    ) -> None:
        """Put into the audit log what happened to the agent as a whole; on the disk when this returns.

        Raises:
            StoreError: it could not be written.
        """
        self._lifecycle.require_running()
        await self._db.write(
            lambda view: self._journal.write(view, kind, by=by, reason=reason, times=times), reserved=True
        )

    # --- standing tasks ---

    async def run(
        self,
        *,
        sweep_interval_seconds: float = SWEEP_INTERVAL_SECONDS,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """The standing tasks: watch the processes that sessions are bound to, write notes, sweep.

        Nothing but space and the sessions of processes depends on them; without this no session is bound.
        Started once sessions can be bound.
        """
        self._lifecycle.require_home()
        async with trio.open_nursery() as standing_tasks:
            await standing_tasks.start(self._binder.run)
            task_status.started()
            noting, sweeping = NOTING_INTERVAL_SECONDS, sweep_interval_seconds
            standing_tasks.start_soon(self._now_and_then, trio.sleep, noting, self._write_notes)
            standing_tasks.start_soon(self._now_and_then, self._sweeper.until_due, sweeping, self._sweep)

    async def sweep(self) -> int:
        """Delete the records of every session that has ended, in small steps; returns how many."""
        self._lifecycle.require_running()
        return await self._sweeper.sweep()

    async def _sweep(self) -> None:
        await self.sweep()
        await self._binder.forget_ended()

    async def _now_and_then(
        self,
        pause: Callable[[float], Awaitable[None]],
        seconds: float,
        task: Callable[[], Awaitable[None]],
    ) -> None:
        while True:
            await pause(seconds)
            if self._lifecycle.is_running:
                try:
                    await task()
                except AgentdError as error:  # the store failed, or it and the manager were stopped meanwhile
                    self._log.warning("tidying put off: %s", error)

    async def _write_notes(self) -> None:
        await self._audit.flush()
        await self._changer.write_last_uses()
        await self._changer.forget_stored_sights()
        if self._audit.needs_trim:
            await self._audit.trim()

    def _let_go(self) -> None:
        self._watching()
        self._binder.close()
        self._verifier.forget()
        self._keys.close()

    def _key_ring_changed(self, event: LifecycleEvent) -> None:
        if event is LifecycleEvent.STOPPED:
            # Its keys are wiped: what is remembered of tokens must not answer for them.
            self._verifier.forget()
            self._keys.close()
            self._lifecycle.give_up(
                KeyRingNotRunningError("the key ring was stopped; stop the session manager too")
            )

    async def _clear(self) -> None:
        # The key goes first: from then on no session counts, wherever this is interrupted.
        await self._db.delete(KEY_PATH)
        await self._db.clear(SESSIONS_PATH)
        await self._db.clear(BOUND_PATH)
