"""Who listens, asked of a real kernel."""

from __future__ import annotations

import os
import socket

import pytest

from agentd.doctor import unix_sockets
from agentd.doctor.unix_sockets import is_taken, listeners


def test_listeners_are_counted_and_connections_are_not(tmp_path):
    path = str(tmp_path / "a socket")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(path)
        assert listeners(path) == 0
        bound.listen()
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(path)
            assert listeners(path) == 1
        os.unlink(path)
        with socket.socket(socket.AF_UNIX) as second:
            second.bind(path)
            second.listen()
            assert listeners(path) == 2


def test_a_socket_whose_name_holds_a_line_of_proc_is_not_taken_for_another():
    path = f"/run/user/{os.getpid()}/s"
    line = f"0000000000000000: 00000002 00000000 00010000 0001 01 4711 {path}"
    with socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind(f"\0\n{line}")
        abstract.listen()
        with open("/proc/net/unix") as shown:
            assert line in shown.read().split("\n")
        assert listeners(path) == 0
        assert listeners("\0\n" + line) == 1


def test_of_many_sockets_none_is_left_out():
    names = [f"\0agentd-test-{os.getpid()}-{number:080}" for number in range(400)]
    held = [socket.socket(socket.AF_UNIX) for _ in range(400)]  # more than one answer of the kernel's takes
    try:
        for name, each in zip(names, held, strict=True):
            each.bind(name)
            each.listen()
        assert [listeners(names[number]) for number in (0, 200, 399)] == [1, 1, 1]
    finally:
        for each in held:
            each.close()


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
def test_whether_a_socket_is_bound_is_found_without_a_connection(tmp_path, kind):
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX, kind) as bound:
        bound.bind(path)
        bound.listen()
        bound.setblocking(False)
        assert is_taken(path) is True
        with pytest.raises(BlockingIOError):
            bound.accept()
    assert is_taken(path) is False
    os.unlink(path)
    assert is_taken(path) is None
    assert is_taken("x" * 200) is None
    assert is_taken("a\0b") is None


def test_where_the_kernel_does_not_say_nobody_is_known(monkeypatch):
    monkeypatch.setattr(unix_sockets, "_NETLINK_SOCK_DIAG", 31)  # what nothing answers for
    assert listeners("/s") == 0
