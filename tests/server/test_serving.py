from __future__ import annotations

import contextlib
import errno
import itertools
import os
import resource
import select
import socket
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgpack
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from agentd.process_identity import Process
from agentd.server import admission, connection, serve_connections, server
from agentd.server.log import PeerLog, Reason, Traffic
from agentd.server.outbox import LAST_EVENTS_SECONDS
from agentd.server.peer import Peer
from agentd_client.protocol.limits import MAX_EVENTS_WAITING
from agentd_client.protocol.methods import read_event
from tests.server.talk import (
    LOGGER,
    FakeSessions,
    Talker,
    create,
    dispatch_of,
    event,
    msgids,
    subscribe,
    verify,
)

SECRET = "v4.local.s3cret"


@pytest.fixture
def serving(sessions, listener):
    @asynccontextmanager
    async def serving(listener=listener, **options: object) -> AsyncIterator[trio.Event]:
        """Serve; leaving the block stops gracefully and waits for the end."""
        stop = trio.Event()
        async with trio.open_nursery() as nursery:
            await nursery.start(
                lambda task_status: serve_connections(
                    listener,
                    dispatch_of(sessions),
                    logger=LOGGER,
                    stop=stop,
                    task_status=task_status,
                    **options,
                )
            )
            yield stop
            stop.set()

    return serving


async def emit_more_than_a_socket_takes(sessions: FakeSessions) -> None:
    for _ in range(20):
        sessions.emit(*[event(label="a long label " * 15)] * MAX_EVENTS_WAITING)
        await wait_all_tasks_blocked()


async def test_many_connections_are_served_at_once(serving, sessions, path):
    gate = sessions.gate("slow")
    async with serving():
        talkers = [await Talker.connect(path) for _ in range(20)]
        await talkers[0].send(create(1, "slow"))
        for talker in talkers[1:]:
            await talker.send(verify(2))
            assert msgids(await talker.replies(1)) == [2]
        gate.set()
        assert msgids(await talkers[0].replies(1)) == [1]
        for talker in talkers:
            talker.sock.close()


async def test_only_connections_that_wait_for_something_have_a_task(serving, sessions, path):
    def tasks() -> int:
        return trio.lowlevel.current_statistics().tasks_living

    gate = sessions.gate("slow")
    async with serving():
        await wait_all_tasks_blocked()
        before = tasks()
        with contextlib.ExitStack() as held:
            talkers = [held.enter_context(await Talker.connect(path)) for _ in range(20)]
            for talker in talkers * 2:
                await talker.send(verify(1))
                assert msgids(await talker.replies(1)) == [1]
            await wait_all_tasks_blocked()
            assert tasks() == before
            await talkers[0].send(create(2, "slow"))
            await wait_all_tasks_blocked()
            assert tasks() > before
            gate.set()
            assert msgids(await talkers[0].replies(1)) == [2]
        await wait_all_tasks_blocked()
        assert tasks() == before


async def test_connections_without_a_task_are_closed_where_serving_is_cancelled(serving, path):
    with trio.CancelScope() as scope:
        async with serving():
            talker = await Talker.connect(path)
            await talker.send(verify(1))
            await talker.replies(1)
            scope.cancel()
    with talker:
        assert await talker.everything() == []


async def test_a_connection_that_broke_the_rules_takes_no_other_down(serving, path):
    async with serving():
        with await Talker.connect(path) as bad, await Talker.connect(path) as good:
            await bad.send(b"\xc1")
            assert msgids(await bad.everything()) == [0]
            await good.send(verify(1))
            assert msgids(await good.replies(1)) == [1]


