from __future__ import annotations

import pytest

from agentd_client.errors import KeyUnavailableError, StoreDamagedError


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


async def test_the_key_is_nowhere_in_the_store_in_the_clear(db, manager, tmp_path):
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


async def test_a_key_record_that_was_exchanged_is_refused_as_damage(db, manager):
    from agentd.sessions.records import KEY_PATH, KeyRecord

    stored = KeyRecord.decode(db.get(KEY_PATH))
    await db.put(KEY_PATH, KeyRecord("B" * 22, stored.wrapped, stored.made).encode())
    with pytest.raises(StoreDamagedError):
        await manager.create_token()


async def test_a_key_record_of_another_form_is_refused_as_damage(db, manager):
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


async def test_the_present_key_outlives_any_number_of_transactions_that_were_rolled_back(db, manager):
    key = await manager.setup_key()
    for _ in range(20):
        with pytest.raises(ZeroDivisionError):
            async with db.transaction() as tran:
                await manager.reset_key(tran)
                await manager.create_token(None, tran)
                raise ZeroDivisionError
    assert len(bytes(key)) == 32
    assert bytes(key) == bytes(await manager.setup_key())


async def test_a_key_that_is_in_use_is_wiped_when_the_use_ends(manager):
    key = await manager.setup_key()
    with key as secret:
        assert bytes(key) == bytes(secret)
        await manager.reset_key()
        assert bytes(secret) != bytes(32), "not under the hands of whoever uses it"
        with pytest.raises(KeyUnavailableError):
            bytes(key)
    assert bytes(secret) == bytes(32)
