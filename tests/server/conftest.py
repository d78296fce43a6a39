from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator

import pytest

from agentd.keys import KeyRing
from agentd.sessions import SessionManager
from agentd.store import DB
from tests.clocks import ManualClock
from tests.server.talk import LOGGER, FakeSessions


@pytest.fixture
def sessions() -> FakeSessions:
    return FakeSessions()


@pytest.fixture
def path(tmp_path) -> str:
    return str(tmp_path / "sock")


@pytest.fixture
def listener(path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen(512)
        yield listener


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.DEBUG, LOGGER.name)
    return caplog


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def manager(tmp_path, clock) -> AsyncIterator[SessionManager]:
    async with (
        await KeyRing.create_key_ring(keys_path=tmp_path / "keys") as key_ring,
        await DB.create_db(db_path=tmp_path / "store", key_ring=key_ring) as db,
        await SessionManager.create_session_manager(db=db, key_ring=key_ring, clock=clock) as manager,
    ):
        yield manager