async def test_a_copy_of_a_closed_connections_descriptor_does_no_harm(serving, path):
    """A forked child has copies of every descriptor, which keep what was closed in an epoll."""
    async with serving():
        with await Talker.connect(path) as gone, contextlib.ExitStack() as copies:
            await gone.send(verify(1))
            await gone.replies(1)
            for name in os.listdir("/proc/self/fd"):
                with contextlib.suppress(OSError):
                    copies.callback(os.close, os.dup(int(name)))
            gone.sock.shutdown(socket.SHUT_RDWR)
            await wait_all_tasks_blocked()
            for _ in range(3):
                with await Talker.connect(path) as next_one:
                    await next_one.send(verify(1))
                    assert msgids(await next_one.replies(1)) == [1]


class FailingAtOnce(connection.Connection):
    def _receive(self) -> bool:
        raise RuntimeError(SECRET)


class FailingInItsTask(connection.Connection):
    def answer_nowait(self) -> bool:
        return False

    async def _read(self) -> None:
        raise RuntimeError(SECRET)


@pytest.mark.parametrize("failing", [FailingAtOnce, FailingInItsTask])
async def test_a_connection_that_fails_is_logged_and_takes_no_other_down(
    serving, path, log, monkeypatch, failing
):

    async with serving():
        with await Talker.connect(path) as good:
            await good.send(verify(1))
            await good.replies(1)
            monkeypatch.setattr(server, "Connection", failing)
            with await Talker.connect(path) as bad:
                assert await bad.everything() == []
            await good.send(verify(2))
            assert msgids(await good.replies(1)) == [2]
    assert "RuntimeError" in log.text
    assert SECRET not in log.text


