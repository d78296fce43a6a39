"""A transaction that does not belong to the manager's store, or is over, is refused before anything is done."""

from __future__ import annotations

import pytest

from agentd.keys import KeyRing
from agentd.sessions import SessionManager
from agentd.store import DB
from agentd_client import DBNotRunningError, ForeignTransactionError, TransactionEndedError

# Each with a valid and with a malformed token: neither may be answered through such a transaction.
METHODS = {
    "reset_key": lambda manager, token, tran: manager.reset_key(tran),
    "create_token": lambda manager, token, tran: manager.create_token(None, tran),
    "open_session": lambda manager, token, tran: manager.open_session(tran=tran),
    "verify_token": lambda manager, token, tran: manager.verify_token(token, tran),
    "verify_token, garbage": lambda manager, token, tran: manager.verify_token(b"garbage", tran),
    "inspect_token": lambda manager, token, tran: manager.inspect_token(token, tran),
    "inspect_token, garbage": lambda manager, token, tran: manager.inspect_token(None, tran),
    "revoke_token": lambda manager, token, tran: manager.revoke_token(token, tran=tran),
    "revoke_token, garbage": lambda manager, token, tran: manager.revoke_token(1.0, tran=tran),
}


@pytest.fixture(params=METHODS)
def method(request):
    return METHODS[request.param]


async def test_one_of_another_store_is_refused_and_neither_store_is_changed(tmp_path, db, manager, method):
    folder = tmp_path / "other"
    async with (
        await KeyRing.create_key_ring(keys_path=folder / "keys") as key_ring,
        await DB.create_db(db_path=folder / "store", key_ring=key_ring) as other_db,
        await SessionManager.create_session_manager(db=other_db, key_ring=key_ring) as other,
    ):
        token, others_token = await manager.create_token(), await other.create_token()
        before = db.iterate(), other_db.iterate()
        async with db.transaction() as tran:
            with pytest.raises(ForeignTransactionError, match="another store"):
                await method(other, others_token, tran)
        assert (db.iterate(), other_db.iterate()) == before
        assert await manager.verify_token(token)
        assert await other.verify_token(others_token)


async def test_a_transaction_that_is_over_is_refused(db, manager, method):
    token = await manager.create_token()
    async with db.transaction() as tran:
        pass
    with pytest.raises(TransactionEndedError, match="over"):
        await method(manager, token, tran)
    with pytest.raises(TransactionEndedError, match="not begun"):
        await method(manager, token, db.transaction())


async def test_one_of_a_store_that_was_stopped_or_started_again_is_refused(db, manager, method):
    token = await manager.create_token()
    tran = await db.transaction().__aenter__()
    await db.stop()
    with pytest.raises(DBNotRunningError):
        await method(manager, token, tran)
    await db.start()
    with pytest.raises(TransactionEndedError, match="started again"):
        await method(manager, token, tran)
    with pytest.raises(TransactionEndedError, match="started again"):
        await tran.__aexit__(None, None, None)


async def test_an_object_of_another_type_is_refused(db, manager, method):
    with pytest.raises(TypeError, match="not a DB"):
        await method(manager, await manager.create_token(), db)
