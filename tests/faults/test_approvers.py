"""Two decisions at once, as often as `approvers.py` does it."""

from __future__ import annotations

from tests.e2e.daemon import scratch_home
from tests.other_user import needs_root

from .approvers import ROUNDS, deaths, rounds


@needs_root
def test_of_two_decisions_at_the_same_moment_one_counts_and_the_asker_gets_what_it_granted():
    with scratch_home() as home:
        done, sessions = rounds(home, ROUNDS)
    assert len(done) == ROUNDS
    assert [fault for each in done for fault in each.faults()] == []
    granted = [each.outcome.result["sessionId"] for each in done if each.outcome.code is None]
    assert sorted(granted) == sorted(session.id for session in sessions), "and nothing else was opened"
    assert 0 < len(granted) < ROUNDS


@needs_root
def test_of_a_decision_and_the_askers_death_at_the_same_moment_nothing_is_left():
    with scratch_home() as home:
        answers = deaths(home, ROUNDS // 4)
    assert set(answers) <= {None, "NO_SUCH_REQUEST", "OWN_REQUEST", "CANNOT_BIND"}
