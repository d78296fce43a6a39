from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path

import pytest

from agentd_client.cli import interrupts
from tests.agentctl.fake_agent import FakeAgent


@pytest.fixture(autouse=True)
def folder(monkeypatch):
    """A scratch runtime folder (a short path: a socket's has at most 107 bytes) and a clean environment."""
    with tempfile.TemporaryDirectory(prefix="agentctl-") as name:
        ours = [variable for variable in os.environ if variable.startswith("AGENTD_")]
        for variable in (*ours, "COLUMNS", "NO_COLOR", "SHELL"):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setenv("XDG_RUNTIME_DIR", name)
        monkeypatch.setenv("HOME", name)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("TZ", "UTC")
        time.tzset()
        (Path(name) / "agentd").mkdir(mode=0o700)
        yield Path(name) / "agentd"
    monkeypatch.undo()
    time.tzset()


@pytest.fixture(autouse=True)
def sigint():
    """What a program's `main` makes of SIGINT, undone."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)
    interrupts.forget()


@pytest.fixture
def agent(folder):
    with FakeAgent(folder / "agent.sock") as agent:
        yield agent


@pytest.fixture
def token_file(folder):
    return folder / "session-token"


@pytest.fixture
def logged_in(agent, token_file):
    """The token of a session with the label "desk", in the token file."""
    token = agent.open(label="desk")
    token_file.write_text(token + "\n")
    token_file.chmod(0o600)
    return token
