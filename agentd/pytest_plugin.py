"""Fixtures for the tests of programs that agentd guards; pytest loads them once `agentd-daemon` is installed.

Nothing is imported or made before a test uses one. `-p no:agentd` switches them off.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from agentd_client import Session

    from .testing import TestAgent


@pytest.fixture(scope="session")
def _agentd_folder() -> Iterator[str]:
    # One path for all agents of this process: the guard of a server that is imported once asks at one path.
    from .testing import scratch_parent

    with tempfile.TemporaryDirectory(prefix="agentd-test-", dir=scratch_parent()) as folder:
        yield folder


@pytest.fixture
def agentd_agent(_agentd_folder: str) -> Iterator[TestAgent]:
    """A real agent, to which every client in this process and its children goes by itself."""
    from agentd_client.paths import TOKEN_VARIABLES

    from .testing import TestAgent

    # Not the fixture `monkeypatch`: a test may undo that.
    with TestAgent(os.path.join(_agentd_folder, "agent")) as agent, pytest.MonkeyPatch.context() as patch:
        for variable in TOKEN_VARIABLES:
            patch.delenv(variable, raising=False)
        for variable, value in agent.environ.items():
            patch.setenv(variable, value)
        yield agent


@pytest.fixture
def agentd_session(agentd_agent: TestAgent) -> Iterator[Session]:
    """A `Session` of that agent: somebody has logged in. Every scope, any audience."""
    from agentd_client import Session

    with Session.create_session(session_token=agentd_agent.create_token(label="test").token) as session:
        yield session
