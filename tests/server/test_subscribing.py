from __future__ import annotations

import socket

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from agentd.server.outbox import LAST_EVENTS_SECONDS
from agentd_client.protocol.limits import MAX_EVENTS_WAITING, REPLY_SECONDS
from agentd_client.protocol.methods import read_event, to_wire
from agentd_client.protocol.results import Event
from tests.server.talk import (
    FakeSessions,
    Talker,
    connected,
    create,
    event,
    msgids,
    request,
    subscribe,
    verify,
)

SUBSCRIBED = [1, None, {"subscribed": True}]
STOPPING = Event("stopping", 99.5, None, "", None, None)
LONG = "a long label " * 15


def is_event(message: list[object]) -> bool:
    return message[0] == "event"


def events(messages: list[list[object]]) -> list[Event]:
    return [read_event(message[1]) for message in messages if is_event(message)]


def replies(messages: list[list[object]]) -> list[object]:
    return msgids([message for message in messages if not is_event(message)])


async def subscribed(talker: Talker) -> None:
    await talker.send(subscribe(1))
    assert await talker.replies(1) == [SUBSCRIBED]


async def emit_more_than_are_taken(sessions: FakeSessions) -> int:
    """Events, with time to send them, until some are lost: how many there were."""
    emitted = 0
    for _ in range(3):
        for _ in range(MAX_EVENTS_WAITING):
            sessions.emit(event(number=emitted, label=LONG))
            emitted += 1
        await wait_all_tasks_blocked()
    return emitted


async def test_before_it_subscribes_a_connection_gets_no_events(sessions):
    async with connected(sessions) as (talker, _):
        await talker.send(verify(1))
        await talker.replies(1)
        sessions.emit(event())
        await talker.send(verify(2))
        assert msgids(await talker.replies(1)) == [2]


async def test_a_subscriber_gets_every_event_in_its_order(sessions):
    happened = [
        event(kind, n, "label") for n, kind in enumerate(["created", "renewed", "refused", "revoked"])
    ]
    async with connected(sessions) as (talker, _):
        await subscribed(talker)
        sessions.emit(*happened[:3])
        assert await talker.replies(3) == [["event", [to_wire(each)]] for each in happened[:3]]
        sessions.emit(happened[3])
        assert events(await talker.replies(1)) == happened[3:]


async def test_every_subscriber_gets_them(sessions):
    async with connected(sessions) as (one, _), connected(sessions) as (other, _):
        await subscribed(one)
        await subscribed(other)
        sessions.emit(event())
        assert events(await one.replies(1)) == events(await other.replies(1)) == [event()]


async def test_events_come_after_the_reply_even_where_they_happen_in_the_same_breath(sessions):
    async with connected(sessions) as (talker, _):
        await talker.send(verify(0, "emits"), subscribe(1), verify(2, "emits"), verify(3, "emits"), verify(4))
        found = await talker.replies(6)
        assert [message[0] for message in found] == [0, 1, 2, 3, 4, "event"]
        assert [message[0] for message in await talker.replies(1)] == ["event"]


async def test_events_and_replies_interleave(sessions):
    gate = sessions.gate("slow")
    async with connected(sessions) as (talker, _):
        await subscribed(talker)
        await talker.send(create(2, "slow"))
        await wait_all_tasks_blocked()
        sessions.emit(event(number=1))
        assert events(await talker.replies(1)) == [event(number=1)]
        gate.set()
        assert msgids(await talker.replies(1)) == [2]
        await talker.send(verify(3, "emits"))
        assert [message[0] for message in await talker.replies(2)] == [3, "event"]


async def test_to_subscribe_twice_is_the_same_as_once(sessions):
    async with connected(sessions) as (talker, _):
        await subscribed(talker)
        await subscribed(talker)
        sessions.emit(event())
        await talker.send(verify(2))
        assert sorted(str(message[0]) for message in await talker.replies(2)) == ["2", "event"]
        assert len(sessions.subscribers) == 1


async def test_a_refused_subscription_subscribes_nobody(sessions):
    async with connected(sessions) as (talker, _):
        await talker.send(request(1, "subscribe", kinds=["created"]))
        assert (await talker.replies(1))[0][1] == [1, "INVALID_PARAMS: subscribe: no parameter 'kinds'"]
        assert sessions.subscribers == []


# --- subscribers that are slow ----------------------------------------------------------------------


async def test_a_subscriber_that_takes_nothing_misses_events_and_is_told_how_many(
    sessions, log, autojump_clock
):
    async with connected(sessions, buffer=4096) as (talker, _):
        await subscribed(talker)
        emitted = await emit_more_than_are_taken(sessions)
        await trio.sleep(REPLY_SECONDS * 100)
        kept: list[Event] = []
        while not kept or kept[-1].kind != "missed":  # without another event that happens
            kept += events(await talker.replies(1))
        assert [each.at for each in kept[:-1]] == list(range(len(kept) - 1)), "the earliest ones, in order"
        assert [each.missed for each in kept[:-1]] == [0] * (len(kept) - 1)
        assert kept[-1].missed == emitted - (len(kept) - 1) > 0
        sessions.emit(event("created", 5001))
        assert events(await talker.replies(1)) == [event("created", 5001)]
    assert log.records == []


