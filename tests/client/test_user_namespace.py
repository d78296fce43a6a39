"""A uid that stands for everybody is nobody's: neither trusted at a socket nor as a file's owner."""

from __future__ import annotations

import os
import socket

import pytest

from agentd_client import private, user_namespace
from agentd_client.errors import ForeignAgentError
from agentd_client.transport.connection import Connection
from agentd_client.user_namespace import own_uid_fault, stands_for_others
from tests.other_user import NOBODY, as_user, needs_root

ALL = "         0          0 4294967295\n"
PART = "0 100000 65536\n"  # as in a rootless container, where 65534 is a user of its own as well


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """Makes a stand-in for /proc, which says what a test wants; what is None is not there."""

    def say(uid_map: str | None, overflow: str | None = "65534\n") -> None:
        (tmp_path / "sys/kernel").mkdir(parents=True)
        (tmp_path / "self").mkdir()
        if overflow is not None:
            (tmp_path / "sys/kernel/overflowuid").write_text(overflow)
        if uid_map is not None:
            (tmp_path / "self/uid_map").write_text(uid_map)

    monkeypatch.setattr(user_namespace, "_PROC", str(tmp_path))
    monkeypatch.setattr(user_namespace, "_overflow_uid", None)
    return say


@pytest.mark.parametrize(
    ("uid_map", "uids"),
    [
        (ALL, set()),
        ("", {65534}),
        (PART, {65534}),
        ("1000 1000 1\n0 100000 1000\n", {65534}),
        (None, {65534}),
    ],
    ids=["all are mapped", "nobody is", "some are", "two ranges", "nobody knows"],
)
def test_the_overflow_uid_stands_for_others_unless_every_user_is_mapped(kernel, uid_map, uids):
    kernel(uid_map)
    assert {uid for uid in (0, 1000, 65533, 65534) if stands_for_others(uid)} == uids


def test_the_overflow_uid_is_the_one_that_the_kernel_has(kernel):
    kernel(PART, "1000\n")
    assert [uid for uid in (0, 1000, 65534) if stands_for_others(uid)] == [1000]


def test_where_the_kernel_does_not_say_it_is_the_usual_one(kernel):
    kernel(PART, None)
    assert [uid for uid in (0, 1000, 65534) if stands_for_others(uid)] == [65534]


def test_a_kernel_without_user_namespaces_maps_everybody(kernel, tmp_path):
    kernel(None)
    (tmp_path / "self/status").write_text("")
    assert not stands_for_others(65534)


@needs_root
def test_in_the_first_user_namespace_nobody_is_a_user_as_any_other():
    assert as_user(own_uid_fault, NOBODY) is None


@pytest.fixture
def listener(tmp_path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "sock"))
        listener.listen()
        yield listener


def test_a_listener_that_looks_like_oneself_and_may_be_anybody_is_sent_nothing(kernel, listener):
    kernel("", f"{os.geteuid()}\n")
    with pytest.raises(
        ForeignAgentError, match=r"anybody may listen .* nothing was sent: .* others look like you"
    ):
        Connection.open(listener.getsockname())
    listener.setblocking(False)
    accepted, _ = listener.accept()
    with accepted:
        assert accepted.recv(1) == b""


def test_nor_is_one_that_was_asked_for_by_that_number(kernel, listener, monkeypatch):
    kernel("", f"{os.geteuid()}\n")
    theirs = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: theirs + 1)
    with pytest.raises(ForeignAgentError, match="uid .* stands for everybody"):
        Connection.open(listener.getsockname(), agent_uid=theirs)


def test_a_file_that_anybody_may_own_is_not_private(kernel, tmp_path):
    (tmp_path / "file").touch(0o600)
    found = os.stat(tmp_path / "file")
    assert private.private_fault(tmp_path / "file", found) is None
    user_namespace._overflow_uid = None
    kernel("", f"{os.geteuid()}\n")
    fault = private.private_fault(tmp_path / "file", found)
    assert fault is not None
    assert fault.reason == "anybody may be its owner"
