"""What the view holds, as pages, answers and events change it."""

from __future__ import annotations

import pytest

from agentd_client.protocol.results import (
    EVENT_KINDS,
    EXPIRED,
    AuditEntry,
    Counters,
    Event,
    PeerIdentity,
    RequestInfo,
    SessionInfo,
    Status,
)
from agentd_client.tui.activity import ASCII_BARS, Activity, per_second, plot
from agentd_client.tui.model import MAX_HAPPENINGS, Model, Wanted
from agentd_client.tui.sessions import MAX_ENDED, Sessions


def session(id: str, parent: str | None = None, at: float = 0.0) -> SessionInfo:
    return SessionInfo(id, f"label {id}", at, None, None, parent=parent)


def event(kind: str, session_id: str | None = None, **more: object) -> Event:
    return Event(kind, 1.0, session_id, "", None, None)._replace(**more)


def status(requests: int = 0, **more: object) -> Status:
    counters = Counters(0, 0, 0, 0, requests, 0, 0)
    return Status("0.1.0", "a", 1, 5.0, 1.0, 0, "k", "/s", "/d", 0, True, counters)._replace(**more)


def request(id: str, at: float, state: str = "waiting") -> RequestInfo:
    asker = PeerIdentity(1000, 4711)
    return RequestInfo(id, state, at, at + 300, asker, [], "owner", "", "", "", None, None, None, None, False)


def known(sessions: Sessions) -> list[str]:
    return [each.id for each in sessions.newest_first()]


# --- sessions ---


def test_pages_come_in_any_order_and_the_newest_is_first():
    sessions = Sessions()
    sessions.begin_pass()
    sessions.add_page([session("a", at=1), session("c", at=3)])
    sessions.add_page([session("b", at=2)])
    assert not sessions.is_complete
    sessions.end_pass()
    assert (sessions.is_complete, known(sessions)) == (True, ["c", "b", "a"])


def test_what_a_pass_does_not_list_is_gone_and_what_came_meanwhile_stays():
    sessions = Sessions()
    sessions.add_page([session("swept"), session("kept")])
    sessions.begin_pass()
    sessions.put(session("new", at=9))
    sessions.add_page([session("kept")])
    sessions.end_pass()
    assert known(sessions) == ["new", "kept"]


def test_a_pass_that_was_given_up_takes_nothing_away():
    sessions = Sessions()
    sessions.add_page([session("a"), session("b")])
    sessions.begin_pass()
    sessions.add_page([session("a")])
    assert len(sessions) == 2
    sessions.begin_pass()
    sessions.add_page([session("a"), session("b")])
    sessions.end_pass()
    assert len(sessions) == 2


def test_an_ended_session_takes_its_tree_along_and_no_late_answer_brings_it_back():
    sessions = Sessions()
    sessions.add_page([session("a"), session("b", "a"), session("c", "b"), session("d", "a"), session("e")])
    assert (sessions.below("a"), sessions.below("b"), sessions.below("e")) == (3, 1, 0)
    sessions.end("a")
    sessions.add_page([session("a"), session("c", "b")])
    assert known(sessions) == ["e"]


def test_a_child_that_is_known_before_its_parent_counts_too():
    sessions = Sessions()
    sessions.add_page([session("child", "parent")])
    sessions.add_page([session("parent")])
    assert sessions.below("parent") == 1


def test_sessions_that_are_each_others_parent_do_no_harm():
    sessions = Sessions()
    sessions.add_page([session("a", "b"), session("b", "a"), session("c", "c")])
    assert (sessions.below("a"), sessions.below("c")) == (1, 0)
    sessions.end("a")
    assert known(sessions) == ["c"]


def test_ended_sessions_are_remembered_up_to_a_limit():
    sessions = Sessions()
    for number in range(MAX_ENDED + 1):
        sessions.end(str(number))
    sessions.add_page([session("0"), session("1")])
    assert known(sessions) == ["0"]


def test_the_same_again_is_no_change():
    sessions = Sessions()
    sessions.put(session("a"))
    before = sessions.revision
    sessions.put(session("a"))
    sessions.end("unknown")
    assert sessions.revision == before
    sessions.expire("a")
    assert sessions.revision > before
    assert known(sessions) == ["a"]
    assert sessions.newest_first()[0].state == EXPIRED


# --- events ---


@pytest.mark.parametrize("kind", ["created", "renewed"])
def test_an_event_says_only_that_a_session_is_new_so_it_is_asked_for(kind):
    assert Model().take_event(event(kind, "a")) == Wanted("a")


def test_an_approval_is_of_a_request_and_of_a_session():
    assert Model().take_event(event("approved", "a", request_id="r")) == Wanted("a", requests=True)


@pytest.mark.parametrize("kind", ["requested", "denied", "requestExpired", "withdrawn", "forgotten"])
def test_what_happens_to_a_request_has_the_requests_asked_for(kind):
    assert Model().take_event(event(kind, request_id="r")) == Wanted(requests=True)


def test_a_revoked_session_goes_at_once():
    model = Model()
    model.sessions.add_page([session("a"), session("b", "a")])
    assert model.take_event(event("revoked", "a")) == Wanted()
    assert len(model.sessions) == 0


def test_after_a_reset_and_after_missed_events_all_is_asked_for_again():
    assert Model().take_event(event("keyReset")) == Wanted(everything=True)
    model = Model()
    assert model.take_event(event("missed", missed=3)) == Wanted(everything=True, requests=True)
    assert model.take_event(event("refused", missed=1)).everything
    assert [(each.kind, each.times) for each in model.happenings] == [
        *(("missed", 4), ("refused", 1)),
    ]


