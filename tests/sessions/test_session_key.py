from __future__ import annotations

import sys
from hashlib import blake2b

import pytest
import trio
import trio.testing

from agentd.sessions import SessionKey, SessionManager
from agentd_client import NEVER
from agentd_client.errors import (
    AgentdError,
    KeyRingNotRunningError,
    KeyUnavailableError,
    StoreDamagedError,
)
from agentd_client.lifecycle import State
from tests.disk import hold_commits


async def test_the_handle_has_32_bytes_and_bytes_gives_a_copy(manager):
    key = await manager.setup_key()
    assert len(key) == 32
    assert len(bytes(key)) == 32
    assert bytes(key) == bytes(await manager.setup_key())


async def test_repr_shows_the_id_and_nothing_of_the_key(manager):
    key = await manager.setup_key()
    assert repr(key) == f"SessionKey(id={key.id!r})"
    assert bytes(key).hex() not in repr(key)


async def test_it_refuses_once_the_manager_has_stopped(manager):
    key = await manager.setup_key()
    await manager.stop()
    with pytest.raises(KeyUnavailableError):
        bytes(key)
    with pytest.raises(KeyUnavailableError):
        len(key)
    await manager.start()


async def test_it_refuses_once_the_key_was_reset(manager):
    key = await manager.setup_key()
    await manager.reset_key()
    with pytest.raises(KeyUnavailableError):
        bytes(key)


async def test_the_key_is_not_stored_in_the_clear(db, manager, tmp_path):
    key = bytes(await manager.setup_key())
    token = await manager.create_token()
    stored = b"".join(file.read_bytes() for file in (tmp_path / "store").iterdir())
    assert key not in stored
    assert token.encode() not in stored


async def test_many_resets_in_transactions_keep_few_keys_in_memory(db, manager):
    for _ in range(20):
        async with db.transaction() as tran:
            await manager.reset_key(tran)
            token = await manager.create_token(None, tran)
            assert await manager.verify_token(token, tran)
    assert await manager.verify_token(token)


async def test_a_swapped_key_record_is_damage(db, manager):
    from agentd.sessions.records import KEY_PATH, KeyRecord

    stored = KeyRecord.decode(db.get(KEY_PATH))
    await db.put(KEY_PATH, KeyRecord("B" * 22, stored.wrapped, stored.created_at).encode())
    with pytest.raises(StoreDamagedError):
        await manager.create_token()


async def test_a_key_record_of_another_form_is_damage(db, manager):
    from agentd.sessions.records import KEY_PATH

    token = await manager.create_token()
    await db.put(KEY_PATH, b"\xc1")
    with pytest.raises(StoreDamagedError):
        await manager.verify_token(token)


async def test_without_its_key_record_no_token_verifies_and_a_new_key_is_drawn_when_needed(db, manager):
    from agentd.sessions.records import KEY_PATH

    token = await manager.create_token()
    await db.delete(KEY_PATH)
    assert not await manager.verify_token(token)
    async with db.transaction() as tran:
        assert not await manager.verify_token(token, tran)
    assert manager.key_id == ""
    assert not await manager.revoke_token(id="some-id")
    assert await manager.verify_token(await manager.create_token())
    assert not await manager.verify_token(token)


async def test_the_current_key_survives_many_rolled_back_transactions(db, manager):
    key = await manager.setup_key()
    for _ in range(20):
        with pytest.raises(ZeroDivisionError):
            async with db.transaction() as tran:
                await manager.reset_key(tran)
                await manager.create_token(None, tran)
                raise ZeroDivisionError
    assert len(bytes(key)) == 32
    assert bytes(key) == bytes(await manager.setup_key())


async def test_a_view_of_a_key_that_is_wiped_meanwhile_is_an_error_and_never_zeros(manager):
    key = await manager.setup_key()
    with key as secret:
        assert bytes(key) == bytes(secret)
        await manager.reset_key()
        with pytest.raises(ValueError, match="released"):
            bytes(secret)
        with pytest.raises(KeyUnavailableError):
            bytes(key)


