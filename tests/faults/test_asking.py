"""A short run of `asking.py`, and ten thousand requests."""

from __future__ import annotations

from collections import Counter

from agentd.approval.limits import MAX_NEW_OF_USER, MAX_WAITING_OF_USER
from tests.e2e.daemon import scratch_home
from tests.other_user import needs_root

from .asking import ASKERS, SHOWN, flood, run

SECONDS = 2.0
SOCKETS = 2
REQUESTS = 10_000
GROWTH_BYTES = 4_000_000
"""Of the agent's memory from two thousand requests to ten thousand. Were each kept, it would be several times that."""


def test_sixteen_programs_that_ask_without_end_are_heard_a_few_times_and_everybody_else_as_always():
    """Not how fast: `python -m tests.faults.asking` measures that."""
    outcome = run(ASKERS, SECONDS)
    assert {name: figures.failures for name, figures in outcome.calls.items() if figures.failures} == {}
    assert set(outcome.answers) == {SHOWN, "TOO_MANY_REQUESTS"}
    assert 0 < outcome.answers[SHOWN] <= SOCKETS * MAX_NEW_OF_USER
    assert 0 < outcome.most_waiting <= SOCKETS * MAX_WAITING_OF_USER
    assert outcome.left == 0


@needs_root
def test_ten_thousand_requests_leave_nothing_behind():
    """Each is shown to a person, because each process and each user asks no more often than it may."""
    with scratch_home() as home:
        found = flood(home, REQUESTS, warm_up=REQUESTS // 5)
    assert found.answers == Counter({SHOWN: REQUESTS})
    assert found.left == 0
    assert found.sessions == 0
    assert found.descriptors[1] <= found.descriptors[0]
    assert found.resident[1] - found.resident[0] < GROWTH_BYTES
