"""The agent, which can be locked: it has a core (keys, store, manager) while it is unlocked, otherwise none.

Locking stops the core, which wipes every key and all that was derived from them from memory. Unlocking starts
another. Stopping the core is the only way keys leave memory.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

import trio

from agentd_client.errors import (
    AgentdError,
    AgentLockedError,
    KeyFileError,
    NoPassphraseError,
    PassphraseError,
    StoreError,
)
from agentd_client.protocol.results import (
    LOCKED,
    PASSPHRASE_CHANGED,
    UNLOCKED,
    Event,
    PeerIdentity,
)

from .approval import RequestDesk
from .keys import (
    Cost,
    KeyRing,
    Passphrase,
    PassphraseText,
    PassphraseThrottle,
    check_passphrase,
    new_pages,
)
from .locking import ASKED, IDLE, START, LockMark
from .passphrase import PassphraseState
from .pending_audit import AuditNote, PendingAudit
from .process_identity import Process
from .sessions import Clock, SessionManager, Subscribers
from .store import DB

WIPING_SECONDS = 3.5
"""A lock wipes the keys after this time even if the store still waits for its disk. Longer than the audit
entries and the manager's stop may take, and shorter than logind waits before it suspends."""

AUDIT_SECONDS = 1.0
"""For one batch of audit entries: a lock writes them before it wipes the keys, and must not wait long."""


class Core(NamedTuple):
    """Key ring, store, manager and desk, all running: what the agent has while it is unlocked."""

    key_ring: KeyRing
    db: DB
    manager: SessionManager
    desk: RequestDesk


OpenCore = Callable[[PassphraseText | None], AbstractAsyncContextManager[Core]]
"""Starts a core for the duration of an `async with`; raises what starting it raises."""


