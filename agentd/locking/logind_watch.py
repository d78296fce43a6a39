"""What the agent does with what logind says, as long as one connection to the bus lasts.

Anybody on the bus can send a signal of any name to any connection: only what comes from the owner of logind's
name counts as logind's.
"""

from __future__ import annotations

import logging
import os

import trio

from agentd_client.errors import AgentdError

from . import logind_bus
from .logind_bus import BUS_NAME, LOGIND, OPERATION_IN_PROGRESS, Bus, Inhibitor, RefusedError, Signal
from .reasons import SCREEN_LOCK, SUSPEND, Lock

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
        self._owner: str | None = None
        self._inhibitor: Inhibitor | None = None

    async def run(self, bus: Bus) -> None:
        """Lock at the signals that this connection brings, until it brings no more; raises what it raises."""
        try:
            async with bus.signals() as signals:
                # In this order: logind that comes after the question for it is heard of.
                await bus.hear(on_suspend=self._on_suspend, on_screen_lock=self._on_screen_lock)
                await self._belong(bus, await bus.owner())
                async for signal in signals:
                    await self._take(bus, signal)
        finally:
            self._owner = None
            self._exchange(None)

    def tell(self, level: int, state: str, reason: str = "") -> None:
        """Log a state with its reason, unless it is the one that was told last."""
        if state != self._told:
            self._told = state
            self._log.log(level, "%s%s", state, f" ({reason})" if reason else "")

    async def _take(self, bus: Bus, signal: Signal) -> None:
        if signal.sender == BUS_NAME:
            if signal.member == "NameOwnerChanged" and signal.body[0] == LOGIND:
                await self._belong(bus, str(signal.body[2]) or None)
            return
        if signal.sender != self._owner:
            return
        match signal.interface, signal.member, signal.body:
            case logind_bus.MANAGER_INTERFACE, "PrepareForSleep", (True,):
                inhibitor, self._inhibitor = self._inhibitor, None
                self._locks.start_soon(self._before_sleep, inhibitor)
            case logind_bus.MANAGER_INTERFACE, "PrepareForSleep", (False,):
                await self._hold(bus)
            case logind_bus.SESSION_INTERFACE, "Lock", _:
                self._locks.start_soon(self._screen_locked, bus, signal.path)
            # Desktops that lock their screen by themselves have logind send no `Lock`; they set this hint.
            case (
                logind_bus.PROPERTIES_INTERFACE,
                "PropertiesChanged",
                (logind_bus.SESSION_INTERFACE, {"LockedHint": ("b", True)}, *_),
            ):
                self._locks.start_soon(self._screen_locked, bus, signal.path)

    async def _belong(self, bus: Bus, owner: str | None) -> None:
        # Logind keeps its inhibitors over a restart, but not when it crashed; one more harms nobody.
        self._owner = owner
        if owner is None:
            self.tell(logging.WARNING, "there is no logind: suspend and screen lock do not lock the agent")
            return
        events = [SUSPEND] * self._on_suspend + [SCREEN_LOCK] * self._on_screen_lock
        self.tell(logging.INFO, f"logind locks the agent on {' and '.join(events)}")
        if self._on_suspend:
            await self._hold(bus)

    async def _hold(self, bus: Bus) -> None:
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

    async def _screen_locked(self, bus: Bus, session_path: str) -> None:
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
