"""What the kernel tells of Unix sockets, without a connection to any: a connection starts what waits for it.

Who listens is asked by sock_diag(7), where a name is a field of its own. /proc/net/unix has one line for each
socket, and the name of an abstract one, which is anybody's to choose, may hold a line's end and another line.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator

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
    """Whether a socket is bound to the file at a path; None where there is no file or it cannot be known.

    A connection with a socket of another kind is refused before anybody learns of it; the error says why.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            result = probe.connect_ex(path)
        except (OSError, ValueError):  # a path that is too long, or none
            return None
    return {0: True, errno.EPROTOTYPE: True, errno.ECONNREFUSED: False}.get(result)


def listeners(path: str) -> int:
    """How many sockets bound to that path accept connections, as far as this network namespace shows.

    0 as well where the kernel does not say.
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
