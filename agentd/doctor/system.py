"""What the system shows of files, locks, processes and sockets.

Nothing here opens the agent's files, takes a lock or connects to a socket, which could start the agent.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from agentd_client import file_locks
from agentd_client.private import Fault, private_fault

from .findings import Finding, error, ok

# --- files ---

FOLDER, FILE, SOCKET, OTHER = "folder", "regular file", "socket", "something else"
_KINDS = {stat.S_IFDIR: FOLDER, stat.S_IFREG: FILE, stat.S_IFSOCK: SOCKET}


class Node(NamedTuple):
    """A file of any kind, as lstat(2) shows it.

    kind: None if nothing is there. unreadable: why it cannot be examined. fault: why it is not private.
    """

    path: str
    kind: str | None = None
    mode: int = 0
    device: int = 0
    inode: int = 0
    unreadable: str = ""
    fault: Fault | None = None

    def judge_private(self, name: str, what: str, kind: str) -> Finding:
        """Whether it is of that kind, and the user's own and closed to others. The node exists."""
        if self.unreadable:
            remedy = "see who owns the folders above"
            return error(name, f"{self.path} cannot be examined: {self.unreadable}", remedy)
        if self.kind != kind:
            return error(name, f"{self.path}, {what}, is not a {kind}", "move it away")
        if self.fault is not None:
            return error(name, f"{self.path}, {what}: {self.fault.reason}", self.fault.remedy)
        return ok(name, f"{self.path} is yours alone (mode {self.mode:04o})")


def node_at(path: str | os.PathLike[str], *, follow: bool = False) -> Node:
    """The node at a path, or with `follow` the target of a symbolic link there; raises nothing."""
    name = os.fspath(path)
    try:
        found = os.stat(name, follow_symlinks=follow)
    except (FileNotFoundError, NotADirectoryError):
        return Node(name)
    except OSError as failure:
        return Node(name, OTHER, unreadable=failure.strerror or "unknown error")
    kind, mode = _KINDS.get(stat.S_IFMT(found.st_mode), OTHER), stat.S_IMODE(found.st_mode)
    return Node(name, kind, mode, found.st_dev, found.st_ino, fault=private_fault(name, found))


def nodes_in(folder: Path) -> list[Node]:
    """The nodes in a folder, by name; none if it does not exist or cannot be read."""
    try:
        return [node_at(path) for path in sorted(folder.iterdir())]
    except OSError:
        return []


def nearest(path: str | os.PathLike[str]) -> str:
    """The path itself, or the nearest one above it that exists."""
    name = os.path.abspath(path)
    while not os.path.lexists(name):
        name = os.path.dirname(name)
    return name


# --- locks and processes, in /proc ---

# Parsing is apart from reading. Lines end at line feeds only: the kernel lets nobody put these into the names
# in such a file, but it allows other characters at which str.splitlines breaks a line (proc(5), cgroups(7)).


def read_proc(*parts: str) -> str:
    """The text of a file below /proc; empty if it cannot be read, or its process has ended."""
    try:
        return Path("/proc", *parts).read_bytes().decode(errors="surrogateescape")
    except OSError:
        return ""


def flock_holders(locks: str, node: Node) -> list[int]:
    """The processes that hold an flock(2) on a file, by the text of /proc/locks."""
    return [] if node.kind is None else file_locks.flock_holders(locks, node.device, node.inode)


def unit_of(cgroup: str) -> str:
    """The systemd unit of a process, by the text of /proc/PID/cgroup; empty if it has none."""
    for line in cgroup.split("\n"):  # in a hybrid set-up only one of the two hierarchies has it
        last = line.rpartition("/")[2]
        if (line.startswith("0::") or ":name=systemd:" in line) and last.endswith((".service", ".scope")):
            return last
    return ""


def swap_devices(swaps: str) -> list[str]:
    """The swap areas outside of memory (zram is in it), by the text of /proc/swaps."""
    names = [line.split()[0] for line in swaps.split("\n")[1:] if line.split()]
    return [name for name in names if not name.startswith("/dev/zram")]


# --- Unix sockets ---

# Listeners are listed by sock_diag(7), where a name is a field of its own. In /proc/net/unix it is part of a
# line, and an abstract name, which anybody can choose, may contain a line feed and another line.
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY, _REQUEST_AND_DUMP = 20, 0x301
_ERROR, _DONE = 2, 3
_LISTENING = 10  # TCP_LISTEN
_ALL, _WITH_NAMES, _NO_COOKIE = 0, 1, 0xFFFFFFFF
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_QUERY = struct.Struct("=BBHIIIII")  # unix_diag_req: family, protocol, -, states, inode, show, cookie
_FOUND_BYTES = 16  # unix_diag_msg
_ALIGNMENT = 4
_ATTRIBUTE = struct.Struct("=HH")  # nlattr: length, type
_NAME = 0  # UNIX_DIAG_NAME

_WAIT_SECONDS = 2.0
"""For the kernel, which answers at once."""

_BATCH_BYTES = 64 * 1024
"""More than the kernel puts into one batch of answers."""


def is_taken(path: str) -> bool | None:
    """Whether a socket is bound to the file at a path; None if there is no file or it cannot be known.

    The kernel refuses a connection between sockets of different types before the other side hears of it, and
    the error says why.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            result = probe.connect_ex(path)
        except (OSError, ValueError):  # a path that is too long, or not a path
            return None
    return {0: True, errno.EPROTOTYPE: True, errno.ECONNREFUSED: False}.get(result)


def listeners(path: str) -> int:
    """How many sockets bound to that path accept connections, as far as this network namespace shows.

    Also 0 if the kernel does not say.
    """
    name = os.fsencode(path)
    try:
        return sum(found == name for found in _listening_names())
    except OSError:  # no sock_diag, or a sandbox without netlink
        return 0


def _listening_names() -> Iterator[bytes]:
    query = _QUERY.pack(socket.AF_UNIX, 0, 0, 1 << _LISTENING, _ALL, _WITH_NAMES, _NO_COOKIE, _NO_COOKIE)
    header = _HEADER.pack(_HEADER.size + len(query), _SOCK_DIAG_BY_FAMILY, _REQUEST_AND_DUMP, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
        kernel.settimeout(_WAIT_SECONDS)
        kernel.send(header + query)
        while True:
            batch = kernel.recv(_BATCH_BYTES)
            for kind, body in _pieces(batch, _HEADER):
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
                yield from (
                    value.removesuffix(b"\0")
                    for attribute, value in _pieces(body[_FOUND_BYTES:], _ATTRIBUTE)
                    if attribute == _NAME
                )


def _pieces(data: bytes, header: struct.Struct) -> Iterator[tuple[int, bytes]]:
    """The pieces of a netlink(7) message, by their type: each begins with its length and is padded."""
    while len(data) >= header.size:
        length, kind, *_ = header.unpack_from(data)
        if length < header.size:
            return
        yield kind, data[header.size : length]
        data = data[-(-length // _ALIGNMENT) * _ALIGNMENT :]
