"""The process that connected has ended, its connection lives on elsewhere, and its pid is another's."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgpack
import pytest

from tests.e2e.daemon import serving

LAST_PID = Path("/proc/sys/kernel/ns_last_pid")
TRIES = 100  # another process may take the pid first

pytestmark = [
    pytest.mark.serial,  # the next pid is the same for all processes of the machine
    pytest.mark.skipif(os.geteuid() != 0, reason="only root chooses the next pid"),
]


@contextmanager
def recycled(path: str) -> Iterator[tuple[socket.socket, subprocess.Popen[bytes]]]:
    """A connection whose process is gone, and the process that has its pid now."""
    for _ in range(TRIES):
        with connected_by_another(path) as (connection, pid):
            LAST_PID.write_text(str(pid - 1))
            with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as successor:
                try:
                    if successor.pid == pid:
                        yield connection, successor
                        return
                finally:
                    successor.kill()
    pytest.skip("the pid was taken by other processes every time")


@contextmanager
def connected_by_another(path: str) -> Iterator[tuple[socket.socket, int]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        pid = os.fork()
        if pid == 0:  # nothing but system calls
            try:
                connection = socket.socket(socket.AF_UNIX)
                connection.connect(path)
                connection.send(msgpack.packb([0, 1, "hello", [{}]]))
                connection.recv(65536)  # it was accepted while this process lived
                socket.send_fds(theirs, [b"x"], [connection.fileno()])
            finally:
                os._exit(0)
        _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
        os.waitpid(pid, 0)
        with socket.socket(fileno=descriptors[0]) as connection:
            yield connection, pid


def ask(connection: socket.socket, method: str, **named: object) -> tuple[object, dict[str, object]]:
    connection.sendall(msgpack.packb([0, 1, method, [named]]))
    error, result = msgpack.unpackb(connection.recv(65536))[2:]
    return error, result


def test_no_session_is_bound_to_the_process_that_has_the_pid_now_nor_shown_as_its(home):
    with serving(home), recycled(str(home.socket)) as (connection, successor):
        error, _ = ask(connection, "createToken", bound=True)
        assert isinstance(error, list)
        assert error[1].startswith("CANNOT_BIND: the process that made this connection has ended")
        error, created = ask(connection, "createToken", label="unbound")
        assert error is None
        _, listed = ask(connection, "listSessions")
        (session,) = listed["sessions"]
        assert session["id"] == created["id"]
        assert session["openedBy"] == {"uid": 0, "pid": successor.pid, "exe": None, "unit": None}
