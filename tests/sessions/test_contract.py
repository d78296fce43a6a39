"""The manager's promises in the public API: one test per promise, named after it."""

from __future__ import annotations

import math
import random

import pytest
import trio

from agentd.sessions import SessionManager
from agentd_client import NEVER
from agentd_client.errors import (
    InvalidExpiryError,
    SessionManagerDestroyedError,
    SessionManagerNotRunningError,
    SessionManagerRunningError,
)
from agentd_client.lifecycle import LifecycleEvent, State

CENTURY = 100 * 366 * 24 * 3600


async def test_fresh_forgets_every_session_and_the_key(db, key_ring, clock, manager):
    token, key = await manager.create_token(), bytes(await manager.setup_key())
    await manager.stop()
    await manager.start(fresh=True)
    assert not await manager.verify_token(token)
    assert bytes(await manager.setup_key()) != key
    assert manager.session_count == 0


async def test_creating_with_fresh_forgets_every_session(db, key_ring, clock, manager):
    token = await manager.create_token()
    await SessionManager.create_session_manager(db=db, key_ring=key_ring, clock=clock, fresh=True)
    assert not await manager.verify_token(token)


async def test_destroy_clears_every_session_related_record(db, manager):
    await manager.create_token()
    await db.put(("other", "record"), b"stays")
    await manager.stop()
    await manager.destroy()
    paths = [path for path, _ in db.iterate() if path[0] != b"audit"]
    assert paths == [(b"other", b"record")]


async def test_the_key_survives_stop_and_start(manager):
    token, key = await manager.create_token(), bytes(await manager.setup_key())
    await manager.stop()
    await manager.start()
    assert bytes(await manager.setup_key()) == key
    assert await manager.verify_token(token)


async def test_the_key_survives_in_a_second_manager_on_the_same_store(db, key_ring, clock, manager):
    token, key = await manager.create_token(), bytes(await manager.setup_key())
    second = await SessionManager.create_session_manager(db=db, key_ring=key_ring, clock=clock)
    assert bytes(await second.setup_key()) == key
    assert await second.verify_token(token)
    await second.reset_key()
    assert not await manager.verify_token(token), "the first manager sees what the second did"


async def test_setup_key_never_replaces_a_key_that_is_there(db, key_ring, clock):
    managers = [SessionManager(db, key_ring, clock=clock) for _ in range(8)]
    async with trio.open_nursery() as nursery:
        for manager in managers:
            nursery.start_soon(manager.start)
    keys = {bytes(await manager.setup_key()) for manager in managers for _ in range(3)}
    assert len(keys) == 1


async def test_after_reset_key_every_earlier_token_is_invalid_and_new_ones_verify(manager):
    earlier = [await manager.create_token() for _ in range(5)]
    assert all([await manager.verify_token(token) for token in earlier])
    await manager.reset_key()
    assert not any([await manager.verify_token(token) for token in earlier])
    assert await manager.verify_token(await manager.create_token())


async def test_under_a_tran_the_new_key_is_seen_through_that_tran_only_until_it_commits(db, manager):
    before = await manager.create_token()
    async with db.transaction() as tran:
        await manager.reset_key(tran)
        after = await manager.create_token(1800, tran)
        assert await manager.verify_token(after, tran)
        assert not await manager.verify_token(before, tran)
        assert await manager.verify_token(before)
        assert not await manager.verify_token(after)
    assert await manager.verify_token(after)
    assert not await manager.verify_token(before)


async def test_a_rolled_back_tran_leaves_old_tokens_valid(db, manager):
    before = await manager.create_token()
    with pytest.raises(RuntimeError, match="changed my mind"):
        async with db.transaction() as tran:
            await manager.reset_key(tran)
            after = await manager.create_token(1800, tran)
            raise RuntimeError("changed my mind")
    assert await manager.verify_token(before)
    assert not await manager.verify_token(after)


async def test_a_token_is_valid_while_now_is_before_created_plus_expiry_plus_one_second(manager, clock):
    token = await manager.create_token(60)
    clock.advance(60.999)
    assert await manager.verify_token(token)
    clock.advance(0.001)
    assert not await manager.verify_token(token)


