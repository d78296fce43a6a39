from __future__ import annotations

from collections.abc import Callable

import pytest

from agentd.keys import KeyRing
from agentd.sessions import SessionManager
from agentd.store import DB, environment
from tests.clocks import ManualClock

MAP_BYTES = 1024 * 1024


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
async def small_db(tmp_path, key_ring):
    """A store that cannot grow."""
    db = DB(tmp_path / "store", key_ring, map_bytes=MAP_BYTES, max_map_bytes=MAP_BYTES)
    await db.start()
    async with db:
        yield db


@pytest.fixture
def full(small_db, monkeypatch) -> Callable[[bool], None]:
    """Makes that store full, by declaring all free space the reserve, or undoes that."""
    before = {name: getattr(environment, name) for name in ("RESERVE_PAGES", "RESERVE_SHARE", "LAST_SHARE")}

    def set_full(is_full: bool) -> None:
        values = (
            {"RESERVE_PAGES": MAP_BYTES, "RESERVE_SHARE": 1, "LAST_SHARE": MAP_BYTES} if is_full else before
        )
        for name, value in values.items():
            monkeypatch.setattr(environment, name, value)

    return set_full


@pytest.fixture
async def manager(db, key_ring, clock):
    async with await SessionManager.create_session_manager(db=db, key_ring=key_ring, clock=clock) as manager:
        yield manager
