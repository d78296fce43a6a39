from __future__ import annotations

import fcntl
import math
import os

import pytest

from agentd.doctor import proc
from agentd.doctor.node import FILE, Node, look

LOCKS = """\
1: POSIX  ADVISORY  WRITE 7 fd:01:42 0 EOF
2: FLOCK  ADVISORY  WRITE 4711 fd:01:42 0 EOF
2: -> FLOCK  ADVISORY  WRITE 4712 fd:01:42 0 EOF
3: FLOCK  ADVISORY  WRITE 4713 fd:02:42 0 EOF
4: FLOCK  ADVISORY  READ  4714 fd:01:43 0 EOF
5: FLOCK  ADVISORY  WRITE 4715 00:2a:77 0 EOF
"""


def test_the_holder_of_a_lock_is_found_by_device_and_inode():
    assert proc.flock_holders(LOCKS, Node("f", FILE, device=os.makedev(0xFD, 1), inode=42)) == [4711]
    assert proc.flock_holders(LOCKS, Node("f", FILE, device=os.makedev(0xFD, 1), inode=43)) == [4714]
    assert proc.flock_holders(LOCKS, Node("f")) == []


def test_where_the_file_system_has_another_device_for_stat_the_inode_has_to_do():
    assert proc.flock_holders(LOCKS, Node("f", FILE, device=os.makedev(0, 99), inode=77)) == [4715]


def test_a_real_lock_is_seen_and_its_end_too(tmp_path):
    path = tmp_path / "lock"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert proc.flock_holders(proc.read("locks"), look(path)) == [os.getpid()]
    assert proc.flock_holders(proc.read("locks"), look(path)) == []


def test_the_unit_is_the_last_part_of_the_cgroup():
    service = "/user.slice/user-1000.slice/user@1000.service/app.slice/agentd.service"
    assert proc.unit_of(f"0::{service}\n") == "agentd.service"
    assert proc.unit_of(f"9:name=systemd:/\n0::{service}\n") == "agentd.service"
    assert proc.unit_of(f"9:name=systemd:{service}\n8:pids:/\n") == "agentd.service"
    assert proc.unit_of("0::/user.slice/user-1000.slice/session-3.scope\n") == "session-3.scope"
    assert proc.unit_of("0::/\n") == proc.unit_of("") == ""


@pytest.mark.parametrize("end", ["\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_only_a_line_feed_ends_a_line(end):
    forged = f"0::/user.slice/x{end}0::/agentd.service/y\n"
    assert proc.unit_of(forged) == ""
    assert proc.swap_devices(f"Filename\n/swap{end}/dev/sda2 x\n") == ["/swap"]


def test_what_is_read_keeps_its_carriage_returns(tmp_path, monkeypatch):
    monkeypatch.setattr(proc, "PROC", tmp_path)
    (tmp_path / "file").write_bytes(b"a\rb\r\nc\xff")
    assert proc.read("file") == "a\rb\r\nc\udcff"


def test_limits():
    text = "Limit                     Soft Limit           Hard Limit           Units\n"
    text += "Max core file size        0                    unlimited            bytes\n"
    text += "Max locked memory         unlimited            unlimited            bytes\n"
    assert proc.soft_limit(text, "Max core file size") == 0
    assert proc.soft_limit(text, "Max locked memory") == math.inf
    assert proc.soft_limit(text, "Max pending signals") is None
    assert proc.soft_limit(proc.read("self", "limits"), "Max open files")


def test_swap_in_memory_is_none():
    head = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
    assert proc.swap_devices(head) == proc.swap_devices("") == []
    lines = "/dev/zram0 partition 1 0 100\n/dev/dm-1 partition 2 0 -2\n/swapfile file 3 0 -3\n"
    assert proc.swap_devices(head + lines) == ["/dev/dm-1", "/swapfile"]


def test_what_is_not_there_is_empty():
    assert proc.read("no", "such", "file") == ""
