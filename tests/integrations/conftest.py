from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from agentd.testing import TestAgent
from tests.e2e.daemon import Home, scratch_home


@pytest.fixture
def agent(agentd_agent: TestAgent) -> TestAgent:
    return agentd_agent


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """A scratch HOME, which is that of every command that the test starts."""
    with scratch_home() as home:
        for name in os.environ.keys() - home.environ.keys():
            monkeypatch.delenv(name)
        for name, value in home.environ.items():
            monkeypatch.setenv(name, value)
        yield home
