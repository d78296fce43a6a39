from __future__ import annotations

import sys

import msgpack
import pytest

from agentd.server.outbox import Subscription
from agentd_client.protocol.limits import MAX_EVENTS_WAITING
from agentd_client.protocol.methods import read_event
from agentd_client.protocol.results import Event
from tests.server.talk import event


@pytest.fixture
def subscription() -> Subscription:
    return Subscription()


def taken(subscription: Subscription) -> list[Event]:
    found = []
    while subscription:
        kind, method, params = msgpack.unpackb(subscription.take())
        assert (kind, method) == (2, "event")
        found.append(read_event(params))
    return found


def test_events_come_out_in_their_order(subscription):
    events = [event("created", 1), event("revoked", 2, "a label"), event("refused", 3)]
    for each in events:
        subscription.add(each)
    assert taken(subscription) == events
    assert not subscription


def test_as_many_wait_as_are_allowed_and_the_next_one_tells_how_many_were_lost(subscription):
    for n in range(MAX_EVENTS_WAITING + 7):
        subscription.add(event(number=n))
    subscription.take()
    subscription.add(event(number=1000))
    subscription.add(event(number=1001))  # no room again
    found = taken(subscription)
    assert [each.at for each in found] == [*range(1, MAX_EVENTS_WAITING), 1000, 1001]
    assert [each.missed for each in found] == [0] * (MAX_EVENTS_WAITING - 1) + [7, 1]
    assert (found.pop().kind, found.pop().at) == ("missed", 1000)


def test_what_was_lost_is_told_when_all_that_waited_was_taken(subscription):
    for n in range(MAX_EVENTS_WAITING + 7):
        subscription.add(event(number=n))
    found = taken(subscription)
    assert len(found) == MAX_EVENTS_WAITING + 1
    assert {each.missed for each in found[:-1]} == {0}
    assert found[-1] == Event("missed", MAX_EVENTS_WAITING + 6, None, "", None, None, 7)
    subscription.add(event(number=1003))
    assert [(each.kind, each.missed) for each in taken(subscription)] == [(event().kind, 0)]


def test_the_last_event_has_room_however_many_wait_and_tells_what_was_lost_before_it(subscription):
    for n in range(MAX_EVENTS_WAITING + 7):
        subscription.add(event(number=n))
    subscription.add_last(event("stopping"))
    found = taken(subscription)
    assert len(found) == MAX_EVENTS_WAITING + 1
    assert (found[-1].kind, found[-1].missed) == ("stopping", 7)


def test_what_is_lost_is_not_held_and_what_waits_is_shared(subscription):
    shared, lost = event("created", 1), event("created", 2)
    before = sys.getrefcount(shared), sys.getrefcount(lost)
    others = [Subscription() for _ in range(10)]
    for each in others:
        each.add(shared)
    for _ in range(MAX_EVENTS_WAITING):
        subscription.add(shared)
    for _ in range(1000):
        subscription.add(lost)
    assert sys.getrefcount(shared) == before[0] + 10 + MAX_EVENTS_WAITING
    assert sys.getrefcount(lost) == before[1]
