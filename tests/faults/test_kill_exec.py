from __future__ import annotations

import pytest

from tests.e2e.daemon import scratch_home
from tests.faults import kill_exec

pytestmark = pytest.mark.serial  # within a second, whatever else the tests do


@pytest.fixture
def home():
    with scratch_home() as home:
        yield home


def test_a_killed_command_loses_its_session_within_a_second(home):
    assert kill_exec.while_the_agent_runs(home) < 1


def test_a_killed_command_loses_its_session_within_a_second_across_a_restart(home):
    assert kill_exec.across_a_restart(home) < 1


def test_a_command_that_ended_while_no_agent_ran_is_refused_from_the_first_answer_on(home):
    assert kill_exec.while_no_agent_runs(home) == "REVOKED"
