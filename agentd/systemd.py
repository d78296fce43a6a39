"""The one place that speaks to systemd: the sockets handed in, readiness, the watchdog, the journal.

Protocols: sd_listen_fds(3), sd_notify(3), sd_watchdog_enabled(3), JOURNAL_STREAM in systemd.exec(5).
All of it does nothing where systemd did not start this process.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import NamedTuple

from agentd_client.errors import SocketPathError

_FIRST_PASSED_DESCRIPTOR = 3
_VERIFY_SOCKET = "verify"
_MICROSECONDS = 1_000_000


class Passed(NamedTuple):
    """The listening sockets that systemd handed over; they are the caller's to close."""

    owners: socket.socket | None = None
    verify: socket.socket | None = None


def passed_sockets(environ: Mapping[str, str] = os.environ) -> Passed:
    """What systemd handed over: the owner's socket, the verify socket, both or none.

    The verify socket is the one named "verify" (FileDescriptorName=). Whatever has another name, or none, is
    the owner's, over which nobody but the owner is heard: a slip in a unit lets nobody in.

    Raises:
        SocketPathError: it handed over something else than one listening Unix stream socket with a path for
            each of the two.
    """
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return Passed()  # meant for another process; it was inherited with the environment
    count = environ.get("LISTEN_FDS")
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    second = [name == _VERIFY_SOCKET for name in names] if count == str(len(names)) else [False]
    if count not in ("1", "2") or len(second) != int(count) or len(set(second)) != len(second):
        raise SocketPathError(
            f"systemd passed {count} sockets ({', '.join(filter(None, names)) or 'without names'}); "
            f"agentd.socket has one, and agentd-verify.socket one of the name {_VERIFY_SOCKET!r}"
        )
    taken: dict[bool, socket.socket] = {}
    try:
        for number, is_second in enumerate(second):
            taken[is_second] = _listening(_FIRST_PASSED_DESCRIPTOR + number)
    except SocketPathError:
        for passed in taken.values():
            passed.close()
        raise
    return Passed(taken.get(False), taken.get(True))


def _listening(descriptor: int) -> socket.socket:
    try:
        passed = socket.socket(fileno=descriptor)
    except OSError as error:
        raise SocketPathError(f"what systemd passed is no socket: {error.strerror}") from error
    is_listening = passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if passed.family != socket.AF_UNIX or passed.type != socket.SOCK_STREAM or not is_listening:
        passed.close()
        raise SocketPathError("what systemd passed is not a listening Unix stream socket")
    if not isinstance(passed.getsockname(), str):  # the name of an abstract one is bytes
        passed.close()
        raise SocketPathError("what systemd passed has no path; ListenStream= wants one in its socket unit")
    passed.set_inheritable(False)
    passed.setblocking(False)
    return passed


def notify(state: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Tell the service manager, such as ``READY=1``; where there is none to tell, do nothing.

    Never waits. False where the manager's queue is full at this moment: tell it again.
    """
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return True
    if address.startswith("@"):  # an abstract socket, unix(7)
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.setblocking(False)
        try:
            told.sendto(state.encode(), address)
        except BlockingIOError:
            return False
        except OSError:
            return True  # the manager is gone: there is none
    return True


def watchdog_seconds(environ: Mapping[str, str] = os.environ) -> float | None:
    """The longest that the manager goes without hearing ``WATCHDOG=1`` before it acts; None: for ever."""
    meant_for = environ.get("WATCHDOG_PID")
    microseconds = environ.get("WATCHDOG_USEC", "")
    if meant_for not in (None, str(os.getpid())) or not microseconds.isdecimal() or int(microseconds) == 0:
        return None
    return int(microseconds) / _MICROSECONDS


def is_journal(descriptor: int, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether what is written to this descriptor goes to the journal."""
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return (device, inode) == (str(found.st_dev), str(found.st_ino))
