"""`TestAgent` and the fixtures of the pytest plugin, as the tests of a guarded program use them."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentd.testing import TestAgent
from agentd_client import AgentLockedError, AgentUnreachableError, Client, Session

pytest_plugins = ["pytester"]

SERVER = """
from agentd_client.ext.guard import Guard

# Made when the module is imported, before any fixture.
guards = [Guard(scopes=["read"]), Guard(scopes=["read"], cache=True)]
"""

LEFT_BEHIND = """
import os, threading

def pytest_unconfigure():
    print("threads:", [thread.name for thread in threading.enumerate() if "agentd" in thread.name])
    print("variables:", {name: value for name, value in os.environ.items() if name.startswith("AGENTD_")})
"""


def threads() -> set[threading.Thread]:
    """All but the idle threads that trio keeps for ten seconds, in case it needs one."""
    return {thread for thread in threading.enumerate() if not thread.name.startswith("Trio thread")}


@pytest.fixture
def temporary(monkeypatch) -> Iterator[Path]:
    """Where the inner runs of pytest make temporary folders: a short path, as it is with a user."""
    folder = tempfile.mkdtemp(prefix="inner-", dir="/tmp")
    monkeypatch.setenv("TMPDIR", folder)
    for variable in [name for name in os.environ if name.startswith("AGENTD_")]:
        monkeypatch.delenv(variable)
    yield Path(folder)
    shutil.rmtree(folder)


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess(
        "-p", "no:cacheprovider", f"--basetemp={pytester.path / 'base'}", *arguments
    )


# --- the agent ---


def test_an_agent_serves_until_the_end_of_its_block_and_leaves_nothing():
    before = threads()
    with TestAgent() as agent:
        folder = Path(agent.socket_path).parents[1]
        assert agent.client.verify_token(agent.create_token().token)
    assert not folder.exists()
    assert threads() == before


def test_an_agent_leaves_nothing_after_an_error_in_its_block():
    before = threads()
    with pytest.raises(ZeroDivisionError), TestAgent() as agent:
        1 / 0  # noqa: B018
    assert not Path(agent.socket_path).parents[1].exists()
    assert threads() == before


def test_an_agent_that_is_not_entered_makes_nothing():
    agent = TestAgent()
    agent.stop()
    assert not Path(agent.socket_path).parents[1].exists()


def test_several_agents_know_only_their_own_sessions():
    with TestAgent() as one, TestAgent() as another:
        token = one.create_token().token
        assert one.client.verify_token(token)
        assert not another.client.verify_token(token)


def test_time_passes_when_the_test_says_so():
    with TestAgent() as agent:
        token = agent.create_token(60).token
        agent.advance(59)
        assert agent.client.verify_token(token)
        agent.advance(3)
        assert not agent.client.verify_token(token)


def test_sessions_survive_a_restart_and_a_lock():
    with TestAgent() as agent:
        token = agent.create_token().token
        agent.stop()
        agent.stop()
        with pytest.raises(AgentUnreachableError):
            agent.client.verify_token(token)
        agent.start()
        agent.start()
        assert agent.client.verify_token(token)
        agent.lock()
        with pytest.raises(AgentLockedError):
            agent.client.verify_token(token)
        agent.unlock()
        assert agent.client.verify_token(token)
        agent.stop()
        agent.start()  # with the passphrase that `lock` has set
        assert agent.client.verify_token(token)


def test_the_verify_socket_judges_tokens_and_does_nothing_else():
    with TestAgent() as agent:
        created = agent.create_token(scopes=["read"])
        with Client.connect(agent.verify_socket_path) as verifier:
            assert verifier.judge_token(created.token, scopes=["read"]).valid
            agent.revoke(created)
            assert not verifier.judge_token(created.token, scopes=["read"]).valid


def test_an_agent_that_cannot_start_names_the_cause_and_leaves_nothing(tmp_path):
    before = threads()
    folder = tmp_path / ("long" * 30)
    with pytest.raises(RuntimeError, match="could not start: .*107") as raised, TestAgent(folder):
        pass
    assert raised.value.__cause__ is not None
    assert not folder.exists()
    assert threads() == before


def test_an_existing_folder_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("kept")
    with pytest.raises(FileExistsError), TestAgent(tmp_path):
        pass
    assert (tmp_path / "mine").read_text() == "kept"


# --- the fixtures ---


def test_every_client_goes_to_the_agent_of_the_test(agentd_agent):
    with Client.connect() as client:
        assert client.socket_path == agentd_agent.socket_path
        assert client.verify_token(agentd_agent.create_token().token)


def test_somebody_has_logged_in(agentd_agent, agentd_session):
    token = Session.create_session().read_token()
    assert token == agentd_session.read_token()
    assert agentd_agent.client.verify_token(token)


def test_a_test_that_undoes_its_patches_keeps_its_agent(agentd_agent, monkeypatch):
    monkeypatch.setenv("AGENTD_SOCKET", "/nowhere")
    monkeypatch.undo()
    assert os.environ["AGENTD_SOCKET"] == agentd_agent.socket_path


def test_a_guard_that_was_made_on_import_asks_the_agent_of_each_test(pytester, temporary):
    pytester.makepyfile(
        server=SERVER,
        test_it="""
        import pytest
        from agentd_client.ext.guard import Denied
        from server import guards

        TOKENS = []

        @pytest.mark.parametrize("guard", guards)
        @pytest.mark.parametrize("turn", range(3))
        def test_turn(agentd_agent, guard, turn):
            token = agentd_agent.create_token(scopes=["read"], label=str(turn)).token
            assert guard.admit([f"Bearer {token}"]).label == str(turn)
            for earlier in TOKENS:  # of agents that are gone
                with pytest.raises(Denied) as denied:
                    guard.admit([f"Bearer {earlier}"])
                assert denied.value.status == 401
            TOKENS.append(token)

        @pytest.mark.parametrize("guard", guards)
        def test_without_credentials(agentd_agent, guard):
            with pytest.raises(Denied) as denied:
                guard.admit([])
            assert denied.value.status == 401
        """,
    )
    run(pytester, "-p", "no:xdist").assert_outcomes(passed=8)


def test_a_failed_test_leaves_neither_thread_nor_folder_nor_variable(pytester, temporary, monkeypatch):
    monkeypatch.setenv("AGENTD_TOKEN", "v4.local.of-the-developer")
    pytester.makeconftest(LEFT_BEHIND)
    pytester.makepyfile(
        """
        import os

        def test_it(agentd_agent, agentd_session):
            assert "AGENTD_TOKEN" not in os.environ
            assert not agentd_agent.client.verify_token(agentd_session.read_token())

        def test_it_stopped(agentd_agent):
            agentd_agent.stop()
            raise KeyError
        """
    )
    result = run(pytester, "-p", "no:xdist")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["threads: []", "variables: {'AGENTD_TOKEN': 'v4.local.of-the-developer'}"])
    assert list(temporary.iterdir()) == []


def test_an_agent_that_cannot_start_is_an_error_that_names_the_cause(pytester, temporary):
    pytester.makeconftest(LEFT_BEHIND)
    pytester.makepyfile(
        """
        import resource

        def test_on_a_full_disk(request):
            before = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
            try:
                request.getfixturevalue("agentd_agent")
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
        """
    )
    result = run(pytester, "-p", "no:xdist")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E *RuntimeError: the test agent could not start: *File too large*"])
    result.stdout.fnmatch_lines(["threads: []", "variables: {}"])
    assert list(temporary.iterdir()) == []


def test_a_long_name_of_the_folder_for_temporary_files_is_no_obstacle(pytester, temporary, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(pytester.mkdir("long" * 30)))
    pytester.makepyfile("def test_it(agentd_agent): assert agentd_agent.create_token()")
    run(pytester, "-p", "no:xdist").assert_outcomes(passed=1)


def test_workers_have_an_agent_each(pytester, temporary):
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("turn", range(8))
        def test_turn(agentd_agent, turn):
            agentd_agent.create_token()
            assert len(agentd_agent.client.list_sessions().sessions) == 1
        """
    )
    run(pytester, "-n", "2").assert_outcomes(passed=8)
    assert list(temporary.iterdir()) == []


def test_a_project_that_does_not_use_the_fixtures_imports_nothing(pytester, temporary):
    pytester.makepyfile(
        """
        import sys

        def test_it():
            assert "agentd.pytest_plugin" in sys.modules
            assert not {"agentd.testing", "agentd.main", "trio", "lmdb", "nacl"} & sys.modules.keys()
        """
    )
    # These plugins of the environment import trio themselves.
    run(pytester, "-p", "no:trio", "-p", "no:anyio", "-p", "no:hypothesispytest").assert_outcomes(passed=1)
    assert list(temporary.iterdir()) == []


def test_the_plugin_can_be_switched_off(pytester, temporary):
    pytester.makepyfile("def test_it(agentd_agent): pass")
    result = run(pytester, "-p", "no:agentd")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["E *fixture 'agentd_agent' not found"])
