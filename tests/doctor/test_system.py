"""What the system shows of files, locks, processes and sockets, asked of a real one."""

from __future__ import annotations

import fcntl
import os
import socket

import pytest

from agentd.doctor import system
from agentd.doctor.findings import Severity
from agentd.doctor.system import (
    FILE,
    FOLDER,
    OTHER,
    SOCKET,
    Node,
    is_taken,
    listeners,
    nearest,
    node_at,
    nodes_in,
    read_proc,
)
from tests.other_user import NOBODY, needs_root


def test_what_is_at_a_path(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    file.chmod(0o640)
    (tmp_path / "link").symlink_to(file)
    assert node_at(file)[:3] == (str(file), FILE, 0o640)
    assert node_at(tmp_path).kind == FOLDER
    assert node_at(tmp_path / "link").kind == OTHER
    assert node_at(tmp_path / "nothing").kind is None
    assert node_at(file / "below").kind is None
    assert [node.path for node in nodes_in(tmp_path)] == [str(file), str(tmp_path / "link")]
    assert nodes_in(tmp_path / "nothing") == []


def test_the_nearest_that_exists(tmp_path):
    assert nearest(tmp_path / "a" / "b") == str(tmp_path)
    assert nearest(tmp_path) == str(tmp_path)
    assert nearest("/nothing/at/all") == "/"


def test_a_path_that_cannot_be_examined_is_an_error():
    node = node_at("x" * 5000)
    assert node.unreadable == "File name too long"
    assert node.judge_private("n", "it", FILE).severity is Severity.ERROR


@pytest.mark.parametrize(
    ("made", "mode", "kind", "says", "remedy"),
    [
        (FOLDER, 0o700, FILE, "is not a regular file", "move it away"),
        (FILE, 0o604, FILE, "open to others (mode 0604)", "chmod 600 "),
        (SOCKET, 0o666, SOCKET, "open to others", "chmod 600 "),
        (FOLDER, 0o710, FOLDER, "open to others", "chmod 700 "),
    ],
)
def test_what_is_not_private_is_an_error_that_says_what_to_do(tmp_path, made, mode, kind, says, remedy):
    path = tmp_path / "the path"
    with socket.socket(socket.AF_UNIX) as bound:
        {FOLDER: path.mkdir, FILE: path.touch, SOCKET: lambda: bound.bind(str(path))}[made]()
    path.chmod(mode)
    found = node_at(path).judge_private("a.name", "the thing", kind)
    assert (found.name, found.severity) == ("a.name", Severity.ERROR)
    assert says in found.says
    assert remedy in found.remedy


@needs_root
def test_what_belongs_to_another_user_is_not_private(tmp_path):
    path = tmp_path / "file"
    path.touch(0o600)
    os.chown(path, NOBODY, NOBODY)
    found = node_at(path).judge_private("n", "the thing", FILE)
    assert (found.severity, found.remedy) == (Severity.ERROR, "use one of your own")
    assert f"belongs to uid {NOBODY}, not to you (uid 0)" in found.says


def test_what_is_private_is_fine(tmp_path):
    tmp_path.chmod(0o700)
    assert node_at(tmp_path).judge_private("n", "it", FOLDER).severity is Severity.OK


LOCKS = """\
1: POSIX  ADVISORY  WRITE 7 fd:01:42 0 EOF
2: FLOCK  ADVISORY  WRITE 4711 fd:01:42 0 EOF
2: -> FLOCK  ADVISORY  WRITE 4712 fd:01:42 0 EOF
3: FLOCK  ADVISORY  WRITE 4713 fd:02:42 0 EOF
4: FLOCK  ADVISORY  READ  4714 fd:01:43 0 EOF
5: FLOCK  ADVISORY  WRITE 4715 00:2a:77 0 EOF
"""


def test_the_holder_of_a_lock_is_found_by_device_and_inode():
    assert system.flock_holders(LOCKS, Node("f", FILE, device=os.makedev(0xFD, 1), inode=42)) == [4711]
    assert system.flock_holders(LOCKS, Node("f", FILE, device=os.makedev(0xFD, 1), inode=43)) == [4714]
    assert system.flock_holders(LOCKS, Node("f")) == []


def test_if_stat_shows_a_different_device_the_inode_decides():
    assert system.flock_holders(LOCKS, Node("f", FILE, device=os.makedev(0, 99), inode=77)) == [4715]


def test_a_real_lock_and_its_end_are_seen(tmp_path):
    path = tmp_path / "lock"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert system.flock_holders(read_proc("locks"), node_at(path)) == [os.getpid()]
    assert system.flock_holders(read_proc("locks"), node_at(path)) == []


def test_the_unit_is_the_last_part_of_the_cgroup():
    service = "/user.slice/user-1000.slice/user@1000.service/app.slice/agentd.service"
    assert system.unit_of(f"0::{service}\n") == "agentd.service"
    assert system.unit_of(f"9:name=systemd:/\n0::{service}\n") == "agentd.service"
    assert system.unit_of(f"9:name=systemd:{service}\n8:pids:/\n") == "agentd.service"
    assert system.unit_of("0::/user.slice/user-1000.slice/session-3.scope\n") == "session-3.scope"
    other = "8:pids:/user.slice/other.service\n"  # of a controller, where another manager may have put it
    assert system.unit_of(f"{other}0::{service}\n") == "agentd.service"
    assert system.unit_of("0::/\n") == system.unit_of("") == ""


@pytest.mark.parametrize("end", ["\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_only_a_line_feed_ends_a_line(end):
    forged = f"0::/user.slice/x{end}0::/agentd.service{end}y\n"
    assert system.unit_of(forged) == ""
    assert system.swap_devices(f"Filename\n/swap{end}/dev/sda2 x\n") == ["/swap"]


def test_reading_proc_keeps_carriage_returns(tmp_path):
    (tmp_path / "file").write_bytes(b"a\rb\r\nc\xff")
    assert read_proc(str(tmp_path / "file")) == "a\rb\r\nc\udcff"


def test_zram_is_not_swap_on_a_disk():
    head = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
    assert system.swap_devices(head) == system.swap_devices("") == []
    lines = "/dev/zram0 partition 1 0 100\n/dev/dm-1 partition 2 0 -2\n/swapfile file 3 0 -3\n"
    assert system.swap_devices(head + lines) == ["/dev/dm-1", "/swapfile"]


def test_a_missing_file_of_proc_is_empty():
    assert read_proc("no", "such", "file") == ""


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


def test_many_listeners_are_all_counted():
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


def test_without_an_answer_of_the_kernel_there_are_no_listeners(monkeypatch):
    monkeypatch.setattr(system, "_NETLINK_SOCK_DIAG", 31)  # what nothing answers for
    assert listeners("/s") == 0
