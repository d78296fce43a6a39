from __future__ import annotations

import pytest

from tests.e2e.daemon import scratch_home, serving


@pytest.fixture
def home():
    with scratch_home() as home:
        yield home


@pytest.fixture
def daemon(home):
    with serving(home) as daemon:
        yield daemon
