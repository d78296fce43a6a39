from __future__ import annotations

import pytest

from tests.histories import agent, core
from tests.histories.model import DONE, Judged, Operation, State
from tests.histories.search import unexplained


@pytest.mark.slow
def test_every_history_of_the_core_has_an_order_that_explains_it():
    assert not core.check(range(100))


@pytest.mark.slow
def test_every_history_over_the_socket_has_an_order_that_explains_it():
    found = agent.check(range(10))
    assert not found.faults
    assert not any(found.promises.broken.values())


@pytest.mark.slow
def test_an_agent_that_is_killed_in_the_middle_keeps_every_promise():
    found = agent.check(range(4), kills=2)
    assert not found.faults
    assert not any(found.promises.broken.values())
    assert found.lost


def create(number: int, invoked: int, answered: int, **more: object) -> Operation:
    return Operation(number, "create", invoked=invoked, answered=answered, answer=DONE, **more)


def test_a_verification_after_an_acknowledged_revoke_is_not_explained():
    history = [create(0, 0, 1), Operation(1, "revoke", 0, invoked=2, answered=3, answer=True)]
    late = Operation(2, "verify", 0, invoked=4, answered=5, answer=Judged(None))
    assert unexplained([*history, late], State(0.0))
    late.invoked = 2
    assert unexplained([*history, late], State(0.0)) is None


def test_a_revoke_whose_answer_was_lost_was_carried_out_or_not_but_not_both_in_turn():
    history = [create(0, 0, 1), Operation(1, "revoke", 0, invoked=2, answered=9)]
    no = Operation(2, "verify", 0, invoked=10, answered=11, answer=Judged("REVOKED"))
    yes = Operation(3, "verify", 0, invoked=12, answered=13, answer=Judged(None))
    assert unexplained([*history, no], State(0.0)) is None
    assert unexplained([*history, yes], State(0.0)) is None
    assert unexplained([*history, no, yes], State(0.0))


def test_one_use_too_many_is_not_explained():
    uses = [
        Operation(at, "verify", 0, invoked=1 + at, answered=9 + at, answer=Judged(None, 0, 2 - at))
        for at in (1, 2)
    ]
    assert unexplained([create(0, 0, 1, uses=2), *uses], State(0.0)) is None
    more = Operation(3, "verify", 0, invoked=20, answered=21, answer=Judged(None, 0, 0))
    assert unexplained([create(0, 0, 1, uses=2), *uses, more], State(0.0))
