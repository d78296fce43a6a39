"""Who is at the other end of a connection, as the kernel reports it."""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

_UCRED = struct.Struct("iII")  # pid_t, uid_t, gid_t


class Peer(NamedTuple):
    """A snapshot made when the peer connected, unix(7).

    After a fork, an exec or a setuid it still shows the first process: decide by `uid`, show `pid`.
    """

    uid: int
    gid: int
    pid: int


def peer_of(connection: socket.socket) -> Peer:
    """SO_PEERCRED of a connected Unix socket; raises OSError where the kernel has none."""
    pid, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return Peer(uid, gid, pid)
