from __future__ import annotations

import itertools
import select
import socket
import sys

import msgpack
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from agentd.server import peer
from agentd.server.connection import HANG_UP_SECONDS, REPLIES_AT_ONCE, SLICE_SECONDS, Connection, Turns
from agentd.server.log import PeerLog, Traffic
from agentd.server.peer import Caller, describe_peer, peer_of
from agentd_client.protocol import limits
from agentd_client.protocol.methods import to_wire
from tests.server.talk import (
    LOGGER,
    VALID,
    FakeLocking,
    Talker,
    connected,
    create,
    dispatch_of,
    msgids,
    request,
    serve,
    subscribe,
    verify,
    why,
)

SECRET = "v4.local.s3cret"


async def test_a_request_is_answered(sessions):
    async with connected(sessions) as (talker, _):
        await talker.send(verify(7))
        assert await talker.replies(1) == [[7, None, to_wire(VALID)]]


@pytest.fixture
def resting(sessions):
    """A connection without a task, and the bare socket of its peer."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    theirs.setblocking(False)
    # A clock that stands still: no slice is over before its work is done, however slow the machine is.
    turns = Turns(clock=lambda: 0.0)
    connection = Connection(theirs, peer_of(theirs), dispatch_of(sessions), PeerLog(LOGGER, Traffic()), turns)
    with ours:
        yield ours, connection
    connection.close()


async def test_what_is_answered_at_once_needs_no_task(resting):
    ours, connection = resting
    unpacker = msgpack.Unpacker()
    for number in range(3):
        ours.sendall(verify(number) + verify(number + 1, "bad"))
        assert connection.answer_nowait()
        unpacker.feed(ours.recv(65536))
        assert [msgid for _, msgid, _, _ in unpacker] == [number, number + 1]
        assert connection.answer_nowait(), "it was woken for nothing"
    assert (connection.is_idle, connection.is_over) == (True, False)
    ours.close()
    assert not connection.answer_nowait()
    assert connection.is_over


@pytest.mark.parametrize(
    ("sent", "msgids_at_once", "msgids_afterwards"),
    [
        (verify(1) + create(2, "") + verify(3), [1, 3], [2]),
        (verify(1) + verify(2)[:-1], [1], []),
        (verify(1) + b"\xc1", [1], [0]),
        (verify(1) * 2 + subscribe(2) + verify(3), [1, 1, 2, 3], []),
    ],
    ids=["a request that waits", "half a message", "no message", "a subscriber"],
)
async def test_what_has_to_be_waited_for_goes_on_in_a_task(resting, sent, msgids_at_once, msgids_afterwards):
    ours, connection = resting
    ours.sendall(sent)
    assert not connection.answer_nowait()
    assert not connection.is_over
    with Talker(ours) as talker:
        assert msgids(await talker.replies(len(msgids_at_once))) == msgids_at_once
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, connection)
            assert msgids(await talker.replies(len(msgids_afterwards))) == msgids_afterwards
            ours.close()


async def test_more_than_a_slice_suffices_for_goes_on_in_a_task(sessions):
    clock = itertools.count(0.0, SLICE_SECONDS).__next__
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    theirs.setblocking(False)
    connection = Connection(
        theirs, peer_of(theirs), dispatch_of(sessions), PeerLog(LOGGER, Traffic()), Turns(clock=clock)
    )
    ours.sendall(b"".join(map(verify, range(5))))
    assert not connection.answer_nowait()
    assert not connection.is_idle
    with Talker(ours) as talker:
        assert msgids(await talker.replies(1)) == [0]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, connection)
            assert msgids(await talker.replies(4)) == [1, 2, 3, 4]
            ours.close()


@pytest.mark.parametrize("trouble", ["abandoned", "gone"])
async def test_a_connection_without_a_task_ends_with_its_peer_and_where_it_is_abandoned(resting, trouble):
    ours, connection = resting
    ours.sendall(verify(1))
    if trouble == "abandoned":
        connection.abandon()
    else:
        ours.shutdown(socket.SHUT_RD)
        assert connection.answer_nowait(), "its answer could not be sent"
    assert not connection.answer_nowait()
    assert connection.is_over


async def test_its_peer_is_described_once(resting, monkeypatch):
    _, connection = resting
    by = Caller(connection.peer, None)
    first = by.described
    assert first == describe_peer(connection.peer)
    monkeypatch.setattr(peer, "describe_peer", None)
    assert by.described is first


async def test_a_connection_that_was_abandoned_before_its_task_began_ends(resting):
    ours, connection = resting
    ours.sendall(create(1, ""))
    assert not connection.answer_nowait()
    connection.abandon()
    with trio.fail_after(5):  # its peer keeps it open
        await connection.run()


async def test_a_thousand_requests_in_one_breath_are_all_answered_in_order(sessions):
    async with connected(sessions) as (talker, _), trio.open_nursery() as nursery:
        nursery.start_soon(talker.send, *(verify(n, "good" if n % 3 else "bad") for n in range(1000)))
        replies = await talker.replies(1000)
        assert msgids(replies) == list(range(1000))
        assert [reply[2]["valid"] for reply in replies] == [bool(n % 3) for n in range(1000)]


async def test_a_verification_takes_few_steps_of_the_agents_own(resting):
    """Each costs more than it does: the code is cold when a request comes. Those of the sessions come on top."""
    steps: list[str] = []

    def note(frame, event, arg):
        module = frame.f_globals.get("__name__", "")
        if event == "call" and module.startswith(("agentd.", "agentd_client.")):
            steps.append(f"{module}.{frame.f_code.co_name}")

    ours, connection = resting
    for msgid in range(2):  # the first one fills what is kept
        steps.clear()
        ours.sendall(verify(msgid))
        sys.setprofile(note)
        try:
            assert connection.answer_nowait()
        finally:
            sys.setprofile(None)
        assert msgpack.unpackb(ours.recv(65536))[1] == msgid
    assert len(steps) <= 9, steps


async def test_the_first_replies_leave_before_the_last_requests_of_a_read_are_worked_on(sessions):
    async with connected(sessions) as (talker, _):
        poll = select.poll()
        poll.register(talker.sock, select.POLLIN)
        had_replies = []
        answer = sessions.verify_nowait

        def noticed(*args, **named):
            had_replies.append(bool(poll.poll(0)))
            return answer(*args, **named)

        sessions.verify_nowait = noticed
        await talker.send(*(verify(n) for n in range(2 * REPLIES_AT_ONCE)))
        assert msgids(await talker.replies(2 * REPLIES_AT_ONCE)) == [*range(2 * REPLIES_AT_ONCE)]
    assert had_replies == [False] * REPLIES_AT_ONCE + [True] * REPLIES_AT_ONCE


async def test_a_thousand_requests_that_wait_are_all_answered_and_never_more_than_the_limit_at_once(sessions):
    async with connected(sessions) as (talker, _), trio.open_nursery() as nursery:
        nursery.start_soon(talker.send, *(create(n, "x") for n in range(1000)))
        assert sorted(msgids(await talker.replies(1000))) == list(range(1000))
    assert sessions.most_waiting <= limits.MAX_IN_FLIGHT


async def test_a_request_may_come_byte_by_byte(sessions):
    async with connected(sessions) as (talker, _):
        for byte in verify(7):
            await talker.send(bytes([byte]))
            await wait_all_tasks_blocked()
        assert msgids(await talker.replies(1)) == [7]


async def test_replies_leave_as_their_requests_end_whatever_the_order(sessions):
    first, second = sessions.gate("first"), sessions.gate("second")
    async with connected(sessions) as (talker, _):
        await talker.send(create(1, "first"), create(2, "second"), verify(3))
        assert msgids(await talker.replies(1)) == [3]
        second.set()
        assert msgids(await talker.replies(1)) == [2]
        first.set()
        assert msgids(await talker.replies(1)) == [1]


async def test_no_more_is_read_while_the_limit_of_requests_is_in_flight(sessions):
    gates = [sessions.gate(str(n)) for n in range(limits.MAX_IN_FLIGHT)]
    async with connected(sessions) as (talker, _):
        await talker.send(*(create(n, str(n)) for n in range(limits.MAX_IN_FLIGHT)))
        await wait_all_tasks_blocked()
        await talker.send(create(500, "next"), verify(501))
        await wait_all_tasks_blocked()
        assert len(sessions.asked) == limits.MAX_IN_FLIGHT
        gates[9].set()
        assert sorted(msgids(await talker.replies(3))) == [9, 500, 501]
        for gate in gates:
            gate.set()
        assert len(await talker.replies(limits.MAX_IN_FLIGHT - 1)) == limits.MAX_IN_FLIGHT - 1


async def test_the_limit_holds_within_one_read_as_well(sessions):
    gates = [sessions.gate(str(n)) for n in range(100)]
    async with connected(sessions) as (talker, _):
        await talker.send(verify(1000), *(create(n, str(n)) for n in range(100)), verify(1001))
        await wait_all_tasks_blocked()
        assert len(sessions.asked) <= limits.MAX_IN_FLIGHT
        assert msgids(await talker.replies(1)) == [1000]
        for gate in gates:
            gate.set()
        assert sorted(msgids(await talker.replies(101))) == [*range(100), 1001]


async def test_a_msgid_in_flight_ends_the_connection_after_what_came_before(sessions, log):
    gate = sessions.gate("slow")
    async with connected(sessions) as (talker, _):
        await talker.send(create(1, "slow"), verify(2), verify(1), verify(3))
        assert msgids(await talker.replies(1)) == [2]
        gate.set()
        answer, last = await talker.everything()
        assert (answer[0], answer[1]) == (1, None), "the request that had the msgid first is answered first"
        assert last == why(1, "the msgid of a request that is not answered yet")
    assert len(log.records) == 1
    assert "msgid that is in use" in log.text


async def test_a_msgid_in_flight_ends_the_connection_also_where_the_second_request_is_of_another_form(
    sessions,
):
    gate = sessions.gate("slow")
    async with connected(sessions) as (talker, _):
        await talker.send(create(1, "slow"), msgpack.packb([0, 1, b"hello", None]), verify(3))
        await wait_all_tasks_blocked()
        gate.set()
        assert msgids(await talker.everything()) == [1, 1]


async def test_a_msgid_may_be_used_again_once_it_is_answered(sessions):
    async with connected(sessions) as (talker, _):
        for label in ("one", "two", "three"):
            await talker.send(create(1, label))
            assert (await talker.replies(1))[0][2]["token"] == f"token of {label}"


NO_FORM = "malformed message: neither a request, nor a response, nor a notification"


@pytest.mark.parametrize(
    ("data", "last"),
    [
        (b"\xc1", why(0, "malformed message: a byte that MessagePack does not have")),
        (b"\x93\x00\x09\xa1m", why(9, NO_FORM)),
        (
            b"\x94\x00\x04\xa1m\x91\x82\xa1a\x01\xa1a\x01",
            why(4, "malformed message: a map holds the same key twice"),
        ),
        (b"\x94\x00\x04\xa1m\x91\x81\xc4\x01a\x01", why(4, "malformed message: a map key is not a string")),
        (b"\x94\x00\x04\xa1m\x91\x81\xa1a\xa1\xff", why(4, "malformed message: text that is not UTF-8")),
        (msgpack.packb([0, "4", "hello", []]), why(0, NO_FORM)),
        (b"GET / HTTP/1.1\r\n", why(0, "malformed message: a message is an array that begins with its type")),
    ],
)
async def test_malformed_bytes_end_the_connection_after_what_came_before_is_answered_and_the_peer_is_told_why(
    sessions, log, data, last
):
    gate = sessions.gate("slow")
    async with connected(sessions) as (talker, _):
        await talker.send(create(1, "slow"), verify(2), data, verify(3))
        assert msgids(await talker.replies(1)) == [2]
        gate.set()
        answer, told = await talker.everything()
        assert (answer[0], answer[1]) == (1, None), "what is in work is answered first"
        assert told == last
    assert len(log.records) == 1
    assert "closed: malformed message" in log.text
    assert "uid=" in log.text


async def test_a_peer_is_told_why_before_it_would_send_more_of_a_message_that_is_too_large(sessions):
    async with connected(sessions) as (talker, _):
        with pytest.raises(trio.BrokenResourceError):
            for _ in range(100):
                await talker.send(verify(7, "x" * 70_000))
        assert await talker.everything() == [why(7, "malformed message: a message of more than 65536 bytes")]


async def test_a_peer_that_takes_nothing_is_not_waited_for_longer_than_for_any_reply(
    sessions, log, autojump_clock
):
    async with connected(sessions, buffer=4096) as (talker, _):
        began = trio.current_time()
        await talker.send(*(verify(n) for n in range(60)), b"\xc1")
        await wait_all_tasks_blocked()
    assert trio.current_time() - began <= limits.REPLY_SECONDS


async def test_the_log_keeps_every_cause_apart(sessions, log):
    """The limit of the log counts by template: one cause does not hide another."""
    for data in (
        b"\xc1",
        msgpack.packb([0, "4", "hello", []]),
        b"\xa1\xff",
        msgpack.packb([1, 1, None, None]),
    ):
        async with connected(sessions) as (talker, _):
            await talker.send(data)
            await talker.everything()
    assert len({record.msg for record in log.records}) == 4


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ([0, 5, "hello", None], "INVALID_PARAMS: params is an array that holds one map, not nil"),
        ([0, 5, "hello", {"client": "x"}], "INVALID_PARAMS: params is an array that holds one map, not map"),
        ([0, 5, b"hello", [{}]], "UNKNOWN_METHOD: a method's name is text (str), not bytes"),
        ([0, 5, "x" * 65, [{}]], "UNKNOWN_METHOD: a method's name has at most 64 characters"),
    ],
)
async def test_a_request_of_another_form_is_refused_and_the_connection_goes_on(sessions, log, message, error):
    async with connected(sessions) as (talker, _):
        await talker.send(verify(1), msgpack.packb(message), verify(2))
        first, refused, second = await talker.replies(3)
        assert msgids([first, second]) == [1, 2]
        assert refused == [5, [1, error], None]
    assert log.records == []


async def test_no_log_line_about_a_peer_quotes_it(sessions, log):
    for data in (
        msgpack.packb([0, 1, "verifyToken", [{SECRET: 1, 5: 5}]]),
        msgpack.packb([SECRET]),
        msgpack.packb([1, 1, SECRET, None]),
        b"\xa9" + SECRET[:8].encode() + b"\xff",
    ):
        async with connected(sessions) as (talker, _):
            await talker.send(data)
            (last,) = await talker.everything()
            assert last[1][1].startswith("INVALID_MESSAGE: ")
            assert "s3cret" not in last[1][1]
    assert "malformed" in log.text
    assert "s3cret" not in log.text


async def test_a_response_ends_the_connection_after_what_came_before(sessions, log):
    async with connected(sessions) as (talker, _):
        await talker.send(verify(1), msgpack.packb([1, 1, None, None]), verify(2))
        assert msgids(await talker.everything()) == [1, 0]
    assert "response to no request" in log.text


async def test_notifications_are_ignored(sessions):
    async with connected(sessions) as (talker, _):
        notification = msgpack.packb([2, "resetKey", [{}]])
        await talker.send(notification, verify(1), notification * 500, verify(2), notification)
        assert msgids(await talker.replies(2)) == [1, 2]
    assert sessions.asked == []


@pytest.mark.parametrize(
    "message",
    [
        [2, b"nvim_set_client_info", ["x", {}, "remote", {}, {}]],
        [2, b"nvim_set_client_info", [b"x", {b"major": 1}, b"remote", {}, {}]],
        [2, "resetKey", {}],
        [2, "resetKey", None],
        [2, None, [{}]],
        [2, "resetKey" * 9, [{}]],
    ],
)
async def test_notifications_of_another_form_are_ignored_as_well(sessions, log, message):
    async with connected(sessions) as (talker, _):
        notification = msgpack.packb(message)
        await talker.send(notification, verify(1), notification * 100, verify(2), notification)
        assert msgids(await talker.replies(2)) == [1, 2]
    assert sessions.asked == []
    assert log.records == []


async def test_a_connection_is_idle_while_nothing_is_under_way(sessions, autojump_clock):
    gate = sessions.gate("slow")
    async with connected(sessions, buffer=4096) as (talker, connection):
        assert connection.is_idle
        await talker.send(create(1, "slow"))
        await wait_all_tasks_blocked()
        assert not connection.is_idle, "a request in work"
        gate.set()
        await talker.replies(1)
        assert connection.is_idle
        await talker.send(verify(2)[:9])
        await wait_all_tasks_blocked()
        assert connection.is_idle, "a message that is not whole is no work"
        await talker.send(verify(2)[9:])
        await talker.replies(1)
        await talker.send(*(verify(n) for n in range(60)))
        await wait_all_tasks_blocked()
        assert not connection.is_idle, "replies that wait"
        await talker.replies(60)
        await wait_all_tasks_blocked()
        assert connection.is_idle
        connection.stop_reading()
        assert not connection.is_idle, "it is being closed"


async def test_a_message_of_the_largest_size_is_answered_and_a_larger_one_is_not(sessions, log):
    def sized(size: int) -> bytes:
        data = verify(1, "x" * (size - len(verify(1, "x" * 60_000)) + 60_000))
        assert len(data) == size
        return data

    async with connected(sessions) as (talker, _):
        await talker.send(sized(limits.MAX_MESSAGE_BYTES) * 2)
        assert [reply[2]["reason"] for reply in await talker.replies(2)] == ["MALFORMED"] * 2
        await talker.send(sized(limits.MAX_MESSAGE_BYTES + 1))
        assert await talker.everything() == [why(1, "malformed message: a message of more than 65536 bytes")]
    assert "65536 bytes" in log.text


async def test_what_waits_for_a_peer_alone_is_dropped_when_that_hangs_up(sessions, autojump_clock):
    locking = FakeLocking()
    async with connected(sessions, locking) as (talker, _):
        await talker.send(request(1, "unlock", passphrase=b"waits"))
        await wait_all_tasks_blocked()
        began = trio.current_time()
    assert [what for what, *_ in locking.asked] == ["unlock", "dropped"]
    assert trio.current_time() == began


async def test_and_not_before_a_peer_that_only_sends_no_more_hangs_up_too(sessions, autojump_clock):
    locking = FakeLocking()
    async with connected(sessions, locking) as (talker, _):
        await talker.send(request(1, "unlock", passphrase=b"waits"))
        talker.sock.shutdown(socket.SHUT_WR)
        await trio.sleep(60)
        assert [what for what, *_ in locking.asked] == ["unlock"]
        began = trio.current_time()
    assert [what for what, *_ in locking.asked] == ["unlock", "dropped"]
    assert trio.current_time() - began <= HANG_UP_SECONDS


async def test_after_the_last_byte_of_a_peer_its_requests_are_still_answered(sessions):
    gate = sessions.gate("slow")
    async with connected(sessions) as (talker, _):
        await talker.send(create(1, "slow"), verify(2))
        talker.sock.shutdown(socket.SHUT_WR)
        await wait_all_tasks_blocked()
        gate.set()
        assert sorted(msgids(await talker.everything())) == [1, 2]


async def test_what_was_begun_for_a_peer_that_went_away_is_carried_out(sessions, log):
    gate = sessions.gate("slow")
    ended = []
    open_session = sessions.open_session

    async def noticed(*args, **named):
        ended.append(await open_session(*args, **named))
        return ended[-1]

    sessions.open_session = noticed
    async with connected(sessions) as (talker, _):
        await talker.send(create(1, "slow"), create(2, "quick"))
        assert msgids(await talker.replies(1)) == [2]
        talker.sock.close()
        await wait_all_tasks_blocked()
        gate.set()
    assert len(ended) == 2
    assert log.records == []


async def test_a_peer_that_closed_with_replies_unread_is_nothing_to_log(sessions, log):
    async with connected(sessions) as (talker, _):
        await talker.send(verify(1))
        await wait_all_tasks_blocked()
    assert log.records == []


async def test_a_peer_that_refuses_replies_is_not_read_any_further(sessions, log):
    first, second = sessions.gate("first"), sessions.gate("second")
    async with connected(sessions) as (talker, _):
        await talker.send(create(1, "first"), create(2, "second"))
        await wait_all_tasks_blocked()
        talker.sock.shutdown(socket.SHUT_RD)
        first.set()
        await wait_all_tasks_blocked()
        with pytest.raises(BrokenPipeError):
            await talker.sock.send(create(3, "never"))
        assert sessions.waiting == 1, "what was begun goes on"
        second.set()
    assert len(sessions.asked) == 2
    assert log.records == []


async def test_a_reply_that_cannot_be_sent_stops_what_was_sent_along_with_its_request(sessions):
    async with connected(sessions) as (talker, _):
        talker.sock.shutdown(socket.SHUT_RD)
        await talker.send(*(verify(n) for n in range(limits.MAX_IN_FLIGHT)), create(500, "never"))
    assert sessions.asked == []


# --- deadlines --------------------------------------------------------------------------------------


async def test_a_message_that_is_not_finished_in_time_ends_the_connection(sessions, log, autojump_clock):
    async with connected(sessions) as (talker, _):
        began = trio.current_time()
        await talker.send(verify(1), verify(2)[:-1])
        assert (await talker.everything())[1:] == [why(2, "a message that was not finished within 10 s")]
        assert trio.current_time() - began == pytest.approx(limits.MESSAGE_SECONDS)
    assert "not finished in time" in log.text


async def test_trickling_bytes_does_not_renew_the_deadline(sessions, log, autojump_clock):
    async with connected(sessions) as (talker, _):
        began = trio.current_time()

        async def trickle() -> None:
            for byte in verify(1, "x" * 100):
                try:
                    await talker.send(bytes([byte]))
                except trio.BrokenResourceError:
                    return
                await trio.sleep(1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trickle)
            assert await talker.everything() == [why(1, "a message that was not finished within 10 s")]
            assert trio.current_time() - began == pytest.approx(limits.MESSAGE_SECONDS)


async def test_each_message_has_its_own_deadline(sessions, autojump_clock):
    async with connected(sessions) as (talker, _):
        halves = verify(1)
        await talker.send(halves[:9])
        for _ in range(10):
            await trio.sleep(limits.MESSAGE_SECONDS * 0.7)
            await talker.send(halves[9:] + halves[:9])
            assert msgids(await talker.replies(1)) == [1]


async def test_an_idle_connection_has_no_deadline(sessions, autojump_clock):
    async with connected(sessions) as (talker, _):
        for n in range(3):
            await talker.send(verify(n))
            assert msgids(await talker.replies(1)) == [n]
            await trio.sleep(80_000)


@pytest.mark.parametrize("count", [2 * REPLIES_AT_ONCE, 60], ids=["all are answered", "some are not yet"])
async def test_time_in_which_the_agent_does_not_read_is_not_the_peers(sessions, log, autojump_clock, count):
    async with connected(sessions, buffer=4096) as (talker, connection):
        last = verify(500)
        await talker.send(*(verify(n) for n in range(count)), last[:9])
        await wait_all_tasks_blocked()
        assert connection._outbox.owes_replies
        await talker.send(last[9:19])  # not read while replies wait for the peer
        await trio.sleep(limits.REPLY_SECONDS * 0.9)
        await talker.replies(count)
        await trio.sleep(limits.MESSAGE_SECONDS * 0.5)
        await talker.send(last[19:])
        assert msgids(await talker.replies(1)) == [500]
    assert log.records == []


async def test_a_peer_that_never_reads_is_closed_after_the_deadline_and_read_no_further(
    sessions, log, autojump_clock
):
    async with connected(sessions, buffer=4096) as (talker, _):
        began = trio.current_time()
        with pytest.raises(trio.BrokenResourceError):
            for n in range(100_000):
                await talker.send(verify(n))
        assert trio.current_time() - began == pytest.approx(limits.REPLY_SECONDS)
    assert "not read in time" in log.text
    assert len(log.records) == 1


async def test_what_waited_behind_replies_that_nobody_took_is_not_carried_out(sessions, log, autojump_clock):
    async with connected(sessions, buffer=4096) as (talker, _):
        await talker.send(*(verify(n) for n in range(60)))
        await wait_all_tasks_blocked()
        await talker.send(create(500, "never"))
        await trio.sleep(limits.REPLY_SECONDS + 1)
    assert "not read in time" in log.text
    assert sessions.asked == []


async def test_taking_replies_drop_by_drop_does_not_renew_the_deadline(sessions, log, autojump_clock):
    async with connected(sessions, buffer=4096) as (talker, _), trio.open_nursery() as nursery:
        began = trio.current_time()
        nursery.start_soon(talker.send, *(verify(n) for n in range(500)))
        while await talker.sock.recv(64):
            await trio.sleep(1)
            if trio.current_time() - began > limits.REPLY_SECONDS * 2:
                break
    assert "not read in time" in log.text


async def test_a_slow_reader_within_the_deadline_gets_everything_and_holds_the_reading_up(
    sessions, log, autojump_clock
):
    async with connected(sessions, buffer=4096) as (talker, connection), trio.open_nursery() as nursery:
        nursery.start_soon(talker.send, *(verify(n) for n in range(3000)))
        largest = 0
        found: list[object] = []
        while len(found) < 3000:
            await trio.sleep(limits.REPLY_SECONDS * 0.5)
            largest = max(largest, len(connection._outbox._backlog))
            found += msgids(await talker.replies(200))
        assert found == list(range(3000))
    assert 0 < largest < limits.MAX_MESSAGE_BYTES
    assert log.records == []


async def test_replies_that_end_while_others_wait_for_the_peer_join_them(sessions, log, autojump_clock):
    gate = sessions.gate("slow")
    async with connected(sessions, buffer=4096) as (talker, connection):
        await talker.send(create(9999, "slow"), *(verify(n) for n in range(REPLIES_AT_ONCE)))
        await wait_all_tasks_blocked()
        gate.set()
        await wait_all_tasks_blocked()
        assert connection._outbox.owes_replies
        assert msgids(await talker.replies(REPLIES_AT_ONCE + 1)) == [*range(REPLIES_AT_ONCE), 9999]
    assert log.records == []


async def test_a_peer_that_goes_away_while_replies_wait_for_it_ends_the_connection(
    sessions, log, autojump_clock
):
    async with connected(sessions, buffer=4096) as (talker, _):
        began = trio.current_time()
        await talker.send(*(verify(n) for n in range(60)))
        await wait_all_tasks_blocked()
        talker.sock.close()
    assert trio.current_time() == began
    assert log.records == []


async def test_a_cancellation_closes_the_socket_and_ends_every_request(sessions):
    sessions.gate("slow")
    ours: list[object] = []
    with trio.move_on_after(5) as scope:
        async with connected(sessions, buffer=4096) as (talker, connection):
            ours.append(connection._sock)
            await talker.send(create(9999, "slow"), *(verify(n) for n in range(60)))
            await wait_all_tasks_blocked()
            assert sessions.waiting == 1
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert sessions.waiting == 0
    assert ours[0].fileno() == -1


# --- the end of reading -----------------------------------------------------------------------------


async def test_after_the_end_of_reading_all_that_was_sent_is_answered_and_no_more_can_be_sent(sessions):
    gate = sessions.gate("slow")
    async with connected(sessions) as (talker, connection):
        await talker.send(
            create(1, "slow"), *(verify(n) for n in range(2, 400)), create(400, "x"), verify(401)[:9]
        )
        connection.stop_reading()
        with pytest.raises(BrokenPipeError):
            await talker.sock.send(verify(402))
        await wait_all_tasks_blocked()
        gate.set()
        assert sorted(msgids(await talker.everything())) == list(range(1, 401))


async def test_the_end_of_reading_after_the_peers_end_is_nothing(sessions):
    async with connected(sessions) as (talker, connection):
        talker.sock.close()
        connection.stop_reading()
        await wait_all_tasks_blocked()
        connection.stop_reading()
