from __future__ import annotations

import pytest

from agentd.keys import KeyRing
from agentd.sessions import SessionManager
from agentd.store import DB
from tests.clocks import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def key_ring(tmp_path):
    async with await KeyRing.create_key_ring(keys_path=tmp_path / "keys") as key_ring:
        yield key_ring


@pytest.fixture
async def db(tmp_path, key_ring):
    async with await DB.create_db(db_path=tmp_path / "store", key_ring=key_ring) as db:
        yield db


@pytest.fixture
async def manager(db, key_ring, clock):
    async with await SessionManager.create_session_manager(db=db, key_ring=key_ring, clock=clock) as manager:
        yield manager
