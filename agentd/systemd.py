"""The one place that speaks to systemd: the socket handed in, readiness, the watchdog, the journal.

Protocols: sd_listen_fds(3), sd_notify(3), sd_watchdog_enabled(3), JOURNAL_STREAM in systemd.exec(5).
All of it does nothing where systemd did not start this process.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from agentd_client.errors import SocketPathError

_FIRST_PASSED_DESCRIPTOR = 3
_MICROSECONDS = 1_000_000


def passed_socket(environ: Mapping[str, str] = os.environ) -> socket.socket | None:
    """The listening socket that systemd handed over, or None; it is the caller's to close.

    Raises:
        SocketPathError: it handed over something else than one listening Unix stream socket with a path.
    """
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return None  # meant for another process; it was inherited with the environment
    if environ.get("LISTEN_FDS") != "1":
        raise SocketPathError(f"systemd passed {environ.get('LISTEN_FDS')} sockets; agentd.socket has one")
    try:
        passed = socket.socket(fileno=_FIRST_PASSED_DESCRIPTOR)
    except OSError as error:
        raise SocketPathError(f"what systemd passed is no socket: {error.strerror}") from error
    is_listening = passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if passed.family != socket.AF_UNIX or passed.type != socket.SOCK_STREAM or not is_listening:
        passed.close()
        raise SocketPathError("what systemd passed is not a listening Unix stream socket")
    if not isinstance(passed.getsockname(), str):  # the name of an abstract one is bytes
        passed.close()
        raise SocketPathError("what systemd passed has no path; ListenStream= wants one in agentd.socket")
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
