from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from agentd_client.errors import (
    AgentStoppingError,
    AgentTimeoutError,
    AgentUnreachableError,
    OutcomeUnknownError,
    ProtocolError,
)
from agentd_client.protocol import methods
from agentd_client.protocol.methods import Method
from agentd_client.transport.repeating import Attempts

EVERY_METHOD = [found for found in vars(methods).values() if isinstance(found, Method)]
CHANGES = [method for method in EVERY_METHOD if not method.repeatable]


def attempts(
    method: Method[Any] | None = methods.VERIFY_TOKEN, *, timeout: float = 5, patience: float | None = None
) -> Attempts:
    return Attempts("/the/socket", method, now=100, timeout=timeout, patience=patience)


def failed(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def test_the_methods_that_change_something_are_known() -> None:
    assert CHANGES == [
        methods.CREATE_TOKEN,
        methods.REQUEST_TOKEN,
        methods.DECIDE_REQUEST,
        methods.WITHDRAW_REQUEST,
        methods.REVOKE_TOKEN,
        methods.REVOKE_SESSIONS,
        methods.RESET_KEY,
        methods.CHANGE_PASSPHRASE,
    ]


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ECONNREFUSED, errno.EAGAIN])
def test_pauses_grow_and_end_before_the_deadline(number: int) -> None:
    trying, now, pauses = attempts(), 100.0, []
    with pytest.raises((AgentUnreachableError, AgentTimeoutError), match="/the/socket"):
        while True:
            pauses.append(trying.after_no_connection(failed(number), now))
            now += pauses[-1]
    assert pauses[:7] == [0.01, 0.02, 0.04, 0.05, 0.05, 0.05, 0.05]
    assert 104.9 < now < 105


def test_patience_ends_before_the_timeout_and_counts_from_the_first_failure() -> None:
    trying = attempts(patience=1)
    trying.after_no_connection(failed(errno.ENOENT), 103)
    trying.after_no_connection(failed(errno.ECONNREFUSED), 103.9)
    with pytest.raises(AgentUnreachableError, match="No such file"):
        trying.after_no_connection(failed(errno.ENOENT), 104)


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOTDIR, errno.EMFILE, errno.EPROTOTYPE])
def test_what_waiting_cannot_heal_is_not_waited_for(number: int) -> None:
    with pytest.raises(AgentUnreachableError, match=os.strerror(number)):
        attempts().after_no_connection(failed(number), 100)


@pytest.mark.parametrize("method", EVERY_METHOD)
def test_what_was_not_sent_whole_is_repeated_whatever_the_method(method: Method) -> None:
    trying = attempts(method)
    trying.begin()
    assert trying.after_loss(failed(errno.EPIPE), 100, reused=False) == 0.01
    trying.begin()
    trying.sent_whole()
    trying.begin()
    assert trying.after_loss(failed(errno.EPIPE), 100, reused=False) == 0.02


def test_a_connection_that_was_kept_is_replaced_at_once() -> None:
    trying = attempts()
    assert trying.after_loss(failed(errno.EPIPE), 100, reused=True) == 0
    assert trying.after_loss(failed(errno.EPIPE), 100, reused=False) == 0.01


@pytest.mark.parametrize("method", EVERY_METHOD)
def test_what_was_sent_whole_is_repeated_only_where_it_changes_nothing(method: Method) -> None:
    trying = attempts(method)
    trying.begin()
    trying.sent_whole()
    if method.repeatable:
        assert trying.after_loss(failed(errno.ECONNRESET), 100, reused=False) == 0.01
        assert type(trying.timed_out()) is AgentTimeoutError
        assert type(trying.misunderstood(ProtocolError("odd"))) is ProtocolError
    else:
        with pytest.raises(OutcomeUnknownError, match=method.name):
            trying.after_loss(failed(errno.ECONNRESET), 100, reused=True)
        assert type(trying.timed_out()) is OutcomeUnknownError
        assert type(trying.misunderstood(ProtocolError("odd"))) is OutcomeUnknownError


@pytest.mark.parametrize("method", EVERY_METHOD)
def test_a_refusal_by_a_stopping_agent_is_repeated_until_the_deadline_and_then_raised(method: Method) -> None:
    trying, refusal = attempts(method), AgentStoppingError("going")
    trying.begin()
    trying.sent_whole()
    assert trying.after_stopping(refusal, 100) == 0.01
    with pytest.raises(AgentStoppingError, match="going"):
        trying.after_stopping(refusal, 105)


def test_a_connection_lost_again_and_again_is_an_unreachable_agent() -> None:
    with pytest.raises(AgentUnreachableError, match="closed the connection"):
        attempts().after_loss(failed(errno.EPIPE), 105, reused=True)


def test_what_is_left_of_the_time_is_never_negative() -> None:
    trying = attempts()
    assert trying.seconds_left(101.5) == 3.5
    assert trying.seconds_left(105.5) == 0
