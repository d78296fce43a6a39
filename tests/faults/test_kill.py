"""A short run of `kill.py`."""

from __future__ import annotations

from tests.e2e.daemon import scratch_home

from .kill import kills

ROUNDS = 20


def test_kill_9_in_the_middle_of_creates_loses_no_acknowledged_session_and_no_revoke() -> None:
    with scratch_home() as home:
        created, revoked = kills(home, ROUNDS)
    assert len(created) > ROUNDS * 10
    assert len(revoked) > ROUNDS