async def test_either_clock_alone_ends_a_session(manager, clock):
    by_wall, by_boot = await manager.create_token(60), await manager.create_token(120)
    clock.set_wall(clock.wall + 61)
    assert not await manager.verify_token(by_wall)
    assert await manager.verify_token(by_boot)
    clock.set_wall(clock.wall - 61)
    clock.advance(60)
    assert await manager.verify_token(by_boot)
    clock.set_wall(clock.wall - 60)
    clock.advance(61)
    assert not await manager.verify_token(by_boot)


async def test_create_token_0_verifies_at_once_and_no_longer_1_1_s_later(manager, clock):
    token = await manager.create_token(0)
    assert await manager.verify_token(token)
    clock.advance(1.1)
    assert not await manager.verify_token(token)


async def test_expires_at_is_made_plus_expiry(manager, clock):
    assert (await manager.open_session(1800)).expires_at == clock.wall + 1800


async def test_an_expiry_of_none_means_the_managers_default(db, key_ring, clock):
    manager = await SessionManager.create_session_manager(db=db, key_ring=key_ring, clock=clock, expiry=7)
    assert (await manager.open_session()).expires_at == clock.wall + 7
    assert (await manager.open_session(9)).expires_at == clock.wall + 9
    assert (await manager.open_session(NEVER)).expires_at is None


async def test_the_managers_default_of_none_means_never(manager, clock):
    created = await manager.open_session()
    assert created.expires_at is None
    clock.advance(CENTURY * 2)
    assert await manager.verify_token(created.token)


@pytest.mark.parametrize(
    "expiry",
    [-1, 1.5, 2.0, math.nan, math.inf, True, False, CENTURY + 1, 10**30, "60", "Never", b"never", [60], {}],
)
async def test_an_expiry_that_is_not_whole_seconds_up_to_100_years_is_refused(db, key_ring, manager, expiry):
    with pytest.raises(InvalidExpiryError):
        await manager.create_token(expiry)
    with pytest.raises(InvalidExpiryError):
        await SessionManager.create_session_manager(db=db, key_ring=key_ring, expiry=expiry)
    assert manager.session_count == 0, "nothing was minted"


async def test_the_longest_expiry_is_100_years(manager, clock):
    assert (await manager.open_session(CENTURY)).expires_at == clock.wall + CENTURY


async def test_any_two_tokens_differ(manager):
    tokens: set[str] = set()

    async def create() -> None:
        tokens.add(await manager.create_token(60))

    async with trio.open_nursery() as nursery:
        for _ in range(300):
            nursery.start_soon(create)
    assert len(tokens) == 300


async def test_every_single_bit_change_of_100_tokens_does_not_verify(manager):
    tokens = [await manager.create_token(draw) for draw in range(60, 160)]
    for token in tokens:
        assert await manager.verify_token(token)
        spelled = bytearray(token, "ascii")
        for at in range(len(spelled)):
            for bit in range(8):
                spelled[at] ^= 1 << bit
                assert not manager.inspect(spelled.decode("latin-1")).valid
                spelled[at] ^= 1 << bit


@pytest.mark.parametrize("tail", ["A", "=", "==", " ", "\n", "\t", ".", ".AAAA", "\0", "é"])
async def test_a_token_with_anything_appended_or_prepended_does_not_verify(manager, tail):
    token = await manager.create_token()
    assert not await manager.verify_token(token + tail)
    assert not await manager.verify_token(tail + token)


async def test_non_canonical_base64url_does_not_verify(manager):
    token = await manager.create_token()
    body, _, footer = token.rpartition(".")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for twin in (body[:-1] + alphabet[alphabet.index(body[-1]) ^ 1] + "." + footer,):
        assert twin != token
        assert not await manager.verify_token(twin)
    assert not await manager.verify_token(token.replace("-", "+").replace("_", "/") + "=")


