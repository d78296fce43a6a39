from __future__ import annotations

import pytest

from tests.agentctl.fake_agent import FakeAgent
from tests.agentctl.top.piloting import Requests


@pytest.fixture
def agent(folder):
    with FakeAgent(folder / "agent.sock") as agent:
        Requests(agent)
        yield agent
