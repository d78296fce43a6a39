"""Sliding lifetimes: generations, their overlap, the hard maximum."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from agentd.sessions import SessionManager
from agentd_client import PeerIdentity
from agentd_client.errors import InvalidExpiryError, SessionManagerNotRunningError, TokenNotValidError
from agentd_client.protocol import reasons
from tests.disk import hold_commits

OVERLAP_SECONDS = 10  # promised in docs/security.md, so it is not imported


async def settled(db):
    """Wait until everything queued is durable."""
    await db.delete("nothing")


async def test_a_renewed_session_lasts_as_long_again(manager, clock):
    created = await manager.open_session(60)
    clock.advance(40)
    renewed = await manager.renew_token(created.token)
    assert renewed.id == created.id
    assert renewed.token != created.token
    assert renewed.expires_at == pytest.approx(clock.wall + 60)
    clock.advance(50)
    assert await manager.verify_token(renewed.token)
    session = manager.inspect(renewed.token).session
    assert (session.generation, session.renewed_at) == (1, clock.wall - 50)
    clock.advance(12)
    assert not await manager.verify_token(renewed.token)


async def test_the_previous_token_is_valid_until_the_new_one_is_used_and_ten_seconds_more(db, manager, clock):
    created = await manager.open_session(3600)
    renewed = await manager.renew_token(created.token)
    clock.advance(100)
    assert await manager.verify_token(created.token), "the new one has not been used"
    assert await manager.verify_token(renewed.token)
    clock.advance(OVERLAP_SECONDS - 1)
    assert await manager.verify_token(created.token)
    clock.advance(1)
    assert manager.verify_nowait(created.token).reason == reasons.SUPERSEDED
    assert await manager.verify_token(renewed.token)
    with pytest.raises(TokenNotValidError, match="SUPERSEDED"):
        await manager.renew_token(created.token)


async def test_a_first_use_is_known_after_a_restart(db, manager, clock):
    created = await manager.open_session(3600)
    renewed = await manager.renew_token(created.token)
    assert await manager.verify_token(renewed.token)
    await settled(db)
    await manager.stop()
    await manager.start()
    clock.advance(OVERLAP_SECONDS)
    assert not await manager.verify_token(created.token)


async def test_a_first_use_is_kept_in_memory_until_it_is_stored(db, manager, clock, monkeypatch):
    created = [await manager.open_session(3600) for _ in range(3)]
    stored, refused, ended = [await manager.renew_token(each.token) for each in created]
    assert await manager.verify_token(stored.token)
    assert await manager.verify_token(ended.token)
    with monkeypatch.context() as patched:
        patched.setattr(db, "submit", lambda function: None)  # like a store that turns out to be full
        assert await manager.verify_token(refused.token)
    await manager.revoke_token(ended.token)
    await manager._upkeep.write_pending()
    assert [path[2] for path, _ in manager._verifier.uses.pending_first_uses] == [refused.id]
    clock.advance(OVERLAP_SECONDS)
    assert not any([await manager.verify_token(each.token) for each in created])


async def test_inspecting_the_new_token_does_not_end_the_previous_one(db, manager, clock):
    created = await manager.open_session(3600)
    renewed = await manager.renew_token(created.token)
    assert manager.inspect(renewed.token).valid
    await settled(db)
    clock.advance(100)
    assert await manager.verify_token(created.token)


async def test_a_clock_set_back_does_not_revive_the_previous_token(db, manager, clock):
    created = await manager.open_session(3600)
    renewed = await manager.renew_token(created.token)
    assert await manager.verify_token(renewed.token)
    await settled(db)
    clock.advance(OVERLAP_SECONDS)
    clock.set_wall(clock.wall - 1000)
    assert not await manager.verify_token(created.token)
    clock.reboot()
    assert not await manager.verify_token(created.token)


async def test_a_renewal_can_be_repeated_after_a_lost_answer(db, manager, clock):
    created = await manager.open_session(3600)
    lost = await manager.renew_token(created.token)
    again = await manager.renew_token(created.token)
    assert manager.inspect(again.token).session.generation == 1
    assert await manager.verify_token(again.token)
    assert await manager.verify_token(lost.token), "both are of the newest generation"


async def test_each_generation_has_its_overlap_however_often_a_session_is_renewed(manager, clock):
    tokens = [(await manager.open_session(3600)).token]
    for _ in range(3):
        clock.advance(3)
        tokens.append((await manager.renew_token(tokens[-1])).token)  # renewing with a token uses it

    def good():
        return [manager.inspect(token).valid for token in tokens]

    assert good() == [True, True, True, True]
    clock.advance(OVERLAP_SECONDS - 3)  # the second was used 3 s before the third
    assert good() == [False, True, True, True]
    clock.advance(3)
    assert good() == [False, False, True, True], "the fourth has not been used"
    clock.advance(1000)
    assert good() == [False, False, True, True]
    assert await manager.verify_token(tokens[3])
    clock.advance(OVERLAP_SECONDS)
    assert good() == [False, False, False, True]


async def test_in_its_overlap_an_older_generation_is_renewed_to_the_newest(manager):
    first = await manager.open_session(3600)
    second = await manager.renew_token(first.token)
    await manager.renew_token(second.token)
    assert manager.inspect((await manager.renew_token(first.token)).token).session.generation == 2


async def test_an_older_generation_stays_superseded_after_renewals_and_a_restart(manager, clock):
    tokens = [(await manager.open_session(3600)).token]
    for _ in range(20):
        tokens.append((await manager.renew_token(tokens[-1])).token)
    assert [manager.inspect(token).valid for token in tokens] == [False] * 11 + [True] * 10
    await manager.stop()
    await manager.start()
    assert manager.inspect(tokens[-3]).valid
    clock.advance(OVERLAP_SECONDS)
    clock.set_wall(clock.wall - 1000)
    tokens.append((await manager.renew_token(tokens[-1])).token)
    assert not any(manager.inspect(token).valid for token in tokens[:-3])


async def test_renewing_many_at_once_makes_one_generation(manager):
    created = await manager.open_session(3600)
    renewed = []

    async def renew():
        renewed.append(await manager.renew_token(created.token))

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(renew)
    assert {manager.inspect(one.token).session.generation for one in renewed} == {1}
    assert all([await manager.verify_token(one.token) for one in renewed])


async def test_renewing_goes_up_to_the_hard_maximum(manager, clock):
    created = await manager.open_session(60, max_lifetime=100)
    opened = clock.wall
    clock.advance(50)
    renewed = await manager.renew_token(created.token)
    assert renewed.expires_at == opened + 100
    clock.advance(52)
    with pytest.raises(TokenNotValidError, match="EXPIRED"):
        await manager.renew_token(renewed.token)


async def test_the_hard_maximum_holds_on_the_boots_clock_as_well(manager, clock):
    created = await manager.open_session(60, max_lifetime=100)
    for _ in range(4):
        clock.advance(30)
        clock.set_wall(clock.wall - 30)  # set back again and again
        if clock.boot - 1000 < 100:
            created = await manager.renew_token(created.token)
    assert not await manager.verify_token(created.token)


async def test_the_managers_own_maximum(db, key_ring, clock):
    async with await SessionManager.create_session_manager(
        db=db, key_ring=key_ring, clock=clock, expiry=60, max_lifetime=100
    ) as manager:
        plain = manager.inspect((await manager.open_session()).token).session
        longer = manager.inspect((await manager.open_session(500)).token).session
        never = manager.inspect((await manager.open_session("never")).token).session
    assert plain.max_expires_at == clock.wall + 100
    assert longer.max_expires_at == longer.expires_at == clock.wall + 500
    assert (never.max_expires_at, never.expires_at) == (None, None)


@pytest.fixture
async def limited(db, key_ring, clock):
    """A manager whose sessions last a hundred seconds at most."""
    async with await SessionManager.create_session_manager(
        db=db, key_ring=key_ring, clock=clock, expiry=500, max_lifetime=1000, lifetime_limit=100
    ) as manager:
        yield manager


async def test_a_limit_cuts_defaults_short(limited, clock):
    created = await limited.open_session()
    assert created.expires_at == clock.wall + 100
    assert limited.inspect(created.token).session.max_expires_at == clock.wall + 100
    short = await limited.open_session(60)
    opened = clock.wall
    clock.advance(50)
    assert (await limited.renew_token(short.token)).expires_at == opened + 100


@pytest.mark.parametrize(
    "asked",
    [
        {"expiry": 101},
        {"expiry": "never"},
        {"expiry": 10, "max_lifetime": 101},
        {"max_lifetime": "never"},
    ],
)
async def test_a_limit_refuses_longer_requests(limited, asked):
    with pytest.raises(
        InvalidExpiryError, match=r"exceeds the agent.s limit of 1 min 40 s .session_max_lifetime"
    ):
        await limited.open_session(**asked)
    parent = await limited.open_session()
    with pytest.raises(InvalidExpiryError):
        await limited.open_session(**asked, parent=parent.token)
    with pytest.raises(InvalidExpiryError):
        await limited.create_token("never")
    assert limited.session_count == 1
    assert await limited.verify_token(await limited.create_token(0)), "the shortest is within the limit"
    assert (await limited.open_session(100, max_lifetime=100)).expires_at is not None


async def test_a_limit_that_is_newer_than_the_session_holds_from_its_next_renewal_on(db, key_ring, clock):
    made = SessionManager.create_session_manager
    async with await made(db=db, key_ring=key_ring, clock=clock, expiry=80, max_lifetime=1000) as manager:
        created = await manager.open_session()
    opened = clock.wall
    clock.advance(50)
    async with await made(db=db, key_ring=key_ring, clock=clock, lifetime_limit=100) as manager:
        renewed = await manager.renew_token(created.token)
        assert renewed.expires_at == opened + 100
        assert (await manager.renew_token(renewed.token)).expires_at == opened + 100


async def test_a_maximum_below_the_expiry_is_the_end(manager, clock):
    created = await manager.open_session(500, max_lifetime=100)
    assert created.expires_at == clock.wall + 100


async def test_a_child_is_renewed_within_its_parents_current_end(manager, clock):
    parent = await manager.open_session(100)
    child = await manager.open_session(60, parent=parent.token)
    clock.advance(50)
    assert (await manager.renew_token(child.token)).expires_at == parent.expires_at
    longer = await manager.renew_token(parent.token)
    again = await manager.renew_token((await manager.renew_token(child.token)).token)
    assert again.expires_at == pytest.approx(clock.wall + 60)
    assert again.expires_at <= longer.expires_at


async def test_an_invalid_token_is_not_renewed(manager, clock):
    revoked, expired, used_up = [await manager.open_session(5, **more) for more in ({}, {}, {"max_uses": 1})]
    await manager.revoke_token(revoked.token)
    assert await manager.verify_token(used_up.token)
    for token, code in ((revoked.token, "REVOKED"), ("v4.local.AAAA", "MALFORMED"), (None, "MALFORMED")):
        with pytest.raises(TokenNotValidError, match=code):
            await manager.renew_token(token)
    clock.advance(10)
    with pytest.raises(TokenNotValidError, match="EXPIRED"):
        await manager.renew_token(expired.token)


async def test_a_superseded_token_is_reported_and_ends_the_session_if_set(db, key_ring, clock, caplog):
    async with await SessionManager.create_session_manager(
        db=db, key_ring=key_ring, clock=clock, revoke_on_reuse=True
    ) as manager:
        events = []
        manager.on_event(events.append)
        created = await manager.open_session(3600)
        renewed = await manager.renew_token(created.token)
        child = await manager.open_session(parent=renewed.token)
        assert await manager.verify_token(renewed.token)
        clock.advance(OVERLAP_SECONDS)
        thief = PeerIdentity(1000, 666)
        for _ in range(2):
            assert manager.verify_nowait(created.token, by=thief).reason == reasons.SUPERSEDED
        ended = ("revoked", reasons.REUSED, None)
        assert ended not in [(e.kind, e.reason, e.peer_pid) for e in events], "it is not durable yet"
        await settled(db)
        found = [(e.kind, e.reason, e.peer_pid) for e in events]
        assert ("refused", reasons.SUPERSEDED, 666) in found
        assert found.count(ended) == 1
        assert [e.session_id for e in events if e.reason == reasons.REUSED] == [created.id]
        noted = [(e.kind, e.reason, e.session_id) for e in (await manager.list_audit()).entries]
        assert noted.count(("revoked", reasons.REUSED, created.id)) == 1
        assert "may have been stolen" in caplog.text
        assert "666" in caplog.text
        assert not await manager.verify_token(renewed.token)
        assert not await manager.verify_token(child.token)


async def test_without_that_setting_the_session_stays(db, manager, clock):
    created = await manager.open_session(3600)
    renewed = await manager.renew_token(created.token)
    assert await manager.verify_token(renewed.token)
    clock.advance(OVERLAP_SECONDS)
    assert not await manager.verify_token(created.token)
    await settled(db)
    assert await manager.verify_token(renewed.token)


async def test_a_childs_end_is_not_taken_from_the_boot_clock_of_its_parents_boot(manager, clock):
    parent = await manager.open_session(600, max_lifetime=900)
    earlier = await manager.open_session(60, parent=parent.token, max_lifetime=300)
    clock.reboot()
    clock.boot = 1e9
    later = await manager.open_session(60, parent=parent.token, max_lifetime=300)
    for child in (earlier, later):
        renewed = await manager.renew_token(child.token)
        clock.advance(1)
        assert await manager.verify_token(renewed.token)
        again = await manager.renew_token(renewed.token)
        clock.advance(1)
        assert await manager.verify_token(again.token)


async def test_a_superseded_token_still_ends_its_session(manager, clock):
    created = await manager.open_session(3600)
    renewed = await manager.renew_token(created.token)
    assert await manager.verify_token(renewed.token)
    clock.advance(OVERLAP_SECONDS)
    assert await manager.revoke_token(created.token), "revoking is always allowed"
    assert not await manager.verify_token(renewed.token)


async def test_a_counted_use_of_the_new_token_ends_the_earlier_one_too(manager, clock):
    created = await manager.open_session(3600, max_uses=5)
    renewed = await manager.renew_token(created.token)
    assert await manager.verify_token(renewed.token)
    clock.advance(OVERLAP_SECONDS)
    assert manager.verify_nowait(created.token).reason == reasons.SUPERSEDED


async def test_a_child_that_never_ends_by_itself_is_renewed_to_its_parents_end(manager, clock):
    parent = await manager.open_session(100)
    child = await manager.open_session("never", parent=parent.token)
    clock.advance(50)
    assert (await manager.renew_token(child.token)).expires_at == parent.expires_at


async def test_a_renewal_during_a_stop_is_not_answered_as_invalid(db, manager):
    created = await manager.open_session(60)
    disk, told = await hold_commits(db), []

    async def renew() -> None:
        with pytest.raises((SessionManagerNotRunningError, TokenNotValidError)) as refused:
            await manager.renew_token(created.token)
        told.append(type(refused.value))

    async with trio.open_nursery() as renewing:
        try:
            renewing.start_soon(renew)
            await trio.testing.wait_all_tasks_blocked()
            await manager.stop()
        finally:
            disk.set()
    assert told == [SessionManagerNotRunningError]
    await manager.start()
    assert await manager.verify_token(created.token)


async def test_a_token_is_renewed_by_a_manager_that_has_not_loaded_its_key(db, key_ring, clock, manager):
    async with await SessionManager.create_session_manager(db=db, key_ring=key_ring, clock=clock) as other:
        await other.reset_key()
        token = await other.create_token(100)
    renewed = await manager.renew_token(token)
    assert await manager.verify_token(renewed.token)