def test_a_lock_ends_the_requests_and_an_unlock_has_all_asked_for():
    model = Model()
    model.take_status(status(), 0.0, 0)
    model.take_requests([request("r", 1.0)])
    model.take_event(event("locked", reason="suspend"))
    assert (model.is_locked, model.status.lock_reason, model.requests) == (True, "suspend", [])
    assert model.take_event(event("unlocked")) == Wanted(everything=True, requests=True)
    assert not model.is_locked


@pytest.mark.parametrize("kind", [*EVENT_KINDS, "missed", "somethingNew"])
def test_every_kind_of_event_is_taken(kind):
    model = Model()
    model.take_event(event(kind))
    model.take_event(event(kind, "a"))
    assert all(each.kind == kind for each in model.happenings)


def test_the_same_again_and_again_is_one_line_with_its_count():
    model = Model()
    for at in range(1000):
        model.take_event(event("refused", at=float(at), reason="MALFORMED", peer_pid=4711))
    model.take_event(event("refused", reason="MALFORMED", peer_pid=4712))
    assert [(each.times, each.pid) for each in model.happenings] == [(1000, 4711), (1, 4712)]
    assert model.happenings[0].at == 999.0


def test_no_more_lines_are_kept_than_the_limit():
    model = Model()
    for number in range(MAX_HAPPENINGS + 5):
        model.take_event(event("created", str(number)))
    assert len(model.happenings) == MAX_HAPPENINGS
    assert (model.happenings[0].about, model.appended) == ("5", MAX_HAPPENINGS + 5)


def test_the_audit_log_is_what_happened_before():
    entry = AuditEntry(1.0, 2.0, "refused", None, "", "EXPIRED", 1000, 4711, "/usr/bin/curl", 7)
    model = Model()
    model.take_audit([entry._replace(kind="approved", request_id="r", times=1), entry])
    refused, approved = model.happenings
    assert (refused.kind, refused.at, refused.times, refused.exe) == ("refused", 2.0, 7, "/usr/bin/curl")
    assert (approved.about, approved.request) == ("r", True)


def test_requests_that_wait_stand_before_the_remembered_and_the_oldest_first():
    model = Model()
    model.take_requests([request("c", 3.0), request("r", 1.0, "remembered"), request("b", 2.0)])
    assert [each.id for each in model.requests] == ["b", "c", "r"]
    assert model.waiting == 2


def test_an_agent_that_is_gone_has_no_requests_and_keeps_its_sessions():
    model = Model()
    model.connect()
    model.sessions.put(session("a"))
    model.take_requests([request("r", 1.0)])
    model.lose("gone")
    assert (model.trouble, model.requests, len(model.sessions)) == ("gone", [], 1)
    model.connect()
    assert model.trouble is None


def test_another_agent_has_other_sessions():
    model = Model()
    model.take_status(status(), 0.0, 0)
    model.sessions.put(session("a"))
    model.take_status(status(agent_id=None, locked=True), 1.0, 0)
    assert len(model.sessions) == 1, "a locked agent does not say which it is"
    model.take_status(status(agent_id="b"), 2.0, 0)
    assert len(model.sessions) == 0


# --- the plot ---


def test_requests_of_this_program_are_left_out():
    activity = Activity()
    activity.sample(10.0, 100, 40)
    activity.sample(12.0, 130, 60)
    activity.sample(14.0, 131, 61)
    assert list(activity.requests) == [5.0, 0.0]


def test_refused_tokens_are_counted_by_the_sample():
    activity = Activity()
    activity.count_refused(9)
    activity.sample(10.0, 0, 0)
    activity.count_refused(3)
    activity.sample(12.0, 0, 0)
    activity.sample(14.0, 0, 0)
    assert list(activity.refused) == [1.5, 0.0]


def test_where_the_agent_could_not_be_asked_there_is_a_gap():
    activity = Activity()
    activity.sample(10.0, 100, 0)
    activity.sample(12.0, 102, 0)
    activity.interrupt()
    activity.interrupt()
    activity.sample(20.0, 3, 0)
    activity.sample(22.0, 5, 0)
    assert list(activity.requests) == [1.0, None, 1.0]


def test_a_restart_that_was_not_noticed_otherwise_is_a_gap():
    model = Model()
    model.take_status(status(100), 10.0, 0)
    model.take_status(status(110), 12.0, 0)
    model.take_status(status(5, started_at=11.0), 14.0, 0)
    model.take_status(status(9, started_at=11.0), 16.0, 0)
    assert list(model.activity.requests) == [5.0, None, 2.0]


@pytest.mark.parametrize(
    ("samples", "width", "bars"),
    [
        ([], 3, "   "),
        ([0.0, 0.0], 3, " __"),
        ([0.0, 0.001, 100.0], 3, "_.#"),
        ([50.0, None, 100.0], 3, "= #"),
        ([999.0, 1.0, 2.0], 2, "=#"),
        ([1.0], 0, ""),
    ],
)
def test_a_plot_has_a_column_for_each_sample_and_the_most_is_the_highest_bar(samples, width, bars):
    assert plot(samples, width, ASCII_BARS) == bars


def test_rates_in_words():
    assert [per_second(rate) for rate in (None, 0.0, 0.5, 9.94, 12.3, 12345.6)] == [
        *("?", "0/s", "0.5/s", "9.9/s", "12/s", "12346/s"),
    ]
