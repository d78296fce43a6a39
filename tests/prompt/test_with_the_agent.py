"""The real agent, a program that asks it, and the person at the desktop."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.e2e.daemon import scratch_home
from tests.e2e.locked import PASSPHRASE, protect, unlocked
from tests.prompt.desktop import until

ASKS = """
import sys
from agentd_client import Client
from agentd_client.errors import AgentdError
with Client.connect(timeout=60) as agent:
    try:
        granted = agent.request_token(600, scopes=["deploy"], reason="push the release", bound=True)
    except AgentdError as error:
        print(error.code)
    else:
        print(granted.scopes, agent.verify_token(granted.token, scopes=["deploy"]))
        sys.stdin.read()
"""


@pytest.fixture
def home(folder, monkeypatch):
    """An unlocked agent at which approving takes the passphrase, in the environment."""
    with scratch_home() as home:
        protect(home)
        settings = home.path / "config" / "agentd" / "config.toml"
        settings.parent.mkdir(parents=True)
        settings.write_text('opening = "passphrase"\n')
        for name, value in home.environ.items():
            monkeypatch.setenv(name, value)
        with unlocked(home) as daemon:
            home.daemon = daemon
            yield home


@pytest.fixture
def asking():
    """Starts a program that asks for a session and says what came of it."""
    programs: list[subprocess.Popen[str]] = []

    def ask() -> subprocess.Popen[str]:
        program = subprocess.Popen(
            [sys.executable, "-c", ASKS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            text=True,
        )
        programs.append(program)
        return program

    yield ask
    for program in programs:
        program.kill()
        program.communicate()


def said(program: subprocess.Popen[str]) -> str:
    assert program.stdout is not None
    return program.stdout.readline().strip()


@pytest.fixture
def typing(folder, monkeypatch, without_pinentry):
    """Sets the passphrase that the person types."""

    def set_typed(passphrase: str) -> None:
        program = folder / "askpass"
        program.write_text(f"#!/bin/sh\necho '{passphrase}'\n")
        program.chmod(0o700)
        monkeypatch.setenv("AGENTD_ASKPASS", str(program))

    return set_typed


def test_approve_and_the_passphrase_open_the_session(home, notifying, typing, started, asking):
    typing(PASSPHRASE)
    started()
    program = asking()
    (shown,) = notifying.wait_for(1)
    assert f"process: {program.pid}; " in shown.body
    assert "scopes: deploy; audience: anyone; lasts: 10 min; " in shown.body
    assert 'says: "push the release"' in shown.body
    notifying.press(shown.id, "approve")
    assert said(program) == "['deploy'] True"


def test_a_wrong_passphrase_opens_none_and_the_request_waits_for_others(
    home, notifying, typing, started, asking
):
    typing("wrong")
    prompt = started()
    program = asking()
    notifying.press(notifying.wait_for(1)[0].id, "approve")
    prompt.wait_until_said("had no effect: ")
    with home.daemon.client() as agent:
        (request,) = agent.list_requests().requests
        agent.decide_request(request.id, "deny")
    assert said(program) == "DENIED"
    assert PASSPHRASE not in prompt.said()


def test_deny_denies(home, notifying, started, asking):
    started()
    program = asking()
    notifying.press(notifying.wait_for(1)[0].id, "deny")
    assert said(program) == "DENIED"


def test_the_notification_closes_when_another_terminal_decides(home, notifying, typing, started, asking):
    typing(PASSPHRASE)
    started()
    program = asking()
    (shown,) = notifying.wait_for(1)
    with home.daemon.client() as agent:
        (request,) = agent.list_requests().requests
        agent.decide_request(request.id, "approve", passphrase=PASSPHRASE)
    assert said(program) == "['deploy'] True"
    until(lambda: notifying.closed() == [shown.id])


def test_it_closes_when_the_program_ends_and_when_the_agent_is_locked(home, notifying, started, asking):
    started()
    program = asking()
    assert notifying.wait_for(1)
    program.kill()
    until(lambda: notifying.closed() == [1])
    program = asking()
    assert notifying.wait_for(2)
    with home.daemon.client() as agent:
        agent.lock()
    until(lambda: notifying.closed() == [1, 2])
    assert said(program) == "LOCKED"


def test_a_new_agent_is_followed(home, notifying, typing, started, asking):
    typing(PASSPHRASE)
    prompt = started()
    prompt.wait_until_said("asking about requests")
    home.daemon.stop()
    prompt.wait_until_said("the agent is gone")
    with unlocked(home):
        program = asking()
        notifying.press(notifying.wait_for(1)[0].id, "approve")
        assert said(program) == "['deploy'] True"
