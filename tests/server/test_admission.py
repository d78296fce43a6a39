"""Who is let in at which socket, and how many: nobody can keep the owner, or other users, out."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack, asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from agentd.methods import verify_dispatch
from agentd.process_identity import Process
from agentd.server import askers, owner_only, serve_connections, server, verifiers
from agentd.server.admission import OTHERS_SLICE_SECONDS, Admission
from agentd.server.connection import SLICE_SECONDS
from agentd.server.log import Traffic
from agentd.server.peer import Peer
from agentd_client.protocol.limits import (
    MAX_ASK_CONNECTIONS,
    MAX_ASK_CONNECTIONS_OF_UID,
    MAX_CONNECTIONS,
    MAX_VERIFY_CONNECTIONS,
    MAX_VERIFY_CONNECTIONS_OF_UID,
)
from tests.server.talk import LOGGER, FakeAgent, Talker, dispatch_of, msgids, verify

OWNER, ALICE, BOB, CAROL = os.geteuid(), 1001, 1002, 1003
VERIFY = Admission(None, connections=4, connections_of_uid=3, slice_seconds=0)


@pytest.fixture
def folder(tmp_path):
    return tmp_path


@pytest.fixture
def peers(monkeypatch):
    """Whom the kernel names, one connection after the other, by user or user and pid; the owner afterwards."""
    named: list[int | tuple[int, int]] = []

    def peer_of(sock):
        who = named.pop(0) if named else OWNER
        uid, pid = who if isinstance(who, tuple) else (who, 42)
        return Peer(uid, 100, Process(pid, 1, "boot"))

    monkeypatch.setattr(server, "peer_of", peer_of)
    return named


@pytest.fixture
def serving(sessions, folder):
    @asynccontextmanager
    async def serving(admission, name="verify", traffic=None):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(folder / name))
            listener.listen(128)
            stop = trio.Event()
            only = verify_dispatch(FakeAgent(sessions), version="1", logger=LOGGER, traffic=traffic)
            async with trio.open_nursery() as nursery:
                await nursery.start(
                    lambda task_status: serve_connections(
                        listener,
                        dispatch_of(sessions) if admission is None else only,
                        logger=LOGGER,
                        stop=stop,
                        admission=admission,
                        task_status=task_status,
                    )
                )
                yield str(folder / name)
                stop.set()

    return serving


async def answered(talker: Talker) -> bool:
    try:
        await talker.send(verify(1))
    except BrokenPipeError:
        return False
    return msgids(await talker.replies(1)) == [1]


async def working(held: ExitStack, path: str) -> Talker:
    """A connection with a request that waits for the gate of "counted", and so is not idle."""
    talker = held.enter_context(await Talker.connect(path))
    await talker.send(verify(1, "counted"))
    await wait_all_tasks_blocked()
    return talker


async def test_where_nothing_is_said_the_owner_alone_is_let_in(serving, peers, log):
    peers[:] = [ALICE, 0 if OWNER else 1, OWNER]
    async with serving(None) as path:
        outcomes = []
        for _ in range(3):
            with await Talker.connect(path) as talker:
                outcomes.append(await answered(talker))
    assert outcomes == [False, False, True]
    assert "uid=1001 pid=42 refused: another user" in log.text


async def test_at_the_verify_socket_every_user_is_answered(serving, peers):
    peers[:] = [ALICE, BOB, OWNER]
    async with serving(VERIFY) as path:
        for _ in range(3):
            with await Talker.connect(path) as talker:
                assert await answered(talker)


async def test_a_peer_that_the_kernel_says_nothing_of_is_refused_there_too(serving, peers, monkeypatch, log):
    def unknown(sock):
        raise OSError

    monkeypatch.setattr(server, "peer_of", unknown)
    async with serving(VERIFY) as path:
        with await Talker.connect(path) as talker:
            assert await talker.everything() == []
    assert "does not say who" in log.text


async def test_a_user_with_all_of_its_share_is_refused_one_more_and_nobody_else_is(
    serving, sessions, peers, log
):
    gate = sessions.gate("counted")
    peers[:] = [ALICE] * 4 + [BOB]
    async with serving(VERIFY) as path:
        with ExitStack() as held:
            busy = [await working(held, path) for _ in range(3)]
            with await Talker.connect(path) as fourth:
                assert await fourth.everything() == []
            with await Talker.connect(path) as of_bob:
                assert await answered(of_bob)
            gate.set()
            for talker in busy:
                assert msgids(await talker.replies(1)) == [1]
    assert log.messages == ["peer uid=1001 pid=42 refused: too many connections (the limit of one user is 3)"]


async def test_who_has_used_up_a_share_makes_room_out_of_it(serving, peers, log):
    peers[:] = [BOB, ALICE, ALICE, ALICE, ALICE]
    async with serving(VERIFY._replace(connections=8)) as path:
        with ExitStack() as held:
            of_bob, idle_longest, other, third = [
                held.enter_context(await Talker.connect(path)) for _ in range(4)
            ]
            for talker in (of_bob, idle_longest, other, third):
                assert await answered(talker)
            assert await answered(held.enter_context(await Talker.connect(path)))
            assert await idle_longest.everything() == []
            assert await answered(of_bob), "though that was idle for longer"
            assert await answered(other)
    assert log.messages == [
        "peer uid=1001 pid=42 closed: idle longest, to make room for another (the limit of one user is 3)"
    ]


async def test_a_full_socket_makes_room_among_all_of_its_users(serving, peers, log):
    peers[:] = [ALICE, ALICE, ALICE, BOB, CAROL]
    async with serving(VERIFY) as path:
        with ExitStack() as held:
            talkers = [held.enter_context(await Talker.connect(path)) for _ in range(4)]
            for talker in talkers:
                assert await answered(talker)
            assert await answered(held.enter_context(await Talker.connect(path)))
            assert await talkers[0].everything() == []
    assert "the limit is 4" in log.text


async def test_the_other_sockets_have_room_however_full_one_for_others_is(serving, sessions, peers):
    peers[:] = [ALICE] * 3 + [BOB] + [ALICE]
    gate = sessions.gate("counted")
    traffic = Traffic()
    async with (
        serving(VERIFY, traffic=traffic) as second,
        serving(VERIFY, "ask") as third,
        serving(None, "agent") as owners,
    ):
        with ExitStack() as held:
            for _ in range(4):
                await working(held, second)
            assert traffic.connections_open == 4
            with await Talker.connect(second) as refused:
                assert await refused.everything() == []
            for other in (owners, third):
                with await Talker.connect(other) as talker:
                    assert await answered(talker)
            gate.set()
    assert (traffic.connections, traffic.connections_open, traffic.peers_refused) == (5, 0, 1)


async def test_two_sockets_are_counted_together(serving, sessions):
    traffic = Traffic()
    async with serving(VERIFY, "one", traffic) as one, serving(VERIFY, "two", traffic) as two:
        with await Talker.connect(one) as first, await Talker.connect(two) as second:
            assert await answered(first)
            assert await answered(second)
            assert (traffic.connections, traffic.connections_open, traffic.requests) == (2, 2, 2)
    assert traffic.connections_open == 0


async def test_requests_of_the_verify_socket_leave_the_others_a_turn_after_a_few(
    serving, sessions, monkeypatch
):
    turns = []
    verify_nowait = sessions.verify_nowait

    def counting(token, **named):
        turns.append(token)
        return verify_nowait(token, **named)

    monkeypatch.setattr(sessions, "verify_nowait", counting)
    async with serving(VERIFY) as second, serving(None, "agent") as owners:
        with await Talker.connect(second) as flooding, await Talker.connect(owners) as owner:
            for _ in range(20):  # whose turn comes first is left to chance
                turns.clear()
                # Both have sent before either is read.
                await flooding.send(*(verify(number, "flood") for number in range(64)))
                await owner.send(verify(1, "owner"))
                assert msgids(await owner.replies(1)) == [1]
                await flooding.replies(64)
                assert turns.index("owner") <= 4
                assert len(turns) == 65


def test_the_limits_of_the_sockets():
    assert owner_only() == Admission(OWNER, MAX_CONNECTIONS, MAX_CONNECTIONS, SLICE_SECONDS)
    assert verifiers() == Admission(
        None, MAX_VERIFY_CONNECTIONS, MAX_VERIFY_CONNECTIONS_OF_UID, OTHERS_SLICE_SECONDS
    )
    assert askers() == Admission(None, MAX_ASK_CONNECTIONS, MAX_ASK_CONNECTIONS_OF_UID, OTHERS_SLICE_SECONDS)
    for of_others in (verifiers(), askers()):
        assert of_others.connections_of_uid < of_others.connections
        assert of_others.slice_seconds < SLICE_SECONDS
