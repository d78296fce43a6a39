"""Locking when the machine is about to sleep and when the user's screen is locked, as logind reports.

While the machine is awake the agent holds a delay inhibitor: logind waits with the suspend until it is closed
(org.freedesktop.login1(5), "Inhibitor Locks"), which the agent does once the keys are gone.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import NoReturn

import trio
from jeepney import DBusAddress, HeaderFields, MatchRule, Message, Properties, message_bus, new_method_call
from jeepney.bus import get_bus
from jeepney.fds import FileDescriptor as Inhibitor

from agentd_client.errors import AgentdError

from .bus_connection import BusConnection, RefusedError, connected
from .triggers import SCREEN_LOCK, SUSPEND, Lock

LOCK_SECONDS = 4.0
"""For locking before the machine sleeps. logind waits five seconds (InhibitDelayMaxSec= of logind.conf(5))
and logs the names of programs that take longer."""

FIRST_PAUSE_SECONDS = 1.0
MAX_PAUSE_SECONDS = 60.0
"""Between attempts to connect to the bus, doubled each time."""

SESSIONS_PATH = "/org/freedesktop/login1/session"
OPERATION_IN_PROGRESS = "org.freedesktop.login1.OperationInProgress"


class Name:
    """Names on the bus, of org.freedesktop.login1(5) and of the D-Bus specification."""

    BUS = "org.freedesktop.DBus"
    LOGIND = "org.freedesktop.login1"
    MANAGER = "org.freedesktop.login1.Manager"
    SESSION = "org.freedesktop.login1.Session"
    PROPERTIES = "org.freedesktop.DBus.Properties"


_MANAGER = DBusAddress("/org/freedesktop/login1", Name.LOGIND, Name.MANAGER)
_DELAY = ("sleep", "agentd", "wipe keys before sleep", "delay")
"""Arguments of Inhibit: logind delays a suspend until the result is closed, or until its own time limit."""


class LogindWatch:
    """Locks the agent at logind's signals; the arguments are those of `watch_logind`."""

    def __init__(self, lock: Lock, *, on_suspend: bool, on_screen_lock: bool, logger: logging.Logger) -> None:
        self._lock = lock
        # Runs the locks. It outlives a connection, because losing the bus must not interrupt a lock.
        self._locks: trio.Nursery
        self._on_suspend = on_suspend
        self._on_screen_lock = on_screen_lock
        self._log = logger
        self._state = ""
        self._inhibitor: Inhibitor | None = None

    async def run(self) -> NoReturn:
        """Lock until cancelled; connects again when the bus goes away."""
        async with trio.open_nursery() as self._locks:
            pause_seconds = FIRST_PAUSE_SECONDS
            while True:
                began = trio.current_time()
                try:
                    async with connected(get_bus("SYSTEM")) as bus:
                        await self._follow(bus)
                # No failure of the bus may end the agent.
                except* Exception as errors:
                    self._log_state(
                        logging.WARNING,
                        "no system bus: until there is one, suspend and screen lock do not lock the agent",
                        _first(errors),
                    )
                if trio.current_time() - began > MAX_PAUSE_SECONDS:  # it was connected
                    pause_seconds = FIRST_PAUSE_SECONDS
                await trio.sleep(pause_seconds)
                pause_seconds = min(2 * pause_seconds, MAX_PAUSE_SECONDS)

    async def _follow(self, bus: BusConnection) -> None:
        try:
            # Subscribed first, so that a logind that starts after the question is not missed.
            for rule in self._rules():
                await bus.call(message_bus.AddMatch(rule))
            (has_logind,) = await bus.call(message_bus.NameHasOwner(Name.LOGIND))
            await self._on_presence(bus, bool(has_logind))
            while True:
                await self._on_signal(bus, await bus.next_signal())
        finally:
            self._replace_inhibitor(None)

    def _rules(self) -> Iterator[MatchRule]:
        owner_changed = _signal(Name.BUS, Name.BUS, "NameOwnerChanged")
        owner_changed.add_arg_condition(0, Name.LOGIND)
        yield owner_changed
        if self._on_suspend:
            yield _signal(Name.LOGIND, Name.MANAGER, "PrepareForSleep")
        if self._on_screen_lock:
            yield _signal(Name.LOGIND, Name.SESSION, "Lock")
            # Desktops that lock the screen themselves do not make logind send `Lock`; they set this hint.
            hint = _signal(Name.LOGIND, Name.PROPERTIES, "PropertiesChanged", path_namespace=SESSIONS_PATH)
            hint.add_arg_condition(0, Name.SESSION)
            yield hint

    def _log_state(self, level: int, state: str, reason: str = "") -> None:
        if state != self._state:
            self._state = state
            self._log.log(level, "%s%s", state, f" ({reason})" if reason else "")

    async def _on_signal(self, bus: BusConnection, signal: Message) -> None:
        field = signal.header.fields.get
        match field(HeaderFields.interface), field(HeaderFields.member), signal.body:
            case Name.BUS, "NameOwnerChanged", (Name.LOGIND, _, owner):
                await self._on_presence(bus, bool(owner))
            case Name.MANAGER, "PrepareForSleep", (True,):
                inhibitor, self._inhibitor = self._inhibitor, None
                self._locks.start_soon(self._before_sleep, inhibitor)
            case Name.MANAGER, "PrepareForSleep", (False,):
                await self._inhibit(bus)
            case Name.SESSION, "Lock", _:
                self._locks.start_soon(self._screen_locked, bus, field(HeaderFields.path))
            case Name.PROPERTIES, "PropertiesChanged", (Name.SESSION, {"LockedHint": ("b", True)}, *_):
                self._locks.start_soon(self._screen_locked, bus, field(HeaderFields.path))

    async def _on_presence(self, bus: BusConnection, is_running: bool) -> None:
        if not is_running:
            self._log_state(
                logging.WARNING, "there is no logind: suspend and screen lock do not lock the agent"
            )
            return
        events = [SUSPEND] * self._on_suspend + [SCREEN_LOCK] * self._on_screen_lock
        self._log_state(logging.INFO, f"logind locks the agent on {' and '.join(events)}")
        if self._on_suspend:
            # logind keeps inhibitors over a restart, but not over a crash; a second one does no harm.
            await self._inhibit(bus)

    async def _inhibit(self, bus: BusConnection) -> None:
        try:
            (inhibitor,) = await bus.call(new_method_call(_MANAGER, "Inhibit", "ssss", _DELAY))
            self._replace_inhibitor(inhibitor)
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

        async def lock_now() -> None:
            await self._lock_now(SUSPEND)
            locked.set()

        try:
            # In a task of its own that continues after the deadline: a late lock is better than none.
            self._locks.start_soon(lock_now)
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

    async def _screen_locked(self, bus: BusConnection, session_path: str) -> None:
        session = DBusAddress(session_path, Name.LOGIND, Name.SESSION)
        try:
            ((_, (uid, _)),) = await bus.call(Properties(session).get("User"))
            is_ours = int(uid) == os.geteuid()
        except Exception:
            is_ours = True  # unknown: lock once too often rather than not at all
        if is_ours:
            await self._lock_now(SCREEN_LOCK)

    async def _lock_now(self, reason: str) -> None:
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


def _signal(sender: str, interface: str, member: str, **more: str) -> MatchRule:
    return MatchRule(type="signal", sender=sender, interface=interface, member=member, **more)


def _first(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