async def test_what_waits_for_a_subscriber_is_bounded(sessions):
    async with connected(sessions, buffer=4096) as (talker, connection):
        await subscribed(talker)
        await emit_more_than_are_taken(sessions)
        outbox = connection._outbox
        assert len(outbox._subscription._waiting) == MAX_EVENTS_WAITING
        assert len(outbox._backlog) < 1000, "one event at the most"
        before = len(outbox._backlog)
        await emit_more_than_are_taken(sessions)
        assert (len(outbox._subscription._waiting), len(outbox._backlog)) == (MAX_EVENTS_WAITING, before)


async def test_a_subscriber_that_takes_no_events_is_still_read_and_answered(sessions, log, autojump_clock):
    async with connected(sessions, buffer=4096) as (talker, connection):
        await subscribed(talker)
        await emit_more_than_are_taken(sessions)
        await trio.sleep(REPLY_SECONDS * 3)
        await talker.send(create(2, "asked with events waiting"))
        await wait_all_tasks_blocked()
        assert [asked[2] for asked in sessions.asked] == ["asked with events waiting"]
        assert not connection.is_idle, "a reply waits"
        found: list[list[object]] = []
        while 2 not in replies(found):
            found += await talker.replies(1)
        at = [each.at for each in events(found)]
        assert at == list(range(len(at))), "the reply stands between whole events"
        assert len(at) < MAX_EVENTS_WAITING, "and passes those that wait"
    assert log.records == []


async def test_a_reply_keeps_its_deadline_behind_events_that_are_not_taken(sessions, log, autojump_clock):
    async with connected(sessions, buffer=4096) as (talker, _):
        await subscribed(talker)
        await emit_more_than_are_taken(sessions)
        await trio.sleep(REPLY_SECONDS * 3)
        began = trio.current_time()
        await talker.send(verify(2))
        await wait_all_tasks_blocked()
        assert len(sessions.subscribers) == 1
        await trio.sleep(REPLY_SECONDS * 0.9)
        assert log.records == []
        assert len(sessions.subscribers) == 1
        await trio.sleep(REPLY_SECONDS * 0.2)
        assert sessions.subscribers == []
        assert 2 not in replies(await talker.replies(10**9))
        assert trio.current_time() - began < REPLY_SECONDS * 1.2
    assert "not read in time" in log.text
    assert len(log.records) == 1


async def test_a_reply_that_was_taken_leaves_no_deadline_to_the_events_after_it(
    sessions, log, autojump_clock
):
    async with connected(sessions, buffer=4096) as (talker, _):
        await subscribed(talker)
        await emit_more_than_are_taken(sessions)
        await talker.send(verify(2))
        await wait_all_tasks_blocked()
        found: list[list[object]] = []
        while 2 not in replies(found):
            found += await talker.replies(1)
        await trio.sleep(REPLY_SECONDS * 10)
        await talker.send(verify(3))
        while 3 not in replies(found):
            found += await talker.replies(1)
    assert log.records == []


async def test_a_subscriber_is_idle_whether_events_wait_for_it_or_not(sessions, autojump_clock):
    async with connected(sessions, buffer=4096) as (talker, connection):
        await subscribed(talker)
        assert connection.is_idle
        before = connection.last_active
        sessions.emit(event())
        await talker.replies(1)
        assert connection.last_active > before, "an event that was taken is a sign of life"
        await emit_more_than_are_taken(sessions)
        assert connection.is_idle
        began = trio.current_time()
        connection.stop_reading()  # as to make room
        await trio.sleep(LAST_EVENTS_SECONDS * 1.1)
        assert connection._sock.fileno() == -1
        assert trio.current_time() - began == pytest.approx(LAST_EVENTS_SECONDS * 1.1)


# --- the end ----------------------------------------------------------------------------------------


async def test_the_end_of_a_connection_ends_its_subscription_alone(sessions):
    async with connected(sessions) as (stays, _):
        await subscribed(stays)
        async with connected(sessions) as (goes, _):
            await subscribed(goes)
            assert len(sessions.subscribers) == 2
        assert len(sessions.subscribers) == 1
        sessions.emit(event())
        assert events(await stays.replies(1)) == [event()]
    assert sessions.subscribers == []


@pytest.mark.parametrize("end", [b"\xc1", verify(1)[:5]])
async def test_a_subscriber_that_breaks_the_rules_is_no_subscriber_any_more(sessions, autojump_clock, end):
    async with connected(sessions) as (talker, _):
        await subscribed(talker)
        await talker.send(end)
        assert [message[1][1].partition(":")[0] for message in await talker.everything()] == [
            "INVALID_MESSAGE"
        ]
        assert sessions.subscribers == []


