"""Replacing the session key with grace: tokens of the earlier key verify, and allow nothing else."""

from __future__ import annotations

import pytest

from agentd.sessions import SessionManager
from agentd.sessions.records import SESSIONS_PATH
from agentd_client.errors import InvalidGraceError, ParentNotValidError, TokenNotValidError
from agentd_client.protocol import reasons


@pytest.mark.parametrize("grace", [-1, 1.5, True, "60", 7 * 86400 + 1])
async def test_an_unusable_grace_is_refused(manager, grace):
    before = manager.key_id
    with pytest.raises(InvalidGraceError):
        await manager.reset_key(grace_seconds=grace)
    assert manager.key_id == before


async def test_earlier_tokens_verify_until_the_grace_ends(manager, clock):
    created = await manager.open_session(600, "before")
    assert await manager.verify_token(created.token)
    key_id = await manager.reset_key(grace_seconds=60)
    assert manager.key_id == key_id
    assert await manager.verify_token(created.token)
    later = await manager.open_session(600, "after")
    assert [session.label for session in (await manager.list_sessions()).sessions] == ["after", "before"]
    assert manager.session_count == 2
    with pytest.raises(TokenNotValidError, match="KEY_RESET"):
        await manager.renew_token(created.token)
    with pytest.raises(ParentNotValidError):
        await manager.open_session(parent=created.token)
    clock.advance(59.9)
    assert await manager.verify_token(created.token)
    clock.advance(0.1)
    assert manager.verify_nowait(created.token).reason == reasons.KEY_RESET
    assert await manager.verify_token(later.token)
    assert manager.session_count == 1


async def test_sessions_of_the_earlier_key_are_shown_to_end_with_the_grace(manager, clock):
    sooner, later = await manager.open_session(30), await manager.open_session(600)
    unlimited, limited = await manager.open_session("never"), await manager.open_session(600, max_uses=5)
    for created in (sooner, later, unlimited):
        await manager.verify_token(created.token)
    await manager.reset_key(grace_seconds=60)
    end = clock.wall + 60
    assert {session.expires_at for session in (await manager.list_sessions()).sessions} == {end - 30, end}
    for created, shown in ((sooner, end - 30), (later, end), (unlimited, end), (limited, end)):
        assert (await manager.verify_and_consume(created.token)).session.expires_at == shown
        assert (await manager.inspect_token(created.token)).session.expires_at == shown
    assert manager.verify_nowait(later.token).session.expires_at == end
    current = await manager.open_session(600)
    assert manager.verify_nowait(current.token).session.expires_at == clock.wall + 600


async def test_the_grace_of_a_key_that_another_manager_replaced_ends_too(db, key_ring, manager, clock):
    token = await manager.create_token()
    assert await manager.verify_token(token)
    async with await SessionManager.create_session_manager(db=db, key_ring=key_ring, clock=clock) as other:
        await other.reset_key(grace_seconds=60)
    assert await manager.verify_token(token)
    clock.advance(60)
    assert not await manager.verify_token(token), "though nothing was written since the last verification"


async def test_the_clock_set_back_does_not_prolong_the_grace(manager, clock):
    token = await manager.create_token()
    await manager.reset_key(grace_seconds=60)
    clock.advance(60)
    clock.set_wall(clock.wall - 3600)
    assert not await manager.verify_token(token)


async def test_a_session_of_the_earlier_key_can_be_ended(manager):
    by_token, by_id = await manager.open_session(), await manager.open_session()
    await manager.reset_key(grace_seconds=60)
    assert await manager.revoke_token(by_token.token)
    assert await manager.revoke_token(id=by_id.id)
    assert not await manager.verify_token(by_token.token)
    assert not await manager.verify_token(by_id.token)


async def test_a_reset_without_grace_ends_an_earlier_grace_too(manager):
    first = await manager.create_token()
    await manager.reset_key(grace_seconds=600)
    second = await manager.create_token()
    await manager.reset_key()
    assert not await manager.verify_token(first)
    assert not await manager.verify_token(second)


async def test_a_second_grace_ends_the_first(manager):
    first = await manager.create_token()
    await manager.reset_key(grace_seconds=600)
    second = await manager.create_token()
    await manager.reset_key(grace_seconds=600)
    assert not await manager.verify_token(first)
    assert await manager.verify_token(second)


async def test_the_grace_survives_a_restart_and_its_key_is_deleted_afterwards(db, manager, clock):
    token = await manager.create_token()
    await manager.reset_key(grace_seconds=60)
    await manager.stop()
    await manager.start()
    assert await manager.verify_token(token)
    clock.advance(60)
    await manager.sweep()
    assert list(db.iterate(SESSIONS_PATH)) == []
    assert b"earlier" not in db.get("session-key")
    assert len(manager._keys._keys) == 1


async def test_limited_uses_are_counted_under_the_earlier_key_too(manager):
    created = await manager.open_session(max_uses=1)
    await manager.reset_key(grace_seconds=60)
    assert await manager.verify_token(created.token)
    assert not await manager.verify_token(created.token)


async def test_grace_in_a_transaction(db, manager):
    token = await manager.create_token()
    async with db.transaction() as tran:
        await manager.reset_key(tran, grace_seconds=60)
        assert await manager.verify_token(token, tran)
    assert await manager.verify_token(token)
