"""The counting of replies, which decides when a call is over, and the clock of another process."""

from __future__ import annotations

import os
import socket
import struct
import time

import msgpack
import pytest

from tests.bench.load import AssuanReplies, MessagePackReplies, RedisReplies, Server, SshReplies
from tests.bench.neighbours import redis_command
from tests.bench.subject import as_in_a_plain_shell

REPLY = msgpack.packb((1, 7, None, {"valid": True}))


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.mark.parametrize(
    ("replies", "reply"),
    [
        (MessagePackReplies, REPLY),
        (RedisReplies, b"+OK\r\n"),
        (RedisReplies, b"$3\r\nabc\r\n"),
        (AssuanReplies, b"D 2.2.40\nOK\n"),
        (SshReplies, struct.pack(">IB", 5, 12) + bytes(4)),
    ],
)
def test_a_reply_counts_once_and_only_when_all_of_it_is_there(pair, replies, reply):
    ours, theirs = pair
    if replies is AssuanReplies:
        theirs.sendall(b"OK Pleased to meet you\n")
    counted = replies(ours)
    for _ in range(2):
        for at, byte in enumerate(reply):
            theirs.sendall(bytes([byte]))
            assert counted.take() == (at == len(reply) - 1)


@pytest.mark.parametrize(
    ("replies", "reply"),
    [
        (MessagePackReplies, msgpack.packb((1, 7, [1, "LOCKED: locked"], None))),
        (RedisReplies, b"-ERR unknown command\r\n"),
        (AssuanReplies, b"ERR 67109139 Unknown IPC command\n"),
    ],
)
def test_a_refusal_is_no_figure(pair, replies, reply):
    ours, theirs = pair
    if replies is AssuanReplies:
        theirs.sendall(b"OK Pleased to meet you\n")
    counted = replies(ours)
    theirs.sendall(reply)
    with pytest.raises(RuntimeError):
        counted.take()


def test_many_replies_in_one_read_all_count(pair):
    ours, theirs = pair
    theirs.sendall(REPLY * 3)
    assert MessagePackReplies(ours).take() == 3


def test_the_processor_time_of_a_process_is_what_it_says_itself():
    server = Server(os.getpid(), "")
    before, between, after = time.process_time(), server.processor_seconds(), time.process_time()
    assert before <= between <= after


def test_a_redis_command_is_an_array_of_bulk_strings():
    assert redis_command(b"GET", b"key") == b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n"


def test_what_is_timed_gets_none_of_pythons_settings(monkeypatch):
    monkeypatch.setattr(os, "environ", {"PYTHONDONTWRITEBYTECODE": "1", "PATH": "/bin"})
    as_in_a_plain_shell()
    assert os.environ == {"PATH": "/bin"}