async def test_a_manager_whose_key_ring_was_stopped_refuses_everything(db, manager, key_ring):
    token, key = await manager.create_token(), await manager.setup_key()
    assert await manager.verify_token(token)
    await key_ring.stop()
    with pytest.raises(KeyUnavailableError):
        bytes(key)
    for asked in (token, "garbage", None):
        for verify in (manager.verify_token, manager.inspect_token, manager.verify_and_consume):
            with pytest.raises(KeyRingNotRunningError, match="stop the session manager too"):
                await verify(asked)
        with pytest.raises(KeyRingNotRunningError):
            manager.verify_nowait(asked)
    for make in (manager.create_token, manager.reset_key, manager.setup_key):
        with pytest.raises(KeyRingNotRunningError):
            await make()
    await key_ring.start()
    with pytest.raises(KeyRingNotRunningError):  # after a restart it may be a different key ring
        await manager.verify_token(token)
    await manager.stop()
    assert manager.state is State.STOPPED
    await manager.start()
    assert await manager.verify_token(token)


async def test_a_key_ring_that_stops_while_a_manager_starts_leaves_it_stopped(db, manager, key_ring):
    await manager.stop()
    disk = await hold_commits(db)
    refused = []

    async def start():
        try:
            await manager.start()
        except AgentdError as error:
            refused.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(start)
        await trio.testing.wait_all_tasks_blocked()
        await key_ring.stop()
        disk.set()
    assert [type(error) for error in refused] == [KeyRingNotRunningError]
    assert manager.state is State.STOPPED
    await key_ring.start()
    await manager.start()


@pytest.mark.parametrize("grace_seconds", [None, 60])
async def test_a_handle_refuses_from_the_moment_that_a_transaction_with_a_reset_commits(
    db, manager, grace_seconds
):
    key = await manager.setup_key()
    async with db.transaction() as tran:
        await manager.reset_key(tran, grace_seconds=grace_seconds)
        assert len(bytes(key)) == 32
    for use in (bytes, len, SessionKey.__enter__):
        with pytest.raises(KeyUnavailableError):
            use(key)
    assert key.secret.is_wiped is (grace_seconds is None), "with grace its tokens still verify"


async def test_a_handle_refuses_once_another_manager_has_reset_the_key(db, manager, key_ring, clock):
    key = await manager.setup_key()
    async with await SessionManager.create_session_manager(db=db, key_ring=key_ring, clock=clock) as other:
        await other.reset_key()
    with pytest.raises(KeyUnavailableError):
        bytes(key)
    assert key.secret.is_wiped


@pytest.mark.parametrize("is_in_a_transaction", [True, False])
async def test_a_reset_that_is_carried_out_after_its_cancellation_wipes_the_key_too(
    db, manager, is_in_a_transaction
):
    key = await manager.setup_key()
    disk = await hold_commits(db)

    async def reset():
        if not is_in_a_transaction:
            await manager.reset_key()
            return
        async with db.transaction() as tran:
            await manager.reset_key(tran)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reset)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert len(bytes(key)) == 32, "not committed yet"
    disk.set()
    await db.put("after it", b"")
    assert key.secret.is_wiped
    assert manager.key_id != key.id


async def test_held_in_a_with_the_key_is_a_buffer_and_afterwards_its_view_is_an_error(manager):
    key = await manager.setup_key()
    with key as view, key as another:
        assert (len(view), view.readonly) == (32, True)
        assert view == another == bytes(key)
        assert blake2b(b"data", key=view).digest() == blake2b(b"data", key=bytes(key)).digest()
        if sys.version_info >= (3, 12):
            assert memoryview(key) == view
    for ended in (view, another):
        with pytest.raises(ValueError, match="released"):
            bytes(ended)
    if sys.version_info >= (3, 12):
        with pytest.raises(BufferError):
            memoryview(key)
    with pytest.raises(TypeError, match="read-only"), key as view:
        view[0] = 0


async def test_copies_of_a_view_never_show_zeros_or_another_key(manager):
    key = await manager.setup_key()
    before = bytes(key)
    with key as view:
        kept = memoryview(view)
    await manager.reset_key()
    for _ in range(20):
        await manager.reset_key()
    assert kept == before
    assert key.secret.is_wiped


async def test_a_manager_shows_how_long_its_sessions_last(db, key_ring):
    for expiry, shown in [(None, None), (1800, 1800), (NEVER, None), (0, 0)]:
        assert SessionManager(db, key_ring, expiry).expiry == shown
