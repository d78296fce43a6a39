from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from agentd.process_identity import Process, identify, is_alive
from agentd.server import peer
from agentd.server.peer import Peer, describe_peer, peer_of
from agentd_client.protocol.limits import MAX_SHOWN_CHARACTERS
from agentd_client.protocol.results import PeerIdentity

PEER = Peer(1000, 100, Process(42, 7, "boot"))


@pytest.fixture
def proc(tmp_path, monkeypatch):
    """A stand-in for /proc/42 that tells what a test wants."""
    monkeypatch.setattr(peer, "PROC", str(tmp_path))
    monkeypatch.setattr(peer, "is_alive", lambda process: process == PEER.process)
    folder = tmp_path / "42"
    folder.mkdir()
    return folder


def executable(proc, name: bytes) -> str | None:
    os.symlink(name, os.fsencode(proc / "exe"))
    return describe_peer(PEER).exe


def unit(proc, *lines: bytes) -> str | None:
    (proc / "cgroup").write_bytes(b"".join(line + b"\n" for line in lines))
    return describe_peer(PEER).unit


def test_the_peer_is_who_the_kernel_reports():
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        found = peer_of(one)
    assert (found.uid, found.gid, found.pid) == (os.geteuid(), os.getegid(), os.getpid())
    assert is_alive(found.process)


def test_a_running_process_is_described_by_what_it_executes():
    mine = identify(os.getpid())
    assert mine is not None
    me = describe_peer(Peer(os.geteuid(), os.getegid(), mine))
    assert me[:2] == (os.geteuid(), os.getpid())
    # The latter where the tests were started by a script: pytest's own, or coverage's.
    own_name = Path("/proc/self/comm").read_text().strip()
    assert me.exe in (os.path.realpath(sys.executable), f"[{own_name}]")


def test_a_process_that_is_gone_is_described_by_its_numbers():
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert describe_peer(Peer(5, 6, Process(gone.pid, 7, "boot"))) == PeerIdentity(5, gone.pid, None, None)


def test_a_process_whose_pid_is_anothers_by_now_is_described_by_its_numbers(proc):
    os.symlink("/bin/another", proc / "exe")
    (proc / "cgroup").write_text("0::/another.service\n")
    for earlier in (PEER.process._replace(started=6), PEER.process._replace(started=None)):
        assert describe_peer(PEER._replace(process=earlier)) == PeerIdentity(1000, 42, None, None)


@pytest.mark.parametrize("pid", [0, -1])
def test_a_peer_of_another_pid_namespace_is_described_by_its_numbers(pid):
    assert describe_peer(Peer(5, 6, Process(pid, None, ""))) == PeerIdentity(5, pid, None, None)


def test_what_may_not_be_read_is_not_known(proc):
    # What /proc says of a process that is not dumpable, or outside of the reader's user namespace: EACCES.
    # Here another refusal has to do, because root is refused nothing.
    (proc / "exe").write_text("no link: EINVAL")
    (proc / "cgroup").mkdir()  # EISDIR
    assert describe_peer(PEER) == PeerIdentity(1000, 42, None, None)


@pytest.mark.parametrize(
    ("exe", "comm", "shown"),
    [
        ("/usr/bin/python3.11", "agentctl", "[agentctl]"),
        ("/usr/bin/perl", "backup.pl", "[backup.pl]"),
        ("/usr/bin/bash", "deploy\x1b", "[deploy\ufffd]"),
        ("/usr/bin/python3.11", "python3", "/usr/bin/python3.11"),
        ("/usr/bin/bash", "bash", "/usr/bin/bash"),
        ("/usr/bin/node", "MainThread", "/usr/bin/node"),
        ("/usr/bin/python3.11", "", "/usr/bin/python3.11"),
        ("/usr/bin/python3.11", None, "/usr/bin/python3.11"),
        ("/usr/bin/pythonista", "x", "/usr/bin/pythonista"),
        ("/usr/bin/nvim", "evil", "/usr/bin/nvim"),
    ],
)
def test_a_script_is_shown_by_its_name_and_not_as_its_interpreter(proc, exe, comm, shown):
    if comm is not None:
        (proc / "comm").write_text(comm + "\n")
    assert executable(proc, exe.encode()) == shown


def test_a_real_script_is_shown_by_its_name(tmp_path):
    script = tmp_path / "my-tool"
    script.write_text("#!/bin/sh\necho runs\nread end\n")
    script.chmod(0o755)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([script, "--password", "s3cret"], **pipes) as child:
        assert child.stdout.readline() == b"runs\n"
        found = describe_peer(Peer(1000, 1000, identify(child.pid)))
    assert found.exe == "[my-tool]"


def test_the_command_line_the_environment_and_the_name_that_a_process_gives_itself_are_not_told(proc):
    for name in ("cmdline", "environ", "comm", "status", "stat"):
        (proc / name).write_text("s3cret")
    (proc / "cgroup").write_text("0::/a.service\n")
    os.symlink("/bin/x", proc / "exe")
    assert describe_peer(PEER) == PeerIdentity(1000, 42, "/bin/x", "a.service")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"/usr/bin/nvim", "/usr/bin/nvim"),
        (b"/tmp/gone (deleted)", "/tmp/gone (deleted)"),
        (b"/home/m\xc3\xa9/x", "/home/mé/x"),
        (b"/home/\xff/x", "/home/\ufffd/x"),
        (b"/a\x1b[31m\n\x7fb", "/a\ufffd[31m\ufffd\ufffdb"),
        ("/a\u202eb\u2028c\u200bd".encode(), "/a\ufffdb\ufffdc\ufffdd"),
    ],
)
def test_an_executable_is_fit_to_be_shown(proc, name, shown):
    assert executable(proc, name) == shown


@pytest.mark.parametrize("character", ["x", "é", "ん", "😀", "\x01"])
def test_a_long_name_is_cut_and_no_longer_in_bytes_than_in_characters(proc, character):
    found = executable(proc, ("/" + character * 400).encode())
    assert found is not None
    assert MAX_SHOWN_CHARACTERS - 4 < len(found.encode()) <= MAX_SHOWN_CHARACTERS
    assert found.strip(found[1]) == "/"


UNITS = {
    "app-editor-77.scope": b"0::/user.slice/user-1000.slice/user@1000.service/app.slice/app-editor-77.scope",
    "backup.service": b"0::/user.slice/user-1000.slice/user@1000.service/app.slice/backup.service",
    "session-3.scope": b"0::/user.slice/user-1000.slice/session-3.scope",
    "worker.service": b"0::/system.slice/worker.service/inner/deeper",
    "a:b.service": b"0::/a:b.service",
    "a\ufffd.service": b"0::/a\x1b.service",
}


@pytest.mark.parametrize(("name", "line"), UNITS.items(), ids=UNITS)
def test_the_unit_is_the_last_one_of_the_cgroup(proc, name, line):
    assert unit(proc, b"12:pids:/other.service", line, b"1:cpu:/another.scope") == name


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [b"0::/"],
        [b"0::/user.slice/user-1000.slice"],
        [b"0::/process_api/2d8ddb003e9d"],
        [b"4:memory:/a.service"],
        [b"1:name=systemd:/a.service"],
    ],
)
def test_a_process_of_no_unit_has_none(proc, lines):
    assert unit(proc, *lines) is None
