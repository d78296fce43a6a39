from __future__ import annotations

import pytest

from agentd_client import SessionInfo
from agentd_client.token_file.renewal import is_due, pause_after_failure


def info(
    *,
    expires: float | None = 1900.0,
    created: float = 1000.0,
    renewed: float = 1000.0,
    longest: float | None = None,
    uses_left: int | None = None,
) -> SessionInfo:
    return SessionInfo(
        "s-1", "", created, expires, None, renewed_at=renewed, max_expires_at=longest, uses_left=uses_left
    )


@pytest.mark.parametrize(
    ("session", "now", "due"),
    [
        (info(), 999.0, False),
        (info(), 1000.0, False),
        (info(), 1599.9, False),
        (info(), 1600.1, True),
        (info(), 1899.0, True),
        # Valid until a second after its end, and by another clock than ours.
        (info(), 2000.0, True),
        (info(expires=2500.0, renewed=1600.0), 1600.1, False),
        (info(expires=2500.0, renewed=1600.0), 2199.9, False),
        (info(expires=2500.0, renewed=1600.0), 2200.1, True),
        # An agent that does not know when it was renewed: from its beginning.
        (info(renewed=0.0), 1599.9, False),
        (info(renewed=0.0), 1600.1, True),
        # There is nothing to be won.
        (info(expires=None), 1e12, False),
        (info(longest=1900.0), 1899.0, False),
        (info(longest=1899.9), 1899.0, False),
        (info(longest=1900.1), 1899.0, True),
        (info(longest=90_000.0), 1599.9, False),
        (info(longest=90_000.0), 1600.1, True),
        (info(uses_left=0), 1899.0, False),
        (info(uses_left=1), 1899.0, True),
        # No lifetime at all.
        (info(expires=1000.0), 1000.0, True),
    ],
)
def test_a_session_is_due_after_two_thirds_of_its_present_lifetime(
    session: SessionInfo, now: float, due: bool
) -> None:
    assert is_due(session, now) is due


@pytest.mark.parametrize(
    ("session", "now", "pause"),
    [
        (info(), 1600.0, 37.5),
        (info(), 1892.0, 1.0),
        (info(), 1900.0, 0.0),
        (info(), 2000.0, 0.0),
        (info(expires=90_000.0), 60_000.0, 60.0),
        (info(expires=None), 1000.0, 0.0),
    ],
)
def test_after_a_failure_there_are_several_more_attempts_before_the_end(
    session: SessionInfo, now: float, pause: float
) -> None:
    assert pause_after_failure(session, now) == pause
