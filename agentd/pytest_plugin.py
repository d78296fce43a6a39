"""Fixtures for the tests of programs that agentd guards; pytest loads them once `agentd` is installed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from agentd_client import Session

    from .testing import TestAgent


@pytest.fixture
def agentd_agent(monkeypatch: pytest.MonkeyPatch) -> Iterator[TestAgent]:
    """A real agent, to which every client in this process and its children goes by itself."""
    from .testing import TestAgent

    with TestAgent() as agent:
        monkeypatch.setenv("AGENTD_SOCKET", agent.socket_path)
        for variable in ("AGENTD_TOKEN", "AGENTD_TOKEN_FD"):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setenv("AGENTD_SESSION_TOKEN_PATH", agent.token_path)
        yield agent


@pytest.fixture
def agentd_session(agentd_agent: TestAgent) -> Session:
    """A `Session` of that agent: somebody has logged in."""
    from agentd_client import Session

    return Session.create_session(session_token=agentd_agent.create_token(label="test").token)
