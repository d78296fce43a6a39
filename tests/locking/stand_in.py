"""A private system bus with python-dbusmock's fake logind on it.

dbusmock needs bindings that pip cannot build without headers: it is Debian's python3-dbusmock, run by the system's own
Python as a process of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path

import trio
from jeepney import DBusAddress, HeaderFields, message_bus, new_method_call, new_signal
from jeepney.io.trio import DBusRouter, open_dbus_router
from jeepney.wrappers import unwrap_msg

SYSTEM_PYTHON = "/usr/bin/python3"
LOGIND = "org.freedesktop.login1"
MANAGER = "org.freedesktop.login1.Manager"
SESSION = "org.freedesktop.login1.Session"
MOCK = "org.freedesktop.DBus.Mock"
PATH = "/org/freedesktop/login1"
PATIENCE_SECONDS = 30.0

_session_numbers = count(1)

_CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/><allow user="*"/>
  </policy>
</busconfig>
"""


def what_is_missing() -> str | None:
    if shutil.which("dbus-daemon") is None:
        return "dbus-daemon is not installed (Debian: dbus)"
    asked = [SYSTEM_PYTHON, "-I", "-c", "import dbusmock"]
    if not os.path.exists(SYSTEM_PYTHON) or subprocess.run(asked, capture_output=True).returncode != 0:
        return "python-dbusmock is not there for /usr/bin/python3 (Debian: python3-dbusmock)"
    return None


class StandIn:
    """The bus and its logind; each can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._socket = folder / "bus"
        self.address = f"unix:path={self._socket}"
        self._bus: subprocess.Popen[str] | None = None
        self._logind: subprocess.Popen[bytes] | None = None
        (folder / "bus.conf").write_text(_CONFIG.format(socket=self._socket))

    def start_bus(self) -> None:
        self._socket.unlink(missing_ok=True)
        self._bus = subprocess.Popen(
            [
                "dbus-daemon",
                f"--config-file={self._folder}/bus.conf",
                "--nofork",
                "--nopidfile",
                "--print-address",
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._bus.stdout is not None
        assert self._bus.stdout.readline().startswith(self.address)

    async def start_logind(self) -> None:
        self._logind = self._run_logind()
        async with self.control() as control:
            await control.until(control.is_logind_there)

    def _run_logind(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [SYSTEM_PYTHON, "-I", "-m", "dbusmock", "--template", "logind"],
            env={**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": self.address},
            stdout=subprocess.DEVNULL,
        )

    def end_logind(self) -> None:
        _end(self._logind)
        self._logind = None

    def end_bus(self) -> None:
        _end(self._bus)
        self._bus = None

    @asynccontextmanager
    async def control(self) -> AsyncIterator[Control]:
        async with open_dbus_router(self.address) as router:
            yield Control(router)


class Control:
    """Controls the fake logind."""

    def __init__(self, router: DBusRouter) -> None:
        self._router = router

    async def call(
        self, path: str, interface: str, method: str, signature: str = "", *arguments: object
    ) -> tuple:
        message = new_method_call(DBusAddress(path, LOGIND, interface), method, signature or None, arguments)
        return unwrap_msg(await self._router.send_and_get_reply(message))

    async def is_logind_there(self) -> bool:
        (is_there,) = unwrap_msg(await self._router.send_and_get_reply(message_bus.NameHasOwner(LOGIND)))
        return is_there

    async def inhibitors(self) -> list[tuple[str, str, str, str]]:
        (found,) = await self.call(PATH, MANAGER, "ListInhibitors")
        return [tuple(one[:4]) for one in found]

    async def is_held(self) -> bool:
        return bool(await self.inhibitors())

    async def is_free(self) -> bool:
        return not await self.inhibitors()

    async def prepare_for_sleep(self, is_beginning: bool) -> None:
        arguments = [("b", is_beginning)]
        await self.call(PATH, MOCK, "EmitSignal", "sssav", MANAGER, "PrepareForSleep", "b", arguments)

    async def add_session(self, uid: int) -> str:
        name = f"c{next(_session_numbers)}"
        (path,) = await self.call(PATH, MOCK, "AddSession", "ssusb", name, "seat0", uid, f"user{uid}", True)
        return path

    async def lock_session(self, path: str) -> None:
        await self.call(path, SESSION, "Lock")

    async def forge(self, path: str, interface: str, member: str, signature: str = "", *body: object) -> None:
        """Forge a signal of logind, broadcast and sent to every connection directly."""
        (names,) = unwrap_msg(await self._router.send_and_get_reply(message_bus.ListNames()))
        for name in (None, *(name for name in names if name.startswith(":"))):
            forged = new_signal(DBusAddress(path, interface=interface), member, signature or None, body)
            if name is not None:
                forged.header.fields[HeaderFields.destination] = name
            await self._router.send(forged)

    async def until(self, condition: Callable[[], object]) -> None:
        """Poll the bus until a condition holds, whether or not it is async."""
        with trio.fail_after(PATIENCE_SECONDS):
            while True:
                found = condition()
                if hasattr(found, "__await__"):
                    found = await found
                if found:
                    return
                await self._router.send_and_get_reply(message_bus.GetId())


@contextmanager
def private_bus() -> Iterator[StandIn]:
    with tempfile.TemporaryDirectory(prefix="agentd-") as folder, ExitStack() as ends:
        stand_in = StandIn(Path(folder))
        ends.callback(stand_in.end_bus)
        ends.callback(stand_in.end_logind)
        stand_in.start_bus()
        yield stand_in


def _end(process: subprocess.Popen | None) -> None:
    if process is None:
        return
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()
