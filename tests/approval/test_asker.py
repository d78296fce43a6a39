"""What /proc shows of who asks."""

from __future__ import annotations

import os
import subprocess

import pytest

from agentd.approval import asker
from agentd.approval.asker import Asker, Program, is_related, program_of, sandbox_of
from agentd.process_identity import Process, identify
from agentd_client.protocol.results import ASK_SOCKET, PeerIdentity
from tests.children import child
from tests.other_user import NOBODY


def test_an_ordinary_process_is_in_no_sandbox_and_an_ended_one_in_none_either():
    with child() as process:
        found = identify(process.pid)
    assert sandbox_of(found) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--user"], "own user namespace"),
        (["--pid", "--fork"], "own PID namespace"),
        (["--mount"], "own mount namespace"),
    ],
)
def test_namespaces_show(options, words):
    command = ["unshare", *options, "sh", "-c", "echo ready; exec cat"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        if process.stdout.readline() != b"ready\n":
            pytest.skip(f"no namespaces here: {process.stderr.read().decode()}")
        pid = process.pid
        if "--fork" in options:
            with open(f"/proc/{pid}/task/{pid}/children") as children:
                pid = int(children.read().split()[0])
        assert words in sandbox_of(identify(pid))
        process.stdin.close()


def test_a_service_is_one_program_unless_all_other_users_look_like_one(monkeypatch):
    """As in the unit's sandbox, where a service of the same name may be another user's."""
    monkeypatch.setattr(asker, "stands_for_others", lambda uid: uid == NOBODY)

    def program(uid: int, pid: int) -> Program:
        identity = PeerIdentity(uid, pid, None, "build.service")
        return program_of(Asker(identity, Process(pid, 1, "boot"), ASK_SOCKET))

    assert program(1000, 7) == program(1000, 8)
    assert program(1000, 7).key != program(1001, 7).key
    assert program(NOBODY, 7).key != program(NOBODY, 8).key
    assert program(NOBODY, 7) == program(NOBODY, 7)


def test_a_parent_and_a_child_are_related_and_siblings_are_not():
    me = identify(os.getpid())
    with child() as first, child() as second:
        one, other = identify(first.pid), identify(second.pid)
        assert is_related(one, one)
        assert is_related(one, me)
        assert is_related(me, one)
        assert not is_related(one, other)


def test_a_process_that_cannot_be_seen_counts_as_related():
    me = identify(os.getpid())
    assert is_related(Process(0, None, ""), me)
    with child() as process:
        gone = identify(process.pid)
        process.kill()
        process.wait()
        assert is_related(gone, me)
