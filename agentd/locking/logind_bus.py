"""What the agent needs of logind and of the bus that leads to it; `system_bus` has it, by jeepney.

The names are those of org.freedesktop.login1(5) and of the D-Bus specification.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

BUS_NAME = "org.freedesktop.DBus"
LOGIND = "org.freedesktop.login1"

MANAGER_PATH = "/org/freedesktop/login1"
MANAGER_INTERFACE = "org.freedesktop.login1.Manager"

SESSIONS_PATH = "/org/freedesktop/login1/session"
SESSION_INTERFACE = "org.freedesktop.login1.Session"

PROPERTIES_INTERFACE = "org.freedesktop.DBus.Properties"
OPERATION_IN_PROGRESS = "org.freedesktop.login1.OperationInProgress"


class Signal(NamedTuple):
    """One signal: who sent it (a connection's unique name), from which object, and what."""

    sender: str
    path: str
    interface: str
    member: str
    body: tuple[object, ...]


class RefusedError(Exception):
    """The bus or logind answered a call with an error; the text is its name and what it says."""

    def __init__(self, name: str, text: str = "") -> None:
        super().__init__(f"{name}: {text}" if text else name)
        self.name = name


class Inhibitor(Protocol):
    """Logind waits with sleeping until this is closed, or until its patience ends."""

    def close(self) -> None:
        """Let the machine sleep; closing twice does nothing."""
        ...


class Bus(Protocol):
    """A connection to the system bus.

    Every call raises RefusedError for an error that is answered, and something else where the connection is
    of no use any more.
    """

    async def hear(self, *, on_suspend: bool, on_screen_lock: bool) -> None:
        """Have the bus pass on the signals of logind that are wanted, and its coming and going."""
        ...

    async def owner(self) -> str | None:
        """The unique name of the connection that is logind; None where there is none."""
        ...

    async def inhibit(self) -> Inhibitor:
        """Have logind wait before the machine sleeps; the inhibitor is the caller's to close."""
        ...

    async def uid_of(self, session_path: str) -> int:
        """The user of a logind session, by its object's path."""
        ...

    def signals(self) -> AbstractAsyncContextManager[AsyncIterator[Signal]]:
        """Every signal from here on, in their order, until the connection breaks."""
        ...
