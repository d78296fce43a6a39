from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
import trio
import trio.testing

from agentd.keys import KeyRing
from agentd.store import DB
from agentd_client.errors import (
    DBDestroyedError,
    DBNotRunningError,
    DBRunningError,
    StoreInUseError,
    TransactionEndedError,
)
from agentd_client.lifecycle import LifecycleEvent, State
from tests.disk import committing_threads, hold_commits

from .fakes import FakeKeyRing


async def test_create_starts_and_leaving_stops_and_never_destroys(
    store_path: Path, key_ring: FakeKeyRing
) -> None:
    async with await DB.create_db(db_path=store_path, key_ring=key_ring) as db:
        assert db.state.value == "running"
        assert db.path == store_path
        await db.put("a", b"1")
        assert (db.commits, db.failed) == (1, None)
    assert db.state is State.STOPPED
    assert committing_threads() == []
    assert (db.commits, db.failed) == (0, None)
    async with await DB.create_db(db_path=str(store_path), key_ring=key_ring) as again:
        assert again.get("a") == b"1"


async def test_the_real_key_ring_fits(store_path: Path, tmp_path: Path) -> None:
    async with await KeyRing.create_key_ring(keys_path=tmp_path / "keys") as key_ring:
        async with await DB.create_db(db_path=store_path, key_ring=key_ring) as db:
            await db.put("a", b"1")
        await db.start()
        assert db.get("a") == b"1"
        await db.stop()


async def test_start_when_running_stop_when_stopped_and_destroy_when_destroyed_do_nothing(
    db: DB,
) -> None:
    await db.put("a", b"1")
    await db.start(fresh=True)
    assert db.get("a") == b"1"
    await db.stop()
    await db.stop()
    await db.destroy()
    await db.destroy()
    await db.stop()
    assert db.state is State.DESTROYED


async def test_destroy_while_running_and_start_after_destroy_are_refused(db: DB) -> None:
    with pytest.raises(DBRunningError):
        await db.destroy()
    await db.stop()
    await db.destroy()
    with pytest.raises(DBDestroyedError):
        await db.start()


async def test_destroy_removes_the_files_and_the_folder(db: DB) -> None:
    await db.put("a", b"1")
    await db.stop()
    assert db.size_bytes > 0
    await db.destroy()
    assert not db.path.exists()
    assert db.path.parent.exists()
    assert db.size_bytes == 0


async def test_destroy_leaves_a_folder_with_foreign_files(db: DB, caplog: pytest.LogCaptureFixture) -> None:
    (db.path / "notes").write_text("mine")
    await db.stop()
    await db.destroy()
    assert os.listdir(db.path) == ["notes"]
    assert "it holds other files" in caplog.text


async def test_a_store_that_was_never_made_can_be_destroyed(store_path: Path, key_ring: FakeKeyRing) -> None:
    db = DB(store_path, key_ring)
    await db.destroy()
    assert not store_path.parent.exists()


async def test_every_call_of_a_store_that_is_not_running_is_refused(db: DB) -> None:
    await db.stop()
    for read in (lambda: db.get("a"), db.iterate, db.count, lambda: db.sealed("a")):
        with pytest.raises(DBNotRunningError):
            read()
    with pytest.raises(DBNotRunningError):
        await db.put("a", b"1")
    with pytest.raises(DBNotRunningError):
        await db.delete("a")
    with pytest.raises(DBNotRunningError):
        await db.clear()
    with pytest.raises(DBNotRunningError):
        await db.write(lambda view: view.get("a"))
    with pytest.raises(DBNotRunningError):
        db.submit(lambda view: view.get("a"))
    with pytest.raises(DBNotRunningError):
        async with db.transaction():
            pass


async def test_events_come_in_order_and_the_ed_ones_only_after_success(
    store_path: Path, key_ring: FakeKeyRing
) -> None:
    seen: list[LifecycleEvent] = []
    db = DB(store_path, key_ring)
    forget = db.observe(seen.append)
    await db.start()
    await db.stop()
    (store_path / "data.mdb").write_bytes(b"")
    with pytest.raises(Exception, match="empty"):
        await db.start()
    await db.destroy()
    forget()
    assert [event.value for event in seen] == [
        *("starting", "started", "stopping", "stopped", "starting", "destroying", "destroyed")
    ]


