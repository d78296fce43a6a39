"""logind on the system bus, and what the agent does at its signals while one connection lasts.

The D-Bus names are those of org.freedesktop.login1(5) and of the D-Bus specification.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import trio
from jeepney import DBusAddress, HeaderFields, MatchRule, Properties, message_bus, new_method_call
from jeepney.bus import get_bus
from jeepney.fds import FileDescriptor as Inhibitor

from agentd_client.errors import AgentdError

from .bus_connection import BusConnection, RefusedError, connected
from .triggers import SCREEN_LOCK, SUSPEND, Lock

LOCK_SECONDS = 4.0
"""For locking before the machine sleeps. logind waits five seconds (InhibitDelayMaxSec= of logind.conf(5))
and logs the names of programs that take longer."""

MANAGER_PATH = "/org/freedesktop/login1"
SESSIONS_PATH = "/org/freedesktop/login1/session"
OPERATION_IN_PROGRESS = "org.freedesktop.login1.OperationInProgress"


class Name:
    """Names on the bus."""

    BUS = "org.freedesktop.DBus"
    LOGIND = "org.freedesktop.login1"
    MANAGER = "org.freedesktop.login1.Manager"
    SESSION = "org.freedesktop.login1.Session"
    PROPERTIES = "org.freedesktop.DBus.Properties"


class Signal(NamedTuple):
    """A signal from logind or from the bus itself."""

    path: str
    interface: str
    member: str
    body: tuple[object, ...]


class SystemBus:
    """logind's methods and signals, over a connection made by `system_bus`.

    Every method raises what `BusConnection.call` raises.
    """

    def __init__(self, connection: BusConnection) -> None:
        self._connection = connection

    async def subscribe(self, *, on_suspend: bool, on_screen_lock: bool) -> None:
        """Subscribe to logind's signals and to its coming and going."""
        owner_changed = MatchRule(
            type="signal", sender=Name.BUS, interface=Name.BUS, member="NameOwnerChanged"
        )
        owner_changed.add_arg_condition(0, Name.LOGIND)
        rules = [owner_changed]
        if on_suspend:
            rules.append(_rule(Name.MANAGER, "PrepareForSleep"))
        if on_screen_lock:
            hint = _rule(Name.PROPERTIES, "PropertiesChanged", path_namespace=SESSIONS_PATH)
            hint.add_arg_condition(0, Name.SESSION)
            rules += [_rule(Name.SESSION, "Lock"), hint]
        for rule in rules:
            await self._connection.call(message_bus.AddMatch(rule))

    async def has_logind(self) -> bool:
        """Whether logind is running."""
        (has_owner,) = await self._connection.call(message_bus.NameHasOwner(Name.LOGIND))
        return bool(has_owner)

    async def inhibit(self) -> Inhibitor:
        """Make logind delay a suspend until the result is closed, or logind's own time limit."""
        manager = DBusAddress(MANAGER_PATH, Name.LOGIND, Name.MANAGER)
        arguments = ("sleep", "agentd", "wipe keys before sleep", "delay")
        (inhibitor,) = await self._connection.call(new_method_call(manager, "Inhibit", "ssss", arguments))
        return inhibitor

    async def uid_of(self, session_path: str) -> int:
        """The user of a logind session, by its object path."""
        session = DBusAddress(session_path, Name.LOGIND, Name.SESSION)
        ((_, (uid, _)),) = await self._connection.call(Properties(session).get("User"))
        return int(uid)

    async def next_signal(self) -> Signal:
        """The next signal, in order."""
        message = await self._connection.next_signal()
        field = message.header.fields.get
        return Signal(
            path=str(field(HeaderFields.path)),
            interface=str(field(HeaderFields.interface)),
            member=str(field(HeaderFields.member)),
            body=tuple(message.body),
        )


@asynccontextmanager
async def system_bus() -> AsyncIterator[SystemBus]:
    """Connect to the bus at DBUS_SYSTEM_BUS_ADDRESS, or at the default address.

    Raises what `connected` raises, and what jeepney raises for an address that it cannot parse.
    """
    async with connected(get_bus("SYSTEM")) as connection:
        yield SystemBus(connection)