class Agent:
    """Locks, unlocks and changes the passphrase. The server calls `manager`.

    Args:
        mark: records across a restart that the agent was locked on purpose.
        on_unlock: called after each unlock, which counts as a use of the agent.
        cost: of Argon2id for a new passphrase; None measures it.
    """

    def __init__(
        self,
        open_core: OpenCore,
        *,
        keys_path: Path,
        mark: LockMark,
        subscribers: Subscribers,
        clock: Clock,
        logger: logging.Logger,
        on_unlock: Callable[[], None],
        cost: Cost | None = None,
    ) -> None:
        self._open_core = open_core
        self._keys_path = keys_path
        self.passphrase_state = PassphraseState(keys_path, logger, cost)
        self._mark = mark
        self._subscribers = subscribers
        self.subscribe = subscribers.subscribe
        self._clock = clock
        self._log = logger
        self._tasks: trio.Nursery | None = None
        self._on_unlock = on_unlock
        self._throttle = PassphraseThrottle()
        self._pending = PendingAudit(self._throttle)
        self._earlier_commits = 0
        # Held while a core is started or stopped: a lock that comes during an unlock waits for it.
        self._changing = trio.Lock()
        self._core: Core | None = None
        self._stack = AsyncExitStack()  # stops the core
        self._scope = trio.CancelScope()  # of the core's standing tasks
        self._is_marked = False
        self._locks = 0
        # Measured for a possible core until there was one, then of the latest.
        _, self.memory_secret, self.memory_locked = new_pages(1)
        self.locked_at: float | None = None
        self.lock_reason: str | None = None
        self.failure: StoreError | None = None
        """Why the store failed, once `failed` is set; the agent has to end then."""
        self.failed = trio.Event()

    @property
    def core(self) -> Core | None:
        """The core; None from the beginning of a lock on."""
        return None if self._core is None or self.locked_at is not None else self._core

    @property
    def manager(self) -> SessionManager:
        """The session manager. Raises `AgentLockedError` while the agent is locked."""
        if self._core is None or self.locked_at is not None:
            raise AgentLockedError
        return self._core.manager

    @property
    def desk(self) -> RequestDesk:
        """Where requests for sessions wait. Raises `AgentLockedError` while the agent is locked."""
        if self._core is None or self.locked_at is not None:
            raise AgentLockedError
        return self._core.desk

    @property
    def can_prove_presence(self) -> bool:
        """Whether whoever knows the passphrase is the person."""
        return self.passphrase_state.proves_presence

    @property
    def wrong_passphrases(self) -> int:
        """Wrong passphrases since the agent started."""
        return self._throttle.wrong_attempts

    @property
    def commits(self) -> int:
        """Commits to the store since the agent started."""
        return self._earlier_commits + (0 if self._core is None else self._core.db.commits)

    async def start(self, passphrase: PassphraseText | None, *, locked: bool = False) -> None:
        """Unlock it if that needs no user: without a passphrase, or with the one that is given.

        An agent that was locked on purpose in this boot stays locked, and so does one with a different
        passphrase. `locked` leaves it locked if it has any.

        Raises:
            KeyFileError, StoreError: the core cannot be started.
            PassphraseError: a passphrase was given, and the key file has none.
        """
        why = None
        has_passphrase = await self.passphrase_state.refresh()
        if has_passphrase:
            if locked:
                why = "start_locked is set"
            elif await trio.to_thread.run_sync(self._mark.is_set):
                why = "it was locked on purpose before it was restarted"
            elif passphrase is None:
                why = "its key file has a passphrase"
        if why is None:
            try:
                await self._open(passphrase)
            except PassphraseError as error:
                if not has_passphrase:
                    raise
                why = f"the passphrase for the start was refused: {error.sentence}"
            else:
                self.passphrase_state.set(passphrase is not None)
                if locked and self.passphrase_state:  # its key file was made just now
                    await self._close()
                    why = "start_locked is set"
        self.passphrase_state.proves_presence = bool(self.passphrase_state)
        if why is not None:
            self.locked_at, self.lock_reason = self._clock.read().wall, START
            self._log.warning("locked: %s; `agentctl unlock` unlocks it", why)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the standing tasks of each core; reports started once those of the present one run."""
        async with trio.open_nursery() as self._tasks:
            if self._core is not None:
                await self._tasks.start(self._run_core_tasks, self._core, self._scope)
            task_status.started()
            await trio.sleep_forever()

    async def stop(self) -> None:
        """Stop the core, if there is one."""
        with trio.CancelScope(shield=True):  # every wait in it has a deadline
            async with self._changing:
                await self._audit(*self._pending.take())
                await self._close()

    async def lock(self, reason: str = ASKED, *, by: PeerIdentity | None = None) -> None:
        """Wipe keys and caches from memory before it returns.

        If the agent is locked already, only mark that it is locked on purpose.

        Raises:
            NoPassphraseError: without a passphrase, nobody could unlock it again.
        """
        self.passphrase_state.require()
        if reason == IDLE and self._core is None:
            return  # an unlock may be in progress, which is a use: do not wait for it and lock
        self._locks += 1
        # Shielded: a lock must complete, even if the caller goes away.
        with trio.CancelScope(shield=True):
            async with self._changing:
                self.passphrase_state.require()  # it may have been removed while this waited
                if self._core is None:
                    if not self._is_marked:  # it started locked, or the disk was full
                        await trio.to_thread.run_sync(self._set_mark)
                    return
                self.locked_at, self.lock_reason = self._clock.read().wall, reason
                try:
                    async with trio.open_nursery() as both:
                        both.start_soon(trio.to_thread.run_sync, self._set_mark)
                        async with trio.open_nursery() as wiping:
                            wiping.start_soon(self._wipe_in_time, self._core.key_ring)
                            await self._audit(*self._pending.take(), AuditNote(LOCKED, by, reason))
                            await self._close()
                            wiping.cancel_scope.cancel()
                finally:
                    self._log.info("locked: %s", reason)
                    self._publish(LOCKED, by, reason)

    async def unlock(
        self,
        passphrase: PassphraseText,
        by: PeerIdentity,
        process: Process | None = None,
        waiting: trio.CancelScope | None = None,
    ) -> None:
        """Start a core with this passphrase when it is this peer's turn; does nothing if unlocked.

        Peers take turns by `process`, or by pid without one; `by` is for display. Cancelling `waiting` ends
        the wait for the turn, but not an attempt that has begun.

        Raises:
            PassphraseError: the passphrase is wrong.
            TooManyAttemptsError: the passphrase was not tried.
            AgentLockedError: the agent was locked while this waited for its turn, and stays locked.
            KeyFileError, StoreError: the passphrase is right, but the core cannot be started.
        """
        if self._core is None:
            await self._throttle.attempt(
                process or by.pid, partial(self._unlock, passphrase, by, self._locks), waiting
            )

    async def change_passphrase(
        self,
        old: PassphraseText | None,
        new: PassphraseText | None,
        by: PeerIdentity,
        process: Process | None = None,
        waiting: trio.CancelScope | None = None,
    ) -> bool:
        """Set, change or remove the passphrase of the key file; returns whether it has one now.

        `new` None removes it, which only an unlocked agent does. The rest is as for `unlock`.

        Raises:
            PassphraseError: the old one is wrong, or the new one is not acceptable.
            TooManyAttemptsError: the old one was not tried.
            KeyFileError: the key file could not be written.
        """
        self._require_changeable(old, new)
        if new is not None:
            Passphrase.check_new(new)  # before it waits, and not as an attempt
        await self._throttle.attempt(process or by.pid, partial(self._change, old, new, by), waiting)
        return bool(self.passphrase_state)

    async def prove_presence(
        self,
        passphrase: PassphraseText,
        by: PeerIdentity,
        process: Process | None = None,
        waiting: trio.CancelScope | None = None,
    ) -> None:
        """Check that this peer knows the passphrase of the key file; unlocks nothing. See `unlock`.

        Raises:
            NoPassphraseError: the key file had none when the agent started, so that it proves nothing.
            PassphraseError: it is wrong.
            TooManyAttemptsError: it was not tried.
            KeyFileError: the key file cannot be read.
        """
        self._require_proof()

        async def check() -> bool:
            await check_passphrase(self._keys_path, passphrase)
            return True

        await self._throttle.attempt(process or by.pid, check, waiting)
        self._require_proof()  # it may have been removed, and another one set, while this waited

    def _require_proof(self) -> None:
        if not self.can_prove_presence:
            raise NoPassphraseError(
                "the key file had no passphrase when the agent started, and any program can set the first "
                "one; it counts for approvals once the agent has been restarted"
            )

    async def _unlock(self, passphrase: PassphraseText, by: PeerIdentity, locks: int) -> bool:
        async with self._changing:
            if self._core is not None:  # another attempt was first
                return False
            if self._locks != locks:
                # An unlock from before the lock must not undo it: the machine may be about to suspend.
                raise AgentLockedError("the agent was locked while this waited; unlock it again")
            try:
                await self._open(passphrase)
            except (KeyFileError, StoreError) as error:
                self._log.error("unlocking failed: %s", error.sentence)
                raise
            self._on_unlock()
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._clear_mark)
                await self._audit(AuditNote(UNLOCKED, by), *self._pending.take())
        self._log.info("unlocked by process %d", by.pid)
        self._publish(UNLOCKED, by)
        return True

    async def _change(self, old: PassphraseText | None, new: PassphraseText | None, by: PeerIdentity) -> bool:
        async with self._changing:
            self._require_changeable(old, new)  # locked or changed while this waited
            await self.passphrase_state.change(old, new)
            self._publish(PASSPHRASE_CHANGED, by)
            if self._core is None:
                self._pending.add_change(by)
            else:
                with trio.CancelScope(shield=True):
                    await self._audit(AuditNote(PASSPHRASE_CHANGED, by))
        return old is not None

    def _require_changeable(self, old: PassphraseText | None, new: PassphraseText | None) -> None:
        if new is None and self._core is None:
            raise AgentLockedError("the passphrase can only be removed while the agent is unlocked")
        if old is None and self.passphrase_state:
            raise PassphraseError("the key file has a passphrase; give the present one too")

    async def _open(self, passphrase: PassphraseText | None) -> None:
        scope = trio.CancelScope()
        async with AsyncExitStack() as stack:
            core = await stack.enter_async_context(self._open_core(passphrase))
            if self._tasks is not None:
                await self._tasks.start(self._run_core_tasks, core, scope)
            # No checkpoint from here on: a cancelled caller leaves a complete core, or none.
            self._core, self._stack, self._scope = core, stack.pop_all(), scope
        self.memory_locked = core.key_ring.memory_locked
        self.memory_secret = core.key_ring.memory_secret
        self.locked_at = self.lock_reason = None

    async def _close(self) -> None:
        core, self._core = self._core, None
        if core is not None:
            self._scope.cancel()
            self._earlier_commits += core.db.commits
            try:
                await self._stack.aclose()
            except AgentdError as error:  # the store failed at the end; the keys are wiped
                self._log.error("stopping: %s", error.sentence)

    async def _wipe_in_time(self, key_ring: KeyRing) -> None:
        """Wipe the keys even if the disk hangs; writes that still wait are refused."""
        await trio.sleep(WIPING_SECONDS)
        self._log.error("the store takes too long to close; wiping the keys now")
        await key_ring.stop()

    async def _run_core_tasks(
        self, core: Core, scope: trio.CancelScope, *, task_status: trio.TaskStatus[None]
    ) -> None:
        """Run a core's standing tasks; if its store fails, the agent fails."""
        with scope:
            async with trio.open_nursery() as standing:
                await standing.start(core.manager.run)
                await standing.start(core.desk.run)
                task_status.started()
                await core.db.failure()
                self.failure = core.db.failed
                self.failed.set()
                standing.cancel_scope.cancel()

    async def _audit(self, *entries: AuditNote) -> None:
        """Write the entries in this order, within `AUDIT_SECONDS`; a failure is logged."""
        if self._core is None:
            return
        kinds = ", ".join(entry.kind for entry in entries)
        with trio.move_on_after(AUDIT_SECONDS) as writing:
            try:
                for kind, by, reason, times in entries:
                    await self._core.manager.write_audit_entry(kind, by=by, reason=reason, times=times)
            except AgentdError as error:
                self._log.error("not in the audit log: %s (%s)", kinds, error.sentence)
        if writing.cancelled_caught:
            self._log.error("not in the audit log: %s (the store takes too long)", kinds)

    def _publish(self, kind: str, by: PeerIdentity | None, reason: str | None = None) -> None:
        now = self._clock.read().wall
        self._subscribers.publish(Event(kind, now, None, "", reason, None if by is None else by.pid))

    def _set_mark(self) -> None:
        try:
            self._mark.set()
            self._is_marked = True
        except OSError as error:
            self._log.error(
                "the mark for a locked agent cannot be written, so a restart may unlock it: %s",
                error.strerror,
            )

    def _clear_mark(self) -> None:
        self._is_marked = False
        try:
            self._mark.clear()
        except OSError as error:
            self._log.warning(
                "the mark for a locked agent cannot be removed, so a restart leaves it locked: %s",
                error.strerror,
            )
