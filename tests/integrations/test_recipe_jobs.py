"""docs/recipes/jobs.md, as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from . import recipes
from .serving import PATH

PAGE = "jobs.md"
(COMMANDS,) = re.findall(r"```sh\n(agentctl list .*?)```", (recipes.RECIPES / PAGE).read_text(), re.S)


@pytest.fixture(autouse=True)
def files(tmp_path):
    recipes.write_files(PAGE, tmp_path)


@pytest.fixture
def waiting(agent, tmp_path):
    """The runner with two jobs, of which the first waits to be told to go on."""
    recipes.carried_out("$ agentctl login --label runner\n", tmp_path, ("", ""))
    command = [sys.executable, "runner.py", "echo ready; read line; sh job.sh", "true"]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=os.environ | {"PATH": PATH},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as runner:
        try:
            assert runner.stdout.readline() == "ready\n"
            yield runner
        finally:
            runner.kill()


def job(agent):
    (session,) = agent.client.list_sessions(label="job 1").sessions
    return session


def test_the_recipe_runs(agent, tmp_path):
    shown = recipes.transcript(PAGE)
    assert recipes.carried_out(shown, tmp_path, ("", "")) == shown
    assert [session.label for session in agent.client.list_sessions(state="active").sessions] == ["runner"]


def test_a_job_has_a_narrower_session_below_its_runners(agent, waiting):
    (runner,) = agent.client.list_sessions(label="runner").sessions
    session = job(agent)
    assert (session.parent, session.scopes, session.audience) == (runner.id, ["read"], ["artifacts"])
    assert session.expires_at - session.created_at == 1200


def test_the_commands_end_what_they_say(agent, waiting, tmp_path):
    listed, revoked, logged_out = (line.partition("#")[0] for line in COMMANDS.splitlines())
    assert "job 1" in recipes.carried_out(f"$ {listed}\n?\n", tmp_path, ("", ""))
    recipes.carried_out(f"$ {revoked}\n", tmp_path, ("", ""))
    assert [session.label for session in agent.client.list_sessions(state="active").sessions] == ["runner"]
    said, _ = waiting.communicate("\n")
    assert said.startswith("read: invalid REVOKED\nwrite: invalid REVOKED\njob 1 ended with 0\njob 2 ended")
    recipes.carried_out(f"$ {logged_out}\n", tmp_path, ("", ""))
    assert not agent.client.list_sessions(state="active").sessions


def test_logging_out_ends_the_jobs(agent, waiting, tmp_path):
    recipes.carried_out("$ agentctl logout\n", tmp_path, ("", ""))
    assert not agent.client.list_sessions(state="active").sessions


def test_a_killed_runners_jobs_lose_their_sessions(agent, waiting):
    session = job(agent)
    with agent.client.subscribe() as events:
        waiting.kill()
        ended = next(event for event in events if event.kind == "revoked")
    assert ended.session_id == session.id