async def test_a_peer_that_goes_away_with_events_waiting_ends_the_connection(sessions, log, autojump_clock):
    async with connected(sessions, buffer=4096) as (talker, _):
        await subscribed(talker)
        await emit_more_than_are_taken(sessions)
        began = trio.current_time()
        talker.sock.close()
    assert trio.current_time() == began
    assert sessions.subscribers == []
    assert log.records == []


async def test_after_a_peers_last_byte_it_gets_what_waited_and_the_replies_but_no_more_events(
    sessions, log, autojump_clock
):
    gate = sessions.gate("slow")
    async with connected(sessions, buffer=4096) as (talker, _):
        await subscribed(talker)
        emitted = await emit_more_than_are_taken(sessions)
        await talker.send(create(2, "slow"))
        talker.sock.shutdown(socket.SHUT_WR)
        await wait_all_tasks_blocked()
        assert sessions.subscribers == []
        found = await talker.replies(MAX_EVENTS_WAITING)
        gate.set()
        found += await talker.everything()
        assert replies(found) == [2]
        *kept, last = events(found)
        assert [each.at for each in kept] == list(range(len(kept)))
        assert MAX_EVENTS_WAITING <= len(kept) < emitted
        assert (last.kind, last.missed) == ("missed", emitted - len(kept))
    assert log.records == []


async def test_last_events_that_nobody_takes_cost_no_reply(sessions, log, autojump_clock):
    gate = sessions.gate("slow")
    async with connected(sessions, buffer=4096) as (talker, _):
        await subscribed(talker)
        await talker.send(create(2, "slow"))
        await emit_more_than_are_taken(sessions)
        talker.sock.shutdown(socket.SHUT_WR)
        await trio.sleep(LAST_EVENTS_SECONDS * 2)
        gate.set()
        await wait_all_tasks_blocked()
        found = await talker.everything()
        assert replies(found) == [2]
        assert 0 < len(events(found)) < MAX_EVENTS_WAITING, "the others were given up"
    assert log.records == []


async def test_a_stop_is_the_last_event(sessions):
    gate = sessions.gate("slow")
    async with connected(sessions) as (talker, connection):
        await subscribed(talker)
        await talker.send(create(2, "slow"))
        await wait_all_tasks_blocked()
        sessions.emit(event())
        connection.stop_reading(STOPPING)
        sessions.emit(event("created", 6))
        await wait_all_tasks_blocked()
        sessions.emit(event("created", 7))
        gate.set()
        found = await talker.everything()
        assert replies(found) == [2]
        assert events(found) == [event(), STOPPING]


async def test_a_stop_tells_a_slow_subscriber_what_it_missed(sessions, autojump_clock):
    async with connected(sessions, buffer=4096) as (talker, connection):
        await subscribed(talker)
        emitted = await emit_more_than_are_taken(sessions)
        connection.stop_reading(STOPPING)
        found = events(await talker.everything())
        assert found[-1].kind == "stopping"
        assert found[-1].missed == emitted - (len(found) - 1) > 0


async def test_a_stop_waits_a_moment_only_for_a_subscriber_that_takes_nothing(sessions, log, autojump_clock):
    async with connected(sessions, buffer=4096) as (talker, connection):
        await subscribed(talker)
        await emit_more_than_are_taken(sessions)
        connection.stop_reading(STOPPING)
        await trio.sleep(LAST_EVENTS_SECONDS * 0.9)
        assert connection._sock.fileno() != -1
        await trio.sleep(LAST_EVENTS_SECONDS * 0.2)
        assert connection._sock.fileno() == -1
    assert log.records == []


async def test_who_subscribes_while_the_agent_stops_is_told_of_the_stop(sessions):
    async with connected(sessions) as (talker, connection):
        await talker.send(subscribe(1))
        connection.stop_reading(STOPPING)  # before the request is read
        assert await talker.everything() == [SUBSCRIBED, ["event", [to_wire(STOPPING)]]]
        assert sessions.subscribers == []


async def test_who_has_not_subscribed_hears_nothing_of_a_stop(sessions):
    async with connected(sessions) as (talker, connection):
        await talker.send(verify(1))
        connection.stop_reading(STOPPING)
        assert msgids(await talker.everything()) == [1]


async def test_a_stop_after_the_peers_last_byte_is_nothing(sessions):
    gate = sessions.gate("slow")
    async with connected(sessions) as (talker, connection):
        await subscribed(talker)
        await talker.send(create(2, "slow"))
        talker.sock.shutdown(socket.SHUT_WR)
        await wait_all_tasks_blocked()
        connection.stop_reading(STOPPING)
        gate.set()
        assert msgids(await talker.everything()) == [2]
