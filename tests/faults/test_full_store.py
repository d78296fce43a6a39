"""Sessions in a store that can hold no more: what ends them works, and what opens one is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentd.keys import KeyRing
from agentd.sessions import SessionManager, journal
from agentd.sessions.records import KEY_PATH
from agentd.store import DB, environment
from agentd_client import StoreFullError
from tests.clocks import ManualClock
from tests.faults.full_disk import create_until_full, verify

MAP_BYTES = 1024 * 1024
HOUR = 3600


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def manager(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[SessionManager]:
    # With so little room the log would take most of it.
    monkeypatch.setattr(journal, "MAX_ENTRIES", 100)
    key_ring = await KeyRing.create_key_ring(keys_path=tmp_path / "keys")
    db = DB(tmp_path / "store", key_ring, map_bytes=MAP_BYTES, max_map_bytes=MAP_BYTES)
    async with key_ring, db:
        await db.start()
        async with await SessionManager.create_session_manager(
            db=db, key_ring=key_ring, expiry=HOUR, clock=clock
        ) as manager:
            yield manager


async def test_every_session_of_a_full_store_can_be_revoked(manager: SessionManager) -> None:
    tokens = await create_until_full(manager)
    assert len(tokens) > 1000
    await verify(manager, tokens, expected=True)
    assert [await manager.revoke_token(token) for token in tokens] == [True] * len(tokens)
    assert manager.session_count == 0
    assert len(await create_until_full(manager)) > 1000


async def test_the_key_of_a_full_store_can_be_reset_and_what_ended_be_swept(manager: SessionManager) -> None:
    tokens = await create_until_full(manager)
    for _ in range(50):
        await manager.reset_key()
    await verify(manager, tokens, expected=False)
    assert await manager.sweep() == len(tokens)
    again = await create_until_full(manager)
    assert len(again) > 1000
    await verify(manager, again, expected=True)


async def test_expired_sessions_of_a_full_store_are_swept_whether_or_not_they_were_seen(
    manager: SessionManager, clock: ManualClock
) -> None:
    tokens = await create_until_full(manager)
    clock.advance(2 * HOUR)
    await verify(manager, tokens[::7], expected=False)  # seen expired, all over the store
    assert await manager.sweep() == len(tokens)
    assert len(await create_until_full(manager)) > 1000


async def test_a_full_store_stops_with_much_that_was_seen_expired(
    manager: SessionManager, clock: ManualClock
) -> None:
    tokens = await create_until_full(manager)
    clock.advance(2 * HOUR)
    await verify(manager, tokens, expected=False)
    await manager.stop()
    await manager.start()
    assert manager.session_count == 0


@pytest.mark.parametrize("how", ["start", "reset"])
async def test_a_store_with_nothing_but_the_reserve_takes_a_key(
    manager: SessionManager, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    token = await manager.create_token()
    await manager._db.delete(KEY_PATH)
    # As full as can be: all that there is counts as the reserve.
    monkeypatch.setattr(environment, "RESERVE_PAGES", MAP_BYTES)
    monkeypatch.setattr(environment, "RESERVE_SHARE", 1)
    monkeypatch.setattr(environment, "LAST_SHARE", MAP_BYTES)
    with pytest.raises(StoreFullError):
        await manager.create_token()
    if how == "reset":
        assert await manager.reset_key()
    else:
        await manager.stop()
        await manager.start()
    assert manager.key_id
    assert not await manager.verify_token(token)


@pytest.mark.parametrize("how", ["fresh", "destroy"])
async def test_a_full_store_can_be_begun_anew(manager: SessionManager, how: str) -> None:
    tokens = await create_until_full(manager)
    await manager.stop()
    if how == "destroy":
        await manager.destroy()
        return
    await manager.start(fresh=True)
    await verify(manager, tokens, expected=False)
    assert manager.session_count == 0
    assert len(await create_until_full(manager)) > 1000
