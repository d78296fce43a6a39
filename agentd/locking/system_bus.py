"""What logind is asked and what it says, over the system bus.

The names are those of org.freedesktop.login1(5) and of the D-Bus specification.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from jeepney import DBusAddress, HeaderFields, MatchRule, Properties, message_bus, new_method_call
from jeepney.bus import get_bus
from jeepney.fds import FileDescriptor as Inhibitor

from .bus_connection import BusConnection, RefusedError, connected

__all__ = ["BUS_NAME", "LOGIND", "Inhibitor", "RefusedError", "Signal", "SystemBus", "system_bus"]

BUS_NAME = "org.freedesktop.DBus"
LOGIND = "org.freedesktop.login1"

MANAGER_PATH = "/org/freedesktop/login1"
MANAGER_INTERFACE = "org.freedesktop.login1.Manager"

SESSIONS_PATH = "/org/freedesktop/login1/session"
SESSION_INTERFACE = "org.freedesktop.login1.Session"

PROPERTIES_INTERFACE = "org.freedesktop.DBus.Properties"
OPERATION_IN_PROGRESS = "org.freedesktop.login1.OperationInProgress"


class Signal(NamedTuple):
    """One signal of logind's or of the bus itself: from which object, and what."""

    path: str
    interface: str
    member: str
    body: tuple[object, ...]


class SystemBus:
    """What the agent needs of the system bus; made by `system_bus`, and good for as long as that lasts.

    Every method raises what `BusConnection.call` raises.
    """

    def __init__(self, connection: BusConnection) -> None:
        self._connection = connection

    async def hear(self, *, on_suspend: bool, on_screen_lock: bool) -> None:
        """Have the bus pass on the signals of logind that are wanted, and its coming and going."""
        coming = MatchRule(type="signal", sender=BUS_NAME, interface=BUS_NAME, member="NameOwnerChanged")
        coming.add_arg_condition(0, LOGIND)
        rules = [coming]
        if on_suspend:
            rules.append(_rule(MANAGER_INTERFACE, "PrepareForSleep"))
        if on_screen_lock:
            hinted = _rule(PROPERTIES_INTERFACE, "PropertiesChanged", path_namespace=SESSIONS_PATH)
            hinted.add_arg_condition(0, SESSION_INTERFACE)
            rules += [_rule(SESSION_INTERFACE, "Lock"), hinted]
        for rule in rules:
            await self._connection.call(message_bus.AddMatch(rule))

    async def is_logind_there(self) -> bool:
        """Whether logind runs at this moment."""
        (is_there,) = await self._connection.call(message_bus.NameHasOwner(LOGIND))
        return bool(is_there)

    async def inhibit(self) -> Inhibitor:
        """Have logind wait before the machine sleeps, until this is closed or its patience ends."""
        manager = DBusAddress(MANAGER_PATH, LOGIND, MANAGER_INTERFACE)
        arguments = ("sleep", "agentd", "wipe keys before sleep", "delay")
        (inhibitor,) = await self._connection.call(new_method_call(manager, "Inhibit", "ssss", arguments))
        return inhibitor

    async def uid_of(self, session_path: str) -> int:
        """The user of a logind session, by its object's path."""
        session = DBusAddress(session_path, LOGIND, SESSION_INTERFACE)
        ((_, (uid, _)),) = await self._connection.call(Properties(session).get("User"))
        return int(uid)

    async def next_signal(self) -> Signal:
        """The next signal that was asked for, in their order."""
        message = await self._connection.next_signal()
        named = message.header.fields.get
        return Signal(
            path=str(named(HeaderFields.path)),
            interface=str(named(HeaderFields.interface)),
            member=str(named(HeaderFields.member)),
            body=tuple(message.body),
        )


@asynccontextmanager
async def system_bus() -> AsyncIterator[SystemBus]:
    """Connect to the bus of DBUS_SYSTEM_BUS_ADDRESS, or to the one at the usual place.

    Raises what `connected` raises, and what jeepney raises for an address that it cannot read.
    """
    async with connected(get_bus("SYSTEM")) as connection:
        yield SystemBus(connection)


def _rule(interface: str, member: str, **more: str) -> MatchRule:
    return MatchRule(type="signal", sender=LOGIND, interface=interface, member=member, **more)