async def test_a_second_db_on_the_folder_of_a_started_one_is_refused(db: DB, key_ring: FakeKeyRing) -> None:
    with pytest.raises(StoreInUseError, match="another agent"):
        await DB.create_db(db_path=db.path, key_ring=key_ring)
    other = DB(db.path, key_ring)
    with pytest.raises(StoreInUseError):
        await other.start(fresh=True)
    with pytest.raises(StoreInUseError):
        await other.destroy()
    await db.put("a", b"1")
    await db.stop()
    await other.start()
    assert other.get("a") == b"1"
    await other.stop()


class UnwillingKeyRing(FakeKeyRing):
    def seal(self, value: bytes, context: bytes) -> bytes:
        raise DBNotRunningError("the keys are locked")

    def open(self, sealed: bytes, context: bytes) -> bytes:
        raise DBNotRunningError("the keys are locked")


async def test_a_start_that_fails_half_way_closes_everything_and_releases_the_lock(
    store_path: Path, key_ring: FakeKeyRing
) -> None:
    with pytest.raises(DBNotRunningError, match="locked"):
        await DB.create_db(db_path=store_path, key_ring=UnwillingKeyRing())
    async with await DB.create_db(db_path=store_path, key_ring=key_ring) as db:
        await db.put("a", b"1")
    with pytest.raises(DBNotRunningError, match="locked"):  # now while opening an existing store
        await DB.create_db(db_path=store_path, key_ring=UnwillingKeyRing())
    await db.start()
    assert db.get("a") == b"1"
    await db.stop()


async def test_a_start_whose_thread_cannot_begin_closes_everything_and_releases_the_lock(
    store_path: Path, key_ring: FakeKeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = DB(store_path, key_ring)
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "agentd-store-committer":
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            await db.start()
    assert db.state is State.STOPPED
    await db.start()
    await db.stop()


async def test_a_start_that_is_cancelled_leaves_nothing_open(store_path: Path, key_ring: FakeKeyRing) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await DB.create_db(db_path=store_path, key_ring=key_ring)
    assert scope.cancelled_caught
    async with await DB.create_db(db_path=store_path, key_ring=key_ring) as db:
        assert db.state is State.RUNNING


async def test_concurrent_starts_stops_and_destroys_are_serialised(
    store_path: Path, key_ring: FakeKeyRing
) -> None:
    db = DB(store_path, key_ring)
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(db.start)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(db.stop)
        nursery.start_soon(db.stop)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(db.destroy)
        nursery.start_soon(db.destroy)
    assert db.state is State.DESTROYED


async def test_leaving_under_cancellation_still_stops(store_path: Path, key_ring: FakeKeyRing) -> None:
    with trio.CancelScope() as scope:
        async with await DB.create_db(db_path=store_path, key_ring=key_ring) as db:
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert db.state is State.STOPPED
    assert committing_threads() == []


async def test_stop_finishes_queued_writes_and_refuses_later_ones(
    store_path: Path, key_ring: FakeKeyRing
) -> None:
    db = await DB.create_db(db_path=store_path, key_ring=key_ring)
    gate = await hold_commits(db)
    db.submit(lambda view: view.put("queued", b"1"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(db.stop)
        await trio.testing.wait_all_tasks_blocked()
        assert db.get("queued") is None  # reads work until the last write is done
        with pytest.raises(DBNotRunningError):
            await db.put("late", b"1")
        gate.set()
    await db.start()
    assert db.iterate() == [((b"queued",), b"1")]
    await db.stop()


async def test_a_transaction_whose_store_stopped_meanwhile_is_refused(db: DB) -> None:
    with pytest.raises(DBNotRunningError):
        async with db.transaction() as tran:
            tran.put("a", b"1")
            await db.stop()
    with pytest.raises(TransactionEndedError):
        tran.get("a")
