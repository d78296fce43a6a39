from __future__ import annotations

import logging
import threading
from itertools import count
from pathlib import Path

import pytest
import trio
import trio.testing

from agentd.store import DB, View, writer
from agentd.store.environment import Batch, Environment
from agentd.store.writer import MAX_BATCH_OPERATIONS
from agentd_client.errors import KeyRingNotRunningError, StoreError
from tests.disk import hold_commits

from .fakes import FakeKeyRing


async def test_64_concurrent_puts_need_far_fewer_commits_than_64(db: DB) -> None:
    gate = await hold_commits(db)
    async with trio.open_nursery() as nursery:
        for number in range(64):
            nursery.start_soon(db.put, ("many", str(number)), b"1")
        await trio.testing.wait_all_tasks_blocked()
        gate.set()
    assert db.count("many") == 64
    assert db.commits == 1


async def test_a_batch_is_bounded(db: DB) -> None:
    gate = await hold_commits(db)
    for number in range(MAX_BATCH_OPERATIONS * 2):
        db.submit(lambda view, number=number: view.put(("many", str(number)), b"1"))  # type: ignore[misc]
    gate.set()
    await db.put("last", b"")
    assert db.count("many") == MAX_BATCH_OPERATIONS * 2
    assert db.commits == 3


async def test_a_batch_takes_a_bounded_part_of_the_event_loops_time(
    db: DB, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = count()
    monkeypatch.setattr(writer, "TURN_SECONDS", 3)
    monkeypatch.setattr(writer, "perf_counter", lambda: next(seconds))
    gate = await hold_commits(db)
    for number in range(11):
        db.submit(lambda view, number=number: view.put(("many", str(number)), b"1"))  # type: ignore[misc]
    gate.set()
    await db.put("last", b"")
    assert db.commits == 4, "three operations each"


async def test_a_write_is_durable_and_answered_in_the_order_of_hand_over(db: DB) -> None:
    order: list[int] = []

    async def write(number: int) -> None:
        await db.write(lambda view: order.append(number))

    gate = await hold_commits(db)
    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(write, number)
            await trio.testing.wait_all_tasks_blocked()
        gate.set()
    assert order == list(range(10))


async def test_an_operation_that_is_next_overtakes_those_that_wait(db: DB) -> None:
    order: list[str] = []
    gate = await hold_commits(db)
    db.submit(lambda view: order.append("waits"))
    db.submit(lambda view: order.append("is next"), is_next=True)
    gate.set()
    await db.put("last", b"")
    assert order == ["is next", "waits"]


async def test_an_exception_of_one_operation_undoes_that_one_only_and_reaches_its_waiter(db: DB) -> None:
    def fails(view: View) -> None:
        view.put("failed", b"1")
        raise LookupError("mine")

    async def waits_for_the_failure() -> None:
        with pytest.raises(LookupError, match="mine"):
            await db.write(fails)

    gate = await hold_commits(db)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(db.put, "before", b"1")
        nursery.start_soon(waits_for_the_failure)
        nursery.start_soon(db.put, "after", b"1")
        await trio.testing.wait_all_tasks_blocked()
        gate.set()
    assert [path for path, _ in db.iterate()] == [(b"after",), (b"before",)]
    assert db.commits == 1
    assert db.failed is None


async def test_write_returns_what_its_function_returned(db: DB) -> None:
    assert await db.write(lambda view: (view.delete("a"), 5)) == (False, 5)


async def test_a_base_exception_of_an_operation_does_not_end_the_writer(db: DB) -> None:
    def exits(view: View) -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        await db.write(exits)
    await db.put("a", b"1")


async def test_a_cancelled_waiters_write_is_still_carried_out(db: DB) -> None:
    gate = await hold_commits(db)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(db.put, "a", b"1")
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught
    assert db.get("a") is None
    gate.set()
    await db.put("b", b"2")
    assert db.get("a") == b"1"


async def test_a_write_that_was_cancelled_before_it_was_handed_over_is_not_carried_out(db: DB) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await db.put("a", b"1")
    await db.put("b", b"2")
    assert db.get("a") is None


async def test_a_failing_background_write_is_logged(db: DB, caplog: pytest.LogCaptureFixture) -> None:
    def fails(view: View) -> None:
        raise LookupError("mine")

    with caplog.at_level(logging.ERROR, "agentd.store"):
        db.submit(fails)
        db.submit(lambda view: view.put("a", b"1"))
        await db.put("b", b"2")
    assert db.get("a") == b"1"
    assert [record.getMessage() for record in caplog.records] == ["background write failed"]
    assert "mine" in caplog.text


async def test_a_failing_write_whose_waiter_was_cancelled_is_logged(
    db: DB, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(view: View) -> None:
        raise LookupError("mine")

    gate = await hold_commits(db)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(db.write, fails)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    gate.set()
    await db.put("b", b"2")
    assert [record.getMessage() for record in caplog.records] == ["background write failed"]


async def test_one_that_can_be_told_in_a_sentence_is(db: DB, caplog: pytest.LogCaptureFixture) -> None:
    def fails(view: View) -> None:
        raise KeyRingNotRunningError

    with caplog.at_level(logging.ERROR, "agentd.store"):
        db.submit(fails)
        await db.put("b", b"2")
    (record,) = caplog.records
    assert record.getMessage() == f"background write failed: {KeyRingNotRunningError().sentence}"
    assert record.exc_info is None


async def test_operations_run_on_the_event_loops_thread_and_commits_in_one_of_their_own(
    db: DB, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []
    commit = Batch.commit

    def observed(batch: Batch) -> None:
        threads.append(threading.current_thread())
        commit(batch)

    monkeypatch.setattr(Batch, "commit", observed)

    def operation(view: View) -> threading.Thread:
        view.put("a", b"1")
        return threading.current_thread()

    assert await db.write(operation) is threading.current_thread()
    (found,) = threads
    assert found is not threading.current_thread()
    assert found.daemon


def test_an_event_loop_that_ends_without_a_stop_ends_the_writer_quietly(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gates: list[threading.Event] = []
    kept: list[DB] = []

    async def forget_to_stop() -> None:
        db = await DB.create_db(db_path=tmp_path / "store", key_ring=FakeKeyRing())
        gates.append(await hold_commits(db))
        kept.append(db)

    trio.run(forget_to_stop)
    gates[0].set()
    inner = kept[0]._writer
    assert inner is not None
    inner._committer.stop()
    assert "the event loop ended before the store was stopped" in caplog.text
    kept[0]._folder.close(inner.environment, is_clean=False)


async def test_a_snapshot_that_cannot_be_had_beside_a_commit_fails_the_store_and_not_the_event_loop(
    db: DB, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(environment: Environment) -> None:
        raise MemoryError

    monkeypatch.setattr(Environment, "pin", no_memory)
    with pytest.raises(StoreError, match="MemoryError; the store accepts nothing more"):
        await db.put("a", b"1")
    assert db.failed is not None
