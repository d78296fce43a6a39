"""Who is at the other end of a connection, as the kernel reports it."""

from __future__ import annotations

import os
import socket
import struct
import unicodedata
from typing import NamedTuple

from agentd_client.protocol.limits import MAX_SHOWN_CHARACTERS
from agentd_client.protocol.results import Opener

from ..process_identity import PROC, Process, identify_peer, is_alive

_UCRED = struct.Struct("iII")  # pid_t, uid_t, gid_t
_UNIT_SUFFIXES = (b".service", b".scope")
_UNPRINTABLE = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}  # as in labels
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Peer(NamedTuple):
    """A snapshot made when the peer connected, unix(7).

    After a fork, an exec or a setuid it still shows the first process: decide by `uid`, show `pid`. Whatever
    depends on which process it is goes by `process`, because a pid passes on.
    """

    uid: int
    gid: int
    process: Process

    @property
    def pid(self) -> int:
        """For display."""
        return self.process.pid


def peer_of(connection: socket.socket) -> Peer:
    """SO_PEERCRED of a connected Unix socket; raises OSError where the kernel has none."""
    pid, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return Peer(uid, gid, identify_peer(connection, pid))


def opener_of(peer: Peer) -> Opener:
    """The peer with its executable and its systemd unit as they are now, both for display only.

    Neither is known of a process that has ended: its pid may be another's by now.

    Where the executable cannot be read, the process's own name for itself stands in brackets, as ps(1) shows
    it: so it is from within a user namespace of the agent's own (systemd's PrivateUsers=). None stands for
    what cannot be read at all. The command line is never read: it may hold secrets.
    """
    folder = f"{PROC}/{peer.pid}"
    exe, unit = _executable(folder), _unit(folder)
    # Asked afterwards: what lives now has lived while the files were read.
    return Opener(peer.uid, peer.pid, exe, unit) if is_alive(peer.process) else Opener(peer.uid, peer.pid)


def _executable(folder: str) -> str | None:
    try:
        return _shown(os.readlink(os.fsencode(f"{folder}/exe")))
    except OSError:
        return _name(folder)


def _name(folder: str) -> str | None:
    try:
        with open(f"{folder}/comm", "rb") as file:
            return "[" + _shown(file.read().rstrip(b"\n")) + "]"
    except OSError:
        return None


def _unit(folder: str) -> str | None:
    try:
        with open(f"{folder}/cgroup", "rb") as file:
            lines = file.read().split(b"\n")  # no other end: a group's name may hold a carriage return
    except OSError:
        return None
    for line in lines:
        if line.startswith(b"0::"):  # cgroup v2, cgroups(7)
            units = [name for name in line.split(b"/") if name.endswith(_UNIT_SUFFIXES)]
            return _shown(units[-1]) if units else None
    return None


def _shown(name: bytes) -> str:
    # A file's name may hold anything but a slash, and ends up in terminals. It is cut by its bytes: a page
    # full of the longest names still fits into one message, whatever alphabet they are in.
    text = "".join(map(_visible, name.decode("utf-8", "replace")))
    return text.encode()[:MAX_SHOWN_CHARACTERS].decode("utf-8", "ignore")


def _visible(character: str) -> str:
    return _REPLACEMENT if unicodedata.category(character) in _UNPRINTABLE else character
