from __future__ import annotations

import logging

import pytest

from tests.server.talk import LOGGER, FakeSessions


@pytest.fixture
def sessions() -> FakeSessions:
    return FakeSessions()


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.DEBUG, LOGGER.name)
    return caplog
