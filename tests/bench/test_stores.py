from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

from tests.bench import load
from tests.bench.rows import CREATE, idle_memory, last_transaction
from tests.bench.stores import populated
from tests.bench.subject import Subject


def test_an_agent_takes_the_sessions_of_a_store_that_was_filled_and_its_commits_can_be_counted():
    subject = Subject(Path(sys.executable).parent)
    with ExitStack() as stack:
        (home,) = populated(stack, 3)
        agent = stack.enter_context(subject.serving(home))
        (page,) = load.results(agent.path, [load.request(1, "listSessions", {})])
        assert len(page["sessions"]) == 3
        before = last_transaction(home)
        load.results(agent.path, [CREATE])
        assert last_transaction(home) > before
        row = idle_memory(agent)
        assert row.absent or row.ours.median > 1


def test_a_subject_is_told_apart_by_its_commands_and_not_by_the_working_directory():
    subject = Subject(Path(sys.executable).parent)
    agentd, client, *site_packages = subject._folders()
    assert Path(agentd).name == "agentd"
    assert Path(client).name == "agentd_client"
    assert site_packages
    assert all(Path(folder).is_dir() for folder in site_packages)
