from __future__ import annotations

import socket

import pytest

from agentd import logs
from tests.agentd.socket_passing import listening
from tests.e2e.daemon import scratch_home


@pytest.fixture
def home():
    with scratch_home() as home:
        yield home


@pytest.fixture
def listener(home):
    """A socket as agentd.socket makes it, at the place where clients look."""
    home.socket.parent.mkdir(mode=0o700)
    with listening(home.socket) as listener:
        yield listener


@pytest.fixture
def manager(home):
    """Where a service manager hears of its services."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(home.path / "notify"))
        manager.settimeout(30)
        yield manager


@pytest.fixture
def no_log():
    """The loggers as a fresh process has them, and again afterwards."""
    logger = logs.LOGGER
    before = logger.handlers[:], logger.level, logger.propagate
    logger.handlers[:] = []
    yield
    logger.handlers[:], logger.level, logger.propagate = before