@pytest.mark.parametrize(
    "thing",
    [
        None, True, 0, -1, 1.5, math.nan, b"", b"v4.local.AAAA", [], ["v4.local.AAAA"], {}, {"token": "x"}, object(),
        "", " ", "x", "v4.local.", "v4.local..", "v4.public.AAAA", "v4.local." + "A" * 200, "v4.local." + "A" * 100_000,
        "\ud800", "v4.local.\ud800", "\0" * 300, "é" * 300,
    ],
)  # fmt: skip
async def test_verify_token_answers_false_for_anything_that_is_not_a_token(db, manager, thing):
    assert await manager.verify_token(thing) is False
    async with db.transaction() as tran:
        assert await manager.verify_token(thing, tran) is False
    assert manager.inspect(thing).reason in {"MALFORMED", "KEY_RESET"}


async def test_verify_token_raises_only_when_the_agent_cannot_know(db, manager):
    token = await manager.create_token()
    await db.stop()
    with pytest.raises(Exception, match="store"):
        await manager.verify_token(token)
    await db.start()
    assert await manager.verify_token(token)


async def test_reset_key_concurrent_with_create_token_gives_no_error_and_consistent_tokens(manager):
    draw = random.Random(7)
    tokens: list[str] = []

    async def create() -> None:
        for _ in range(10):
            tokens.append(await manager.create_token())

    async def reset() -> None:
        for _ in range(10):
            await manager.reset_key()

    async with trio.open_nursery() as nursery:
        tasks = [create] * 8 + [reset] * 2
        draw.shuffle(tasks)
        for task in tasks:
            nursery.start_soon(task)
    assert len(tokens) == 80
    first = [await manager.verify_token(token) for token in tokens]
    assert [await manager.verify_token(token) for token in tokens] == first
    assert await manager.verify_token(await manager.create_token())


async def test_start_when_running_stop_when_stopped_and_destroy_when_destroyed_do_nothing(manager):
    events: list[LifecycleEvent] = []
    manager.observe(events.append)
    await manager.start()
    assert events == []
    await manager.stop()
    await manager.stop()
    await manager.destroy()
    await manager.destroy()
    assert [event.value for event in events] == ["stopping", "stopped", "destroying", "destroyed"]


async def test_destroy_while_running_and_start_after_destroy_are_errors(manager):
    with pytest.raises(SessionManagerRunningError):
        await manager.destroy()
    await manager.stop()
    await manager.destroy()
    with pytest.raises(SessionManagerDestroyedError):
        await manager.start()
    assert manager.state is State.DESTROYED


async def test_a_manager_method_when_not_running_is_an_error(db, manager):
    token = await manager.create_token()
    await manager.stop()
    for call in (
        manager.setup_key,
        manager.reset_key,
        manager.create_token,
        lambda: manager.verify_token(token),
        lambda: manager.verify_token(None),
        lambda: manager.inspect_token(token),
        lambda: manager.revoke_token(token),
        manager.open_session,
    ):
        with pytest.raises(SessionManagerNotRunningError):
            await call()
    for read in (lambda: manager.inspect(token), lambda: manager.key_id, lambda: manager.session_count):
        with pytest.raises(SessionManagerNotRunningError):
            read()


async def test_concurrent_start_stop_and_destroy_are_serialised(db, key_ring, clock):
    manager = SessionManager(db, key_ring, clock=clock)
    events: list[str] = []
    manager.observe(lambda event: events.append(event.value))
    async with trio.open_nursery() as nursery:
        for change in [manager.start, manager.start, manager.stop, manager.stop, manager.start] * 4:
            nursery.start_soon(change)
    pairs = list(zip(events[::2], events[1::2], strict=True))
    assert set(pairs) <= {("starting", "started"), ("stopping", "stopped")}
    assert all(left != right for left, right in zip(pairs, pairs[1:], strict=False))


async def test_the_ed_event_comes_only_on_success(db, manager):
    await manager.stop()
    await db.stop()
    events: list[str] = []
    manager.observe(lambda event: events.append(event.value))
    with pytest.raises(Exception, match="store"):
        await manager.start()
    assert events == ["starting"]
    assert manager.state is State.STOPPED
    await db.start()


async def test_leaving_the_context_stops_and_never_destroys(db, key_ring, clock):
    async with await SessionManager.create_session_manager(db=db, key_ring=key_ring, clock=clock) as manager:
        token = await manager.create_token()
    assert manager.state is State.STOPPED
    await manager.start()
    assert await manager.verify_token(token)