# --- who may connect --------------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_another_user_is_closed_before_a_byte_is_read(serving, log, monkeypatch):
    made = []
    monkeypatch.setattr(server, "Connection", lambda *args: made.append(args))
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        os.chmod(folder, 0o755)  # and the worst case of a socket's mode as well
        listener.bind(f"{folder}/sock")
        os.chmod(f"{folder}/sock", 0o777)
        listener.listen()
        async with serving(listener):
            child = os.fork()
            if child == 0:  # nothing but system calls until the end: it shares trio's epoll
                status = 1
                try:
                    os.setresgid(65534, 65534, 65534)
                    os.setresuid(65534, 65534, 65534)
                    with socket.socket(socket.AF_UNIX) as sock:
                        sock.connect(f"{folder}/sock")
                        try:
                            sock.send(verify(1))
                            received = sock.recv(100)
                        except (BrokenPipeError, ConnectionResetError):
                            received = b""
                        status = 0 if received == b"" else 2
                finally:
                    os._exit(status)
            _, status = await trio.to_thread.run_sync(os.waitpid, child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert made == []
    assert log.messages == [f"peer uid=65534 pid={child} refused: another user"]


async def test_the_uid_of_the_agent_is_what_decides(serving, path, log, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    async with serving():
        with await Talker.connect(path) as talker:
            assert await talker.everything() == []
    assert "another user" in log.text


async def test_a_peer_that_the_kernel_says_nothing_of_is_refused(serving, path, log, monkeypatch):
    def unknown(sock):
        raise OSError(errno.ENOPROTOOPT, "")

    monkeypatch.setattr(server, "peer_of", unknown)
    async with serving():
        with await Talker.connect(path) as talker:
            assert await talker.everything() == []
    assert "does not say who" in log.text


async def test_connections_over_the_limit_are_closed_and_told_to_the_log(
    serving, sessions, path, log, monkeypatch, autojump_clock
):
    monkeypatch.setattr(admission, "MAX_CONNECTIONS", 2)
    gate = sessions.gate("slow")
    async with serving():
        with await Talker.connect(path) as first, await Talker.connect(path) as second:
            for talker in (first, second):
                await talker.send(create(1, "slow"))
            await wait_all_tasks_blocked()
            for _ in range(50):
                with await Talker.connect(path) as third:
                    assert await third.everything() == []
            gate.set()
            for talker in (first, second):
                assert msgids(await talker.replies(1)) == [1]
        await wait_all_tasks_blocked()
        with await Talker.connect(path) as again:
            await again.send(verify(1))
            assert msgids(await again.replies(1)) == [1]
    refused = "refused: too many connections (the limit is 2)"
    assert [message.endswith(refused) for message in log.messages] == [True] * 50


NOTIFICATION = msgpack.packb([2, "anything", [{}]])


async def test_a_connection_that_only_begins_messages_or_sends_notifications_is_idle(
    serving, path, log, monkeypatch
):
    monkeypatch.setattr(admission, "MAX_CONNECTIONS", 2)
    async with serving():
        with await Talker.connect(path) as dribbling, await Talker.connect(path) as used:
            await dribbling.send(NOTIFICATION + NOTIFICATION[:3])
            await used.send(verify(1))
            await used.replies(1)
            await dribbling.send(NOTIFICATION[3:] + NOTIFICATION[:3])
            await wait_all_tasks_blocked()
            with await Talker.connect(path) as new:
                await new.send(verify(2))
                assert msgids(await new.replies(1)) == [2]
                assert await dribbling.everything() == []
                await used.send(verify(3))
                assert msgids(await used.replies(1)) == [3]
    assert len(log.messages) == 1
    assert "closed: idle longest" in log.messages[0]


async def test_who_has_to_go_and_takes_no_replies_is_cut_off_in_the_end(
    serving, path, log, monkeypatch, autojump_clock
):
    """Nor does that take the time that a peer has for its replies."""
    monkeypatch.setattr(admission, "MAX_CONNECTIONS", 4)
    pids = itertools.count(100)
    monkeypatch.setattr(
        server, "peer_of", lambda sock: Peer(os.geteuid(), 100, Process(next(pids), 1, "boot"))
    )
    async with serving():
        began = trio.current_time()
        with contextlib.ExitStack() as held:
            for _ in range(7):
                talker = held.enter_context(await Talker.connect(path))
                await wait_all_tasks_blocked()
                with contextlib.suppress(BlockingIOError):
                    while True:  # requests whose replies nobody takes, as many as the socket holds
                        talker.sock._sock.send(verify(1) * 100)
            await wait_all_tasks_blocked()
        assert trio.current_time() == began
    assert any("cut off: had to make room" in message for message in log.messages)


async def test_a_full_queue_is_accepted_in_a_few_turns(serving, path, monkeypatch):
    turns = []

    async def wait_readable(source: socket.socket | select.epoll) -> None:
        if isinstance(source, socket.socket):
            turns.append(source)
        await trio.lowlevel.wait_readable(source)

    monkeypatch.setattr(server, "wait_readable", wait_readable)
    async with serving():
        talkers = [await Talker.connect(path) for _ in range(64)]  # which takes no turn of the loop
        for talker in talkers:
            with talker:
                await talker.send(verify(1))
                assert msgids(await talker.replies(1)) == [1]
    assert len(turns) <= 64 / (server.ACCEPT_BATCH * admission.MAX_CONNECTIONS) + 2


async def test_the_connection_that_is_idle_longest_makes_room_for_a_new_one(
    serving, sessions, path, log, monkeypatch
):
    monkeypatch.setattr(admission, "MAX_CONNECTIONS", 3)
    gate = sessions.gate("slow")
    async with serving():
        with (
            await Talker.connect(path) as busy,
            await Talker.connect(path) as used,
            await Talker.connect(path) as unused,
        ):
            await busy.send(create(1, "slow"))
            await wait_all_tasks_blocked()
            await used.send(verify(1))
            await used.replies(1)
            with await Talker.connect(path) as new:
                await new.send(verify(2))
                assert msgids(await new.replies(1)) == [2]
                assert await unused.everything() == []
                with pytest.raises(BrokenPipeError):
                    await unused.sock.send(verify(3))
                await used.send(verify(4))
                assert msgids(await used.replies(1)) == [4]
                gate.set()
                assert msgids(await busy.replies(1)) == [1]
    assert len(log.messages) == 1
    assert "closed: idle longest, to make room for another (the limit is 3)" in log.messages[0]


async def test_a_subscriber_that_takes_no_events_makes_room_like_any_idle_connection(
    serving, sessions, path, log, monkeypatch, autojump_clock
):
    monkeypatch.setattr(admission, "MAX_CONNECTIONS", 2)
    async with serving():
        with await Talker.connect(path) as watching, await Talker.connect(path) as used:
            await watching.send(subscribe(1))
            await watching.replies(1)
            await emit_more_than_a_socket_takes(sessions)
            await used.send(verify(1))
            await used.replies(1)
            with await Talker.connect(path) as new:
                await new.send(verify(2))
                assert msgids(await new.replies(1)) == [2]
                await trio.sleep(LAST_EVENTS_SECONDS * 1.1)
                assert sessions.subscribers == []
                with pytest.raises(BrokenPipeError):
                    await watching.sock.send(verify(3))
                await used.send(verify(4))
                assert msgids(await used.replies(1)) == [4]
    assert len(log.messages) == 1
    assert "closed: idle longest, to make room for another" in log.messages[0]


async def test_those_that_make_room_are_few_until_they_have_ended(serving, listener, path, log, monkeypatch):
    monkeypatch.setattr(admission, "MAX_CONNECTIONS", 2)
    monkeypatch.setattr(admission, "OVER_LIMIT_SHARE", 0.5)
    async with serving(FailingUntilStopped(listener)) as stop:
        talkers = [await Talker.connect(path) for _ in range(4)]
        for talker in talkers:
            await talker.send(verify(1))
        stop.set()
        answered = []
        for talker in talkers:
            with talker:
                answered.append(len(await talker.everything()))
        assert answered == [1, 1, 1, 0]
    assert "too many connections" in log.text


async def test_a_connection_that_makes_room_is_counted_as_cut_off(log, autojump_clock):
    traffic = Traffic()
    PeerLog(LOGGER, traffic).write(Reason.EVICTED_IDLE)
    assert (traffic.connections_cut_off, traffic.peers_refused) == (1, 0)


# --- accept that fails ------------------------------------------------------------------------------


class Failing:
    """A listener whose `accept` fails the first times."""

    def __init__(self, listener: socket.socket, number: int, times: int) -> None:
        self._listener, self._number = listener, number
        self.left = times

    def __getattr__(self, name: str) -> object:
        return getattr(self._listener, name)

    def accept(self) -> object:
        if self.left:
            self.left -= 1
            raise OSError(self._number, os.strerror(self._number))
        return self._listener.accept()


@pytest.mark.parametrize(
    "number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ECONNABORTED, errno.EPERM]
)
async def test_an_accept_that_fails_pauses_and_is_tried_again(
    serving, listener, path, log, autojump_clock, number
):
    began = trio.current_time()
    async with serving(Failing(listener, number, 5)):
        with await Talker.connect(path) as talker:
            await talker.send(verify(1))
            assert msgids(await talker.replies(1)) == [1]
            assert trio.current_time() - began == pytest.approx(5 * server.ACCEPT_PAUSE_SECONDS)
    assert log.messages[0] == f"connections cannot be accepted ({os.strerror(number)})"
    assert len(log.messages) == 5


async def test_a_connection_that_was_gone_before_it_was_accepted_is_nothing(
    serving, listener, path, log, autojump_clock
):
    async with serving(Failing(listener, errno.EAGAIN, 3)):
        with await Talker.connect(path) as talker:
            await talker.send(verify(1))
            assert msgids(await talker.replies(1)) == [1]
    assert log.messages == []


async def test_running_out_of_descriptors_is_told_and_survived(serving, path, log, autojump_clock):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with serving():
        talker = await Talker.connect(path)
        next_one = os.dup(0)
        os.close(next_one)
        resource.setrlimit(resource.RLIMIT_NOFILE, (next_one, hard))
        try:
            await trio.sleep(10 * server.ACCEPT_PAUSE_SECONDS)
            assert "Too many open files" in log.text
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        with talker:
            await talker.send(verify(1))
            assert msgids(await talker.replies(1)) == [1]


@pytest.mark.parametrize("number", [errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.EOPNOTSUPP])
async def test_a_listener_that_is_none_ends_the_serving(serving, listener, path, number):
    with pytest.raises(ExceptionGroup) as raised:
        async with serving(Failing(listener, number, 1)):
            with await Talker.connect(path) as talker:
                await talker.everything()
    assert raised.group_contains(OSError, match=os.strerror(number))


async def test_a_listener_that_someone_shut_down_does_not_make_the_agent_spin(
    serving, listener, autojump_clock
):
    failing = Failing(listener, errno.EAGAIN, 0)
    accepts = []
    accept = failing.accept
    failing.accept = lambda: accepts.append(trio.current_time()) or accept()
    async with serving(failing):
        listener.shutdown(socket.SHUT_RD)
        await trio.sleep(10 * server.ACCEPT_PAUSE_SECONDS)
        assert 9 <= len(accepts) <= 11


# --- the graceful stop ------------------------------------------------------------------------------


async def test_a_stop_answers_all_that_was_sent_and_closes(serving, sessions, path, log, autojump_clock):
    gate = sessions.gate("slow")
    async with serving() as stop:
        talkers = [await Talker.connect(path) for _ in range(5)]
        for talker in talkers:
            await talker.send(create(1, "slow"), verify(2))
            assert msgids(await talker.replies(1)) == [2]
        await wait_all_tasks_blocked()
        for talker in talkers:
            await talker.send(create(3, "x"), verify(4), verify(5)[:9])
        stop.set()
        await trio.sleep(1)
        for talker in talkers:
            with pytest.raises(BrokenPipeError):
                await talker.sock.send(verify(6))
        gate.set()
        for talker in talkers:
            with talker:
                assert sorted(msgids(await talker.everything())) == [1, 3, 4]
    assert log.messages == []


class FailingUntilStopped(Failing):
    """A listener whose `accept` fails until the stop, so that everybody still waits by then."""

    def __init__(self, listener: socket.socket, afterwards: int = 0) -> None:
        super().__init__(listener, errno.EAGAIN, 10**9)
        self._afterwards = afterwards

    def shutdown(self, how: int) -> None:
        self._listener.shutdown(how)
        self.left, self._number = self._afterwards, errno.EMFILE


async def test_a_stop_is_told_to_subscribers_before_they_are_closed(serving, sessions, path, log):
    async with serving() as stop:
        with await Talker.connect(path) as watching, await Talker.connect(path) as asking:
            await watching.send(subscribe(1))
            await watching.replies(1)
            await asking.send(verify(1))
            await asking.replies(1)
            sessions.emit(event())
            before = time.time()
            stop.set()
            first, last = [read_event(message[1]) for message in await watching.everything()]
            assert first == event()
            assert last[:1] + last[2:] == ("stopping", None, "", None, None, 0, None)
            assert before - 0.001 <= last.at <= time.time() + 0.001
            assert await asking.everything() == []
    assert sessions.subscribers == []
    assert log.records == []


async def test_a_subscriber_that_takes_nothing_holds_a_stop_up_for_a_moment_only(
    serving, sessions, path, log, autojump_clock
):
    with await Talker.connect(path) as watching:
        async with serving(drain_seconds=LAST_EVENTS_SECONDS * 5):
            await watching.send(subscribe(1))
            await watching.replies(1)
            await emit_more_than_a_socket_takes(sessions)
            began = trio.current_time()
        assert trio.current_time() - began == pytest.approx(LAST_EVENTS_SECONDS)
    assert log.records == []


async def test_a_stop_answers_those_who_wait_to_be_accepted_and_lets_nobody_in_after_them(
    serving, listener, path, log
):
    async with serving(FailingUntilStopped(listener)) as stop:
        talkers = [await Talker.connect(path) for _ in range(20)]
        for talker in talkers:
            await talker.send(verify(1), verify(2))
        stop.set()
        await wait_all_tasks_blocked()
        with pytest.raises(ConnectionRefusedError):
            await Talker.connect(path)
        for talker in talkers:
            with talker:
                assert msgids(await talker.everything()) == [1, 2]
    assert log.messages == []


async def test_a_listener_of_someone_else_keeps_those_who_wait_for_the_next_agent(
    serving, sessions, listener, path
):
    async with serving(owns_listener=False) as stop:
        with await Talker.connect(path) as accepted:
            await accepted.send(verify(1))
            assert msgids(await accepted.replies(1)) == [1]
            waiting = await Talker.connect(path)
            waiting.sock._sock.send(verify(2))
            stop.set()
            assert await accepted.everything() == []
    async with serving(owns_listener=False):
        with waiting, await Talker.connect(path) as later:
            assert msgids(await waiting.replies(1)) == [2]
            await later.send(verify(3))
            assert msgids(await later.replies(1)) == [3]


async def test_the_limit_of_connections_holds_while_stopping(serving, listener, path, log, monkeypatch):
    monkeypatch.setattr(admission, "MAX_CONNECTIONS", 2)
    monkeypatch.setattr(admission, "OVER_LIMIT_SHARE", 0)
    async with serving(FailingUntilStopped(listener)) as stop:
        talkers = [await Talker.connect(path) for _ in range(4)]
        for talker in talkers:
            await talker.send(verify(1))
        stop.set()
        answered = []
        for talker in talkers:
            with talker:
                answered.append(len(await talker.everything()))
        assert answered == [1, 1, 0, 0]
    assert "too many connections" in log.text


async def test_an_accept_that_fails_while_stopping_is_told_and_the_stop_goes_on(serving, listener, path, log):
    async with serving(FailingUntilStopped(listener, 1)):
        waiting = await Talker.connect(path)
    waiting.sock.close()
    assert log.messages == ["connections cannot be accepted (Too many open files)"]


async def test_what_is_unanswered_at_the_end_of_the_stop_is_cut_off(
    serving, sessions, path, log, autojump_clock
):
    sessions.gate("for ever")
    async with serving(drain_seconds=3):
        with await Talker.connect(path) as talker:
            await talker.send(create(1, "for ever"), verify(2))
            assert msgids(await talker.replies(1)) == [2]
            began = trio.current_time()
            talker_end = talker.sock.dup()
    with talker_end:
        assert await talker_end.recv(10) == b""
    assert trio.current_time() - began == pytest.approx(3)
    assert sessions.waiting == 0
    assert "requests unanswered after 3 s" in log.text


async def test_a_peer_that_reads_nothing_cannot_hold_the_stop_up(serving, path, log, autojump_clock):
    with await Talker.connect(path) as talker:
        async with trio.open_nursery() as nursery:
            async with serving(drain_seconds=3):
                nursery.start_soon(talker.send, *(verify(n) for n in range(3000)))
                await wait_all_tasks_blocked()
                began = trio.current_time()
            assert trio.current_time() - began == pytest.approx(3)
            nursery.cancel_scope.cancel()


async def test_a_cancellation_closes_every_connection_at_once(serving, sessions, path):
    sessions.gate("slow")
    talkers = [await Talker.connect(path) for _ in range(3)]
    with trio.CancelScope() as scope:
        async with serving():
            for talker in talkers:
                await talker.send(create(1, "slow"))
            await wait_all_tasks_blocked()
            assert sessions.waiting == 3
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert sessions.waiting == 0
    for talker in talkers:
        with talker:
            assert await talker.everything() == []


async def test_a_stop_with_nobody_connected_is_immediate(serving, autojump_clock):
    began = trio.current_time()
    async with serving():
        pass
    assert trio.current_time() == began
