"""A private session bus with python-dbusmock's notification server on it, and a person who presses its buttons.

dbusmock is Debian's, run by the system's own Python: see `tests.locking.stand_in`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from jeepney import DBusAddress, HeaderFields, message_bus, new_method_call, new_signal
from jeepney.io.blocking import open_dbus_connection
from jeepney.wrappers import unwrap_msg

from tests.locking.stand_in import SYSTEM_PYTHON, StandIn

NAME = "org.freedesktop.Notifications"
PATH = "/org/freedesktop/Notifications"
MOCK = "org.freedesktop.DBus.Mock"
PATIENCE_SECONDS = 60.0
DISMISSED = 2
"""Why a notification was closed: the person did it."""


class Shown(NamedTuple):
    """A call of Notify, and the id that it returned."""

    id: int
    title: str
    body: str
    actions: list[str]
    hints: dict[str, Any]
    milliseconds: int


class Desktop:
    """What a test reads and does; the notification server can be stopped and started, and so can the bus."""

    def __init__(self, bus: StandIn) -> None:
        self.bus = bus
        self.address = bus.address
        self._server: subprocess.Popen[bytes] | None = None

    def start_server(self, *capabilities: str) -> None:
        given = json.dumps({"capabilities": " ".join(capabilities or ("body", "body-markup", "actions"))})
        self._server = subprocess.Popen(
            [SYSTEM_PYTHON, "-I", "-m", "dbusmock", "--template", "notification_daemon", "-p", given],
            env={**os.environ, "DBUS_SESSION_BUS_ADDRESS": self.address},
            stdout=subprocess.DEVNULL,
        )
        until(self.has_server)

    def end_server(self) -> None:
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self._server = None

    @contextmanager
    def server_stopped(self) -> Iterator[None]:
        """It hangs meanwhile (SIGSTOP)."""
        assert self._server is not None
        self._server.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._server.send_signal(signal.SIGCONT)

    def has_server(self) -> bool:
        with open_dbus_connection(self.address) as bus:
            (is_there,) = unwrap_msg(bus.send_and_get_reply(message_bus.NameHasOwner(NAME)))
        return is_there

    def shown(self) -> list[Shown]:
        """All that this server was asked to show; it counts them from 1."""
        calls = self._mock("GetMethodCalls", "s", "Notify")
        return [
            Shown(number, title, body, actions, hints, milliseconds)
            for number, (_, arguments) in enumerate(calls, 1)
            for _, _, _, title, body, actions, hints, milliseconds in [[value for _, value in arguments]]
        ]

    def closed(self) -> list[int]:
        """The ids that it was asked to close."""
        return [arguments[0][1] for _, arguments in self._mock("GetMethodCalls", "s", "CloseNotification")]

    def wait_for(self, count: int) -> list[Shown]:
        until(lambda: len(self.shown()) >= count)
        return self.shown()

    def press(self, id: int, action: str) -> None:
        self._emit("ActionInvoked", "us", ("u", id), ("s", action))

    def dismiss(self, id: int) -> None:
        self._emit("NotificationClosed", "uu", ("u", id), ("u", DISMISSED))

    def forge(self, member: str, signature: str, *body: object, interface: str = NAME) -> None:
        """Send a signal like the server's from another connection: to all, and to each connection directly."""
        with open_dbus_connection(self.address) as bus:
            (names,) = unwrap_msg(bus.send_and_get_reply(message_bus.ListNames()))
            for name in (None, *(name for name in names if name.startswith(":"))):
                forged = new_signal(DBusAddress(PATH, interface=interface), member, signature, body)
                if name is not None:
                    forged.header.fields[HeaderFields.destination] = name
                bus.send(forged)
            bus.send_and_get_reply(message_bus.GetId())  # all of it has reached the bus

    def _emit(self, member: str, signature: str, *arguments: tuple[str, object]) -> None:
        self._mock("EmitSignal", "sssav", NAME, member, signature, list(arguments))

    def _mock(self, method: str, signature: str, *arguments: object) -> Any:
        with open_dbus_connection(self.address) as bus:
            message = new_method_call(DBusAddress(PATH, NAME, MOCK), method, signature, arguments)
            body = unwrap_msg(bus.send_and_get_reply(message))
        return body[0] if body else None


def until(holds: Callable[[], object]) -> None:
    """Poll, for what other processes do."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "never so"
        time.sleep(0.01)


@contextmanager
def desktop() -> Iterator[Desktop]:
    with tempfile.TemporaryDirectory(prefix="agentd-") as folder, ExitStack() as ends:
        bus = StandIn(Path(folder))
        made = Desktop(bus)
        ends.callback(bus.end_bus)
        ends.callback(made.end_server)
        bus.start_bus()
        yield made
