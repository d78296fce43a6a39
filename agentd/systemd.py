"""The protocols of systemd: the sockets it passes, readiness, the watchdog, the journal.

Protocols: sd_listen_fds(3), sd_notify(3), sd_watchdog_enabled(3), JOURNAL_STREAM in systemd.exec(5).
Without systemd all of it has no effect.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import NamedTuple

from agentd_client.errors import SocketPathError

_FIRST_PASSED_DESCRIPTOR = 3
_OWNERS = "owners"
_SHARED = ("verify", "ask")
_MICROSECONDS = 1_000_000


class Passed(NamedTuple):
    """The listening sockets that systemd passed; the caller closes them."""

    owners: socket.socket | None = None
    verify: socket.socket | None = None
    ask: socket.socket | None = None


NONE_PASSED = Passed()


def passed_sockets(environ: Mapping[str, str] = os.environ) -> Passed:
    """The sockets that systemd passed: the owner's, the verify socket, the ask socket, or some of them.

    The latter two are those named "verify" and "ask" (FileDescriptorName=). One with any other name, or none,
    is the owner's, where only the owner is served: a mistake in a unit gives nobody access.

    Raises:
        SocketPathError: anything but one listening Unix stream socket with a path for each of the three.
    """
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return NONE_PASSED  # meant for another process: the environment was inherited
    count = environ.get("LISTEN_FDS")
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    are_named = count == str(len(names))
    kinds = [name if name in _SHARED else _OWNERS for name in names] if are_named else [_OWNERS]
    if count != str(len(kinds)) or len(set(kinds)) != len(kinds):
        raise SocketPathError(
            f"systemd passed {count} sockets ({', '.join(filter(None, names)) or 'without names'}); "
            "agentd.socket has one, agentd-verify.socket one named 'verify', "
            "and agentd-ask.socket one named 'ask'"
        )
    taken: dict[str, socket.socket] = {}
    try:
        for number, kind in enumerate(kinds):
            taken[kind] = _listening(_FIRST_PASSED_DESCRIPTOR + number)
    except SocketPathError:
        for passed in taken.values():
            passed.close()
        raise
    return Passed(**taken)


def _listening(descriptor: int) -> socket.socket:
    try:
        passed = socket.socket(fileno=descriptor)
    except OSError as error:
        raise SocketPathError(
            f"systemd passed a descriptor that is not a socket: {error.strerror}"
        ) from error
    is_listening = passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if passed.family != socket.AF_UNIX or passed.type != socket.SOCK_STREAM or not is_listening:
        passed.close()
        raise SocketPathError("systemd passed something other than a listening Unix stream socket")
    if not isinstance(passed.getsockname(), str):  # an abstract name is bytes
        passed.close()
        raise SocketPathError("systemd passed a socket without a path; set ListenStream= to one in its unit")
    passed.set_inheritable(False)
    passed.setblocking(False)
    return passed


def notify(state: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Send a state such as ``READY=1`` to the service manager; without one this has no effect.

    Never waits. False if the manager's queue is full: try again later.
    """
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return True
    if address.startswith("@"):  # an abstract socket, unix(7)
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        try:
            sender.sendto(state.encode(), address)
        except BlockingIOError:
            return False
        except OSError:
            return True  # the manager is gone
    return True


def watchdog_seconds(environ: Mapping[str, str] = os.environ) -> float | None:
    """How long the manager waits for the next ``WATCHDOG=1``; None if it has no watchdog."""
    meant_for = environ.get("WATCHDOG_PID")
    microseconds = environ.get("WATCHDOG_USEC", "")
    if meant_for not in (None, str(os.getpid())) or not microseconds.isdecimal() or int(microseconds) == 0:
        return None
    return int(microseconds) / _MICROSECONDS


def is_journal(descriptor: int, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this descriptor leads to the journal."""
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return (device, inode) == (str(found.st_dev), str(found.st_ino))
