"""What the agent does with what logind says, as long as one connection to the bus lasts."""

from __future__ import annotations

import logging
import os

import trio

from agentd_client.errors import AgentdError

from . import system_bus
from .reasons import SCREEN_LOCK, SUSPEND, Lock
from .system_bus import OPERATION_IN_PROGRESS, Inhibitor, RefusedError, Signal, SystemBus

LOCK_SECONDS = 4.0
"""For locking before the machine sleeps. Logind waits for five (InhibitDelayMaxSec= of logind.conf(5)),
and names in its log who made it wait longer."""


class LogindWatch:
    """Locks at logind's signals.

    Args:
        lock: what locks. What it raises is logged; the inhibitor is let go all the same.
        locks: where locking runs. It outlives the connection, whose end must not stop a lock half-way.
        on_suspend: whether to lock before the machine sleeps, and to make it wait for that.
        on_screen_lock: whether to lock when one of this user's sessions is locked.
        logger: where failures are told, and once each what is not there.
    """

    def __init__(
        self,
        lock: Lock,
        locks: trio.Nursery,
        *,
        on_suspend: bool,
        on_screen_lock: bool,
        logger: logging.Logger,
    ) -> None:
        self._lock = lock
        self._locks = locks
        self._on_suspend = on_suspend
        self._on_screen_lock = on_screen_lock
        self._log = logger
        self._told = ""
        self._inhibitor: Inhibitor | None = None

    async def run(self, bus: SystemBus) -> None:
        """Lock at the signals that this connection brings, until cancelled; raises what the bus raises."""
        try:
            # In this order: logind that comes after the question for it is heard of.
            await bus.hear(on_suspend=self._on_suspend, on_screen_lock=self._on_screen_lock)
            await self._belong(bus, await bus.is_logind_there())
            while True:
                await self._take(bus, await bus.next_signal())
        finally:
            self._exchange(None)

    def tell(self, level: int, state: str, reason: str = "") -> None:
        """Log a state with its reason, unless it is the one that was told last."""
        if state != self._told:
            self._told = state
            self._log.log(level, "%s%s", state, f" ({reason})" if reason else "")

    async def _take(self, bus: SystemBus, signal: Signal) -> None:
        match signal.interface, signal.member, signal.body:
            case system_bus.BUS_NAME, "NameOwnerChanged", (system_bus.LOGIND, _, owner):
                await self._belong(bus, bool(owner))
            case system_bus.MANAGER_INTERFACE, "PrepareForSleep", (True,):
                inhibitor, self._inhibitor = self._inhibitor, None
                self._locks.start_soon(self._before_sleep, inhibitor)
            case system_bus.MANAGER_INTERFACE, "PrepareForSleep", (False,):
                await self._hold(bus)
            case system_bus.SESSION_INTERFACE, "Lock", _:
                self._locks.start_soon(self._screen_locked, bus, signal.path)
            # Desktops that lock their screen by themselves have logind send no `Lock`; they set this hint.
            case (
                system_bus.PROPERTIES_INTERFACE,
                "PropertiesChanged",
                (system_bus.SESSION_INTERFACE, {"LockedHint": ("b", True)}, *_),
            ):
                self._locks.start_soon(self._screen_locked, bus, signal.path)

    async def _belong(self, bus: SystemBus, is_there: bool) -> None:
        if not is_there:
            self.tell(logging.WARNING, "there is no logind: suspend and screen lock do not lock the agent")
            return
        events = [SUSPEND] * self._on_suspend + [SCREEN_LOCK] * self._on_screen_lock
        self.tell(logging.INFO, f"logind locks the agent on {' and '.join(events)}")
        if self._on_suspend:
            # Logind keeps its inhibitors over a restart, but not when it crashed; one more harms nobody.
            await self._hold(bus)

    async def _hold(self, bus: SystemBus) -> None:
        try:
            self._exchange(await bus.inhibit())
        except RefusedError as error:
            self._log.warning("the machine will not wait for the agent to lock before it sleeps: %s", error)
            if error.name == OPERATION_IN_PROGRESS:  # it is on its way to sleep already
                self._locks.start_soon(self._before_sleep, None)

    def _exchange(self, inhibitor: Inhibitor | None) -> None:
        earlier, self._inhibitor = self._inhibitor, inhibitor
        if earlier is not None:
            earlier.close()

    async def _before_sleep(self, inhibitor: Inhibitor | None) -> None:
        locked = trio.Event()
        try:
            # A task of its own, which goes on where the time is up: locked late is better than never.
            self._locks.start_soon(self._lock_now, SUSPEND, locked)
            with trio.move_on_after(LOCK_SECONDS):
                await locked.wait()
            if not locked.is_set():
                self._log.error(
                    "locking takes longer than %g s: the machine may sleep with keys in memory",
                    LOCK_SECONDS,
                )
        finally:
            if inhibitor is not None:
                inhibitor.close()

    async def _screen_locked(self, bus: SystemBus, session_path: str) -> None:
        try:
            is_ours = await bus.uid_of(session_path) == os.geteuid()
        except Exception:
            is_ours = True  # whose it is cannot be told: rather locked once too often
        if is_ours:
            await self._lock_now(SCREEN_LOCK, trio.Event())

    async def _lock_now(self, reason: str, locked: trio.Event) -> None:
        try:
            await self._lock(reason)
        except Exception as error:
            told = None if isinstance(error, AgentdError) else error
            self._log.error(
                "the agent could not be locked (%s): %s",
                reason,
                error if told is None else type(error).__name__,
                exc_info=told,
            )
        finally:
            locked.set()