def _rule(interface: str, member: str, **more: str) -> MatchRule:
    return MatchRule(type="signal", sender=Name.LOGIND, interface=interface, member=member, **more)


class LogindWatch:
    """Locks at logind's signals.

    Args:
        lock: locks the agent. What it raises is logged; the inhibitor is released all the same.
        locks: runs the locks. It outlives the connection, because losing the bus must not interrupt a lock.
        on_suspend: whether to lock before the machine sleeps, and to delay the suspend for that.
        on_screen_lock: whether to lock when one of this user's sessions is locked.
        logger: receives failures, and once each what is missing.
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
        self._state = ""
        self._inhibitor: Inhibitor | None = None

    async def run(self, bus: SystemBus) -> None:
        """Lock at the signals of this connection, until cancelled; raises what the bus raises."""
        try:
            # Subscribed first, so that a logind that starts after the question is not missed.
            await bus.subscribe(on_suspend=self._on_suspend, on_screen_lock=self._on_screen_lock)
            await self._on_presence(bus, await bus.has_logind())
            while True:
                await self._on_signal(bus, await bus.next_signal())
        finally:
            self._replace_inhibitor(None)

    def log_state(self, level: int, state: str, reason: str = "") -> None:
        """Log a state with its reason, unless it was the last one logged."""
        if state != self._state:
            self._state = state
            self._log.log(level, "%s%s", state, f" ({reason})" if reason else "")

    async def _on_signal(self, bus: SystemBus, signal: Signal) -> None:
        match signal.interface, signal.member, signal.body:
            case Name.BUS, "NameOwnerChanged", (Name.LOGIND, _, owner):
                await self._on_presence(bus, bool(owner))
            case Name.MANAGER, "PrepareForSleep", (True,):
                inhibitor, self._inhibitor = self._inhibitor, None
                self._locks.start_soon(self._before_sleep, inhibitor)
            case Name.MANAGER, "PrepareForSleep", (False,):
                await self._inhibit(bus)
            case Name.SESSION, "Lock", _:
                self._locks.start_soon(self._screen_locked, bus, signal.path)
            # Desktops that lock the screen themselves do not make logind send `Lock`; they set this hint.
            case (
                Name.PROPERTIES,
                "PropertiesChanged",
                (Name.SESSION, {"LockedHint": ("b", True)}, *_),
            ):
                self._locks.start_soon(self._screen_locked, bus, signal.path)

    async def _on_presence(self, bus: SystemBus, is_running: bool) -> None:
        if not is_running:
            self.log_state(
                logging.WARNING, "there is no logind: suspend and screen lock do not lock the agent"
            )
            return
        events = [SUSPEND] * self._on_suspend + [SCREEN_LOCK] * self._on_screen_lock
        self.log_state(logging.INFO, f"logind locks the agent on {' and '.join(events)}")
        if self._on_suspend:
            # logind keeps inhibitors over a restart, but not over a crash; a second one does no harm.
            await self._inhibit(bus)

    async def _inhibit(self, bus: SystemBus) -> None:
        try:
            self._replace_inhibitor(await bus.inhibit())
        except RefusedError as error:
            self._log.warning("the machine will not wait for the agent to lock before it sleeps: %s", error)
            if error.name == OPERATION_IN_PROGRESS:  # the suspend has begun already
                self._locks.start_soon(self._before_sleep, None)

    def _replace_inhibitor(self, inhibitor: Inhibitor | None) -> None:
        previous, self._inhibitor = self._inhibitor, inhibitor
        if previous is not None:
            previous.close()

    async def _before_sleep(self, inhibitor: Inhibitor | None) -> None:
        locked = trio.Event()
        try:
            # In a task of its own that continues after the deadline: a late lock is better than none.
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
            is_ours = True  # unknown: lock once too often rather than not at all
        if is_ours:
            await self._lock_now(SCREEN_LOCK, trio.Event())

    async def _lock_now(self, reason: str, locked: trio.Event) -> None:
        try:
            await self._lock(reason)
        except Exception as error:
            is_own = isinstance(error, AgentdError)  # our own errors explain themselves
            self._log.error(
                "the agent could not be locked (%s): %s",
                reason,
                error if is_own else type(error).__name__,
                exc_info=None if is_own else error,
            )
        finally:
            locked.set()
