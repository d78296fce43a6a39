"""The process at the other end of a connection, as the kernel reports it."""

from __future__ import annotations

import os
import socket
import struct
import unicodedata
from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple
from weakref import WeakSet

import trio

from agentd_client.protocol.limits import MAX_SHOWN_CHARACTERS
from agentd_client.protocol.results import Event, PeerIdentity
from agentd_client.shown_text import UNSHOWN_CATEGORIES

from ..process_identity import PROC, Process, identify_peer, is_alive, is_interpreter, read_file

Subscriber = Callable[[Event], None]
"""Called with each event, on the event loop's thread. It neither waits nor raises."""

Unsubscribe = Callable[[], None]

_UCRED = struct.Struct("iII")  # pid_t, uid_t, gid_t
_THREAD_NAMES = {b"MainThread"}
"""Names that interpreters give their first thread, and so the process."""

_UNIT_SUFFIXES = (b".service", b".scope")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Peer(NamedTuple):
    """A snapshot made when the peer connected, unix(7).

    After a fork, an exec or a setuid it still shows the first process. Use `uid` for decisions, `pid` for
    display, and `process` for what depends on the process, because pids are reused.
    """

    uid: int
    gid: int
    process: Process

    @property
    def pid(self) -> int:
        """For display."""
        return self.process.pid


class Caller:
    """The peer of one connection, as methods see it.

    peer: its user and process. identity: the same for the audit log and events, without the executable.
    process: of the peer.
    subscribe: sends the peer every event of a source after the replies so far. Once subscribed, a no-op.
    """

    def __init__(self, peer: Peer, subscribe: Callable[[Callable[[Subscriber], Unsubscribe]], None]) -> None:
        self.peer = peer
        self.process = peer.process
        self.identity = PeerIdentity(peer.uid, peer.pid)
        self.subscribe = subscribe
        self._has_hung_up = False
        self._hang_up_scopes: WeakSet[trio.CancelScope] | None = None

    @cached_property
    def described(self) -> PeerIdentity:
        """The peer with its executable and unit, which are read the first time."""
        return describe_peer(self.peer)

    def hang_up_scope(self) -> trio.CancelScope:
        """A scope that is cancelled once the peer has closed the connection.

        For waiting that only concerns the peer. Work that has begun goes on, even if nobody hears the answer.
        """
        scope = trio.CancelScope()
        if self._has_hung_up:
            scope.cancel()
        if self._hang_up_scopes is None:
            self._hang_up_scopes = WeakSet()
        self._hang_up_scopes.add(scope)
        return scope

    def hang_up(self) -> None:
        """The peer has closed the connection: cancel what waits for it."""
        self._has_hung_up = True
        for scope in self._hang_up_scopes or ():
            scope.cancel()


def peer_of(connection: socket.socket) -> Peer:
    """SO_PEERCRED of a connected Unix socket; raises OSError if the kernel has none."""
    pid, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return Peer(uid, gid, identify_peer(connection, pid))


def describe_peer(peer: Peer) -> PeerIdentity:
    """The peer with its current executable and systemd unit, both for display only; None if unknown.

    Both are None for a process that has ended, because its pid may be another's by now.

    If the executable cannot be read, or is an interpreter, the process's name in brackets takes its place, as
    in ps(1). An agent in a user namespace of its own (systemd's PrivateUsers=) cannot read it. The kernel
    names a process after the script that it executed. For `python3 script.py` only the command line has the
    script's name; that is never read, because it may hold secrets and its process can make the reader wait.
    """
    folder = f"{PROC}/{peer.pid}"
    exe, unit = _executable(folder), _unit(folder)
    if is_alive(peer.process):  # checked last: a process that is alive now was alive during both reads
        return PeerIdentity(peer.uid, peer.pid, exe, unit)
    return PeerIdentity(peer.uid, peer.pid)


def _executable(folder: str) -> str | None:
    try:
        path = os.readlink(os.fsencode(f"{folder}/exe"))
    except OSError:
        path = None
    if path is not None and not is_interpreter(path.rpartition(b"/")[2]):
        return _shown(path)
    name = _name(folder)
    if path is not None and (not name or name in _THREAD_NAMES or is_interpreter(name)):
        return _shown(path)
    return None if name is None else f"[{_shown(name)}]"


def _name(folder: str) -> bytes | None:
    """The process's name, proc_pid_comm(5): at first that of the file that was executed."""
    try:
        return read_file(f"{folder}/comm").rstrip(b"\n")
    except OSError:
        return None


def _unit(folder: str) -> str | None:
    try:
        # Not splitlines: a name may hold a carriage return.
        lines = read_file(f"{folder}/cgroup").split(b"\n")
    except OSError:
        return None
    for line in lines:
        if line.startswith(b"0::"):  # cgroup v2, cgroups(7)
            units = [name for name in line.split(b"/") if name.endswith(_UNIT_SUFFIXES)]
            return _shown(units[-1]) if units else None
    return None


def _shown(name: bytes) -> str:
    # A file's name may hold anything but a slash, and is shown in terminals. The limit is in bytes, so that a
    # page full of the longest names fits into one message, whatever their alphabet.
    text = name.decode("utf-8", "replace")
    if not text.isprintable():  # usually it is, and no character needs a check
        text = "".join(map(_visible, text))
    return text.encode()[:MAX_SHOWN_CHARACTERS].decode("utf-8", "ignore")


def _visible(character: str) -> str:
    return _REPLACEMENT if unicodedata.category(character) in UNSHOWN_CATEGORIES else character
