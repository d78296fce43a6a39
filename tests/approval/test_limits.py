"""How often a person is asked."""

from __future__ import annotations

import pytest

from agentd.approval import Asker
from agentd.approval.limits import (
    DENIED_COUNTS,
    DENIED_SECONDS,
    MAX_NEW_OF_PROCESS,
    MAX_NEW_OF_USER,
    MAX_REMEMBERED_KEYS,
    MAX_UNASKED_OF_USER,
    MAX_WAITING,
    MAX_WAITING_OF_OTHERS,
    MAX_WAITING_OF_PROCESS,
    MAX_WAITING_OF_USER,
    WINDOW_SECONDS,
    AskingLimits,
)
from agentd.approval.terms import Terms
from agentd.process_identity import Process
from agentd_client.errors import RequestDeniedError, TooManyRequestsError
from agentd_client.protocol.results import ASK_SOCKET, PeerIdentity

READ = Terms(None, ["read"], 60, None, True)
BOTH = Terms(["api", "web"], ["read", "write"], 60, None, True)


def asker(pid: int = 1, uid: int = 1000, socket: str = "owner") -> Asker:
    return Asker(PeerIdentity(uid, pid), Process(pid, 1, "boot"), socket)


def shown(limits: AskingLimits, who: Asker, now: float = 0.0) -> bool:
    try:
        limits.count_new(who, now)
    except TooManyRequestsError:
        return False
    return True


def test_a_process_is_shown_a_few_times_within_a_window():
    limits = AskingLimits()
    assert [shown(limits, asker()) for _ in range(MAX_NEW_OF_PROCESS + 1)] == [True] * MAX_NEW_OF_PROCESS + [
        False
    ]
    assert shown(limits, asker(pid=2)), "another process is not concerned"
    assert not shown(limits, asker(), WINDOW_SECONDS - 0.1)
    assert shown(limits, asker(), WINDOW_SECONDS)


def test_a_user_with_endless_processes_is_shown_a_bounded_number_and_keeps_nobody_else_out():
    limits = AskingLimits()
    assert sum(shown(limits, asker(pid)) for pid in range(1, 1001)) == MAX_NEW_OF_USER
    assert shown(limits, asker(5000, uid=1001))
    assert shown(limits, asker(5000, socket="ask")), "the owner's programs at the ask socket count apart"
    assert sum(shown(limits, asker(pid), WINDOW_SECONDS / 2) for pid in range(1000, 3000)) == 0


def test_what_is_kept_is_bounded_and_the_user_is_not_forgotten_before_processes():
    limits = AskingLimits()
    for uid in range(10 * MAX_REMEMBERED_KEYS):
        shown(limits, asker(uid + 1, uid=uid))
        limits.deny(asker(uid + 1, uid=uid), ("program", uid), READ, 0.0)
    assert len(limits._new) <= MAX_REMEMBERED_KEYS
    assert len(limits._denied) <= MAX_REMEMBERED_KEYS


def test_requests_that_wait_are_bounded_by_process_and_by_user():
    limits = AskingLimits()
    limits.check_waiting(asker(), [asker()] * (MAX_WAITING_OF_PROCESS - 1))
    with pytest.raises(TooManyRequestsError, match="of this process"):
        limits.check_waiting(asker(), [asker()] * MAX_WAITING_OF_PROCESS)
    of_user = [asker(pid) for pid in range(2, 2 + MAX_WAITING_OF_USER)]
    with pytest.raises(TooManyRequestsError):
        limits.check_waiting(asker(), of_user)
    limits.check_waiting(asker(uid=7), of_user)


def test_others_together_do_not_keep_the_owner_out():
    limits = AskingLimits()
    others = [asker(uid, uid=uid, socket=ASK_SOCKET) for uid in range(100, 100 + MAX_WAITING_OF_OTHERS)]
    with pytest.raises(TooManyRequestsError):
        limits.check_waiting(asker(uid=7, socket=ASK_SOCKET), others)
    limits.check_waiting(asker(), others)
    assert len(others) + MAX_WAITING_OF_USER == MAX_WAITING, "the owner's socket has one user"


def test_sessions_without_a_person_are_bounded_too():
    limits = AskingLimits()
    for pid in range(MAX_UNASKED_OF_USER):
        limits.count_unasked(asker(pid + 1), 0.0)
    with pytest.raises(TooManyRequestsError):
        limits.count_unasked(asker(9999), 0.0)
    assert shown(limits, asker(9999)), "they do not take the places of those that a person is shown"


def test_a_denied_request_is_denied_again_for_a_while():
    limits = AskingLimits()
    limits.deny(asker(), "program", READ, 0.0)
    with pytest.raises(RequestDeniedError):
        limits.check_denied("program", READ, DENIED_SECONDS - 0.1)
    limits.check_denied("program", READ, DENIED_SECONDS)
    limits.check_denied("other", READ, 0.0)
    limits.check_denied("program", READ._replace(scopes=["write"]), 0.0)


def test_the_same_names_in_another_order_are_the_same_question():
    limits = AskingLimits()
    limits.deny(asker(), "program", BOTH, 0.0)
    with pytest.raises(RequestDeniedError):
        limits.check_denied("program", BOTH._replace(scopes=["write", "read"], audience=["web", "api"]), 1.0)


def test_a_program_that_starts_anew_after_every_no_is_shown_less_often():
    limits, found = AskingLimits(), 0
    for pid in range(1, 101):
        if shown(limits, asker(pid)):
            limits.deny(asker(pid), pid, READ, 0.0)
            found += 1
    assert found == MAX_NEW_OF_USER // DENIED_COUNTS
    assert shown(limits, asker(200, socket=ASK_SOCKET))
    assert shown(limits, asker(200), WINDOW_SECONDS)
