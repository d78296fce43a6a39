from __future__ import annotations

import pytest

from agentd.testing import TestAgent


@pytest.fixture
def agent(agentd_agent: TestAgent) -> TestAgent:
    return agentd_agent
