from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import lmdb
import pytest
import trio
import trio.testing

from agentd.store import DB, View
from agentd.store.db import CLEAR_STEP
from agentd.store.entries import HEADER
from agentd.store.environment import Batch
from agentd.store.errors import MapFull
from agentd_client.errors import StoreFullError
from tests.disk import hold_commits

from .fakes import FakeKeyRing

KIB = 1024
VALUE = bytes(200)
LARGE = bytes(8 * KIB)  # too large to fit between others

Key = tuple[str, str]


@pytest.fixture
async def limited(store_path: Path, key_ring: FakeKeyRing) -> AsyncIterator[DB]:
    db = DB(store_path, key_ring, map_bytes=1024 * KIB, max_map_bytes=1024 * KIB)
    await db.start()
    async with db:
        await db.put("replaced", VALUE)
        yield db


async def fill(db: DB, folder: str, value: bytes = VALUE) -> list[Key]:
    """Put until the store is full."""
    keys: list[Key] = []
    while True:
        key = (folder, f"{len(keys) * 7919 % 10_000:05}")  # scattered over the tree
        try:
            await db.put(key, value)
        except StoreFullError:
            assert db.get(key) is None
            return keys
        keys.append(key)


async def all_at_once(db: DB, operations: list[Callable[[View], object]]) -> list[object]:
    """Run operations in one batch; returns the result or error of each."""
    results: list[object] = [None] * len(operations)

    async def carry_out(number: int) -> None:
        try:
            results[number] = await db.write(operations[number])
        except StoreFullError as error:
            results[number] = error

    gate = await hold_commits(db)
    async with trio.open_nursery() as nursery:
        for number in range(len(operations)):
            nursery.start_soon(carry_out, number)
            await trio.testing.wait_all_tasks_blocked()
        gate.set()
    return results


def put(key: Key) -> Callable[[View], object]:
    return lambda view: view.put(key, LARGE)


def delete(key: Key) -> Callable[[View], object]:
    return lambda view: view.delete(key)


async def test_a_full_store_refuses_growth_and_loses_nothing(limited: DB) -> None:
    keys = await fill(limited, "many")
    assert len(keys) > 1000
    assert limited.failed is None
    assert limited.count("many") == len(keys)
    assert sorted(keys) == [(path[0].decode(), path[1].decode()) for path, _ in limited.iterate("many")]
    for _ in range(3):
        with pytest.raises(StoreFullError, match="no room; nothing was written. Free some disk space"):
            await limited.put("another", LARGE)


async def test_a_full_store_goes_on_deleting(limited: DB) -> None:
    keys = await fill(limited, "many")
    for key in keys[:1000]:
        assert await limited.delete(key)
    assert limited.count("many") == len(keys) - 1000


@pytest.mark.parametrize("together", [64, 256])
async def test_a_full_store_deletes_many_at_once_too(limited: DB, together: int) -> None:
    keys = await fill(limited, "many")
    for start in range(0, len(keys), together):
        some = keys[start : start + together]
        assert await all_at_once(limited, [delete(key) for key in some]) == [True] * len(some)
    assert limited.count("many") == 0


async def test_a_full_store_replaces_values_by_others_of_their_length(limited: DB) -> None:
    await fill(limited, "many")
    for number in range(300):
        await limited.put("replaced", bytes([number % 256]) * len(VALUE))
    with pytest.raises(StoreFullError):
        await limited.put("replaced", VALUE + b"1")
    assert limited.get("replaced") == bytes([299 % 256]) * len(VALUE)


async def test_a_full_store_accepts_reserved_writes(limited: DB) -> None:
    await fill(limited, "many")
    with pytest.raises(StoreFullError):
        await limited.write(lambda view: view.put("key", LARGE))
    await limited.write(lambda view: view.put("key", LARGE), reserved=True)
    assert limited.get("key") == LARGE
    with pytest.raises(StoreFullError):
        await limited.put("another", LARGE)


async def test_deleting_and_putting_in_one_operation_may_not_use_the_reserve(limited: DB) -> None:
    keys = await fill(limited, "many")

    def exchange(view: View) -> None:
        view.delete(keys[0])
        view.put(("other", "one"), LARGE)

    with pytest.raises(StoreFullError):
        await limited.write(exchange)
    assert limited.get(keys[0]) == VALUE


async def test_a_transaction_that_only_deletes_or_replaces_succeeds_in_a_full_store(limited: DB) -> None:
    keys = await fill(limited, "many")
    async with limited.transaction() as tran:
        tran.put("replaced", bytes(reversed(VALUE)))
        assert tran.delete(keys[0])
    with pytest.raises(StoreFullError):
        async with limited.transaction() as tran:
            tran.delete(keys[1])
            tran.put("another", LARGE)
    assert limited.get(keys[1]) == VALUE


async def test_in_one_batch_ending_succeeds_and_growing_is_refused(limited: DB) -> None:
    keys = await fill(limited, "many")
    mixed = [operation for key in keys[:30] for operation in (put(("new", key[1])), delete(key))]
    results = await all_at_once(limited, mixed)
    assert results[1::2] == [True] * 30
    refused = [result for result in results[::2] if isinstance(result, StoreFullError)]
    assert refused
    assert limited.count("new") == 30 - len(refused)
    assert limited.count("many") == len(keys) - 30


async def test_a_full_store_can_be_cleared_and_has_room_at_once(limited: DB) -> None:
    keys = await fill(limited, "many")
    assert await limited.clear("many") == len(keys)
    # Freed pages are usable only two commits later. A refused operation commits nothing, so without a
    # recycling commit this would be refused for ever.
    assert len(await fill(limited, "again")) > 0.9 * len(keys)


async def test_clearing_takes_the_entry_itself_and_any_number_below(db: DB) -> None:
    def many(view: View) -> None:
        for number in range(2500):
            view.put(("many", str(number)), b"")

    await db.put("many", b"itself")
    await db.put("manyfold", b"stays")
    await db.write(many)
    commits = db.commits
    assert await db.clear("many") == 2501
    assert db.commits - commits == -(-2501 // CLEAR_STEP)
    assert [path for path, _ in db.iterate()] == [(b"manyfold",)]
    assert await db.clear("many") == 0


async def test_large_values_leave_the_reserve_too(limited: DB) -> None:
    keys = await fill(limited, "many", bytes(30 * KIB))
    small = await fill(limited, "small")
    for key in [*keys, *small]:
        assert await limited.delete(key)


async def test_one_operation_that_would_leave_less_than_the_reserve_is_refused(limited: DB) -> None:
    pages = 256 - 256 // 8
    with pytest.raises(StoreFullError):
        await limited.put("much", bytes(pages * 4 * KIB))
    await limited.put("much", bytes((pages - 16) * 4 * KIB))


async def test_after_a_restart_a_full_store_is_as_before(limited: DB) -> None:
    keys = await fill(limited, "many")
    await limited.stop()
    await limited.start()
    with pytest.raises(StoreFullError):
        await limited.put("another", LARGE)
    for key in keys[:300]:
        assert await limited.delete(key)


async def test_a_map_too_small_for_a_reserve_refuses_everything_without_harm(
    store_path: Path, key_ring: FakeKeyRing
) -> None:
    for size_bytes in range(100, 4 * KIB, 300):
        db = DB(store_path, key_ring, map_bytes=64 * KIB, max_map_bytes=64 * KIB)
        await db.start(fresh=True)
        async with db:
            kept = [
                str(number) for number in range(200) if await is_taken(db, str(number), bytes(size_bytes))
            ]
            assert db.failed is None
            await db.stop()
            await db.start()
            assert sorted(kept) == [path[0].decode() for path, _ in db.iterate()]


async def is_taken(db: DB, name: str, value: bytes) -> bool:
    try:
        await db.write(lambda view: view.put(name, value), reserved=True)
    except StoreFullError:
        return False
    return True


async def test_after_the_reserve_is_used_up_everything_is_refused_until_there_is_room(
    limited: DB,
) -> None:
    await limited.put("kept", VALUE)
    assert limited._writer is not None
    foreign = limited._writer.environment._lmdb
    page = bytes(4000)
    names: list[bytes] = []
    for pages in (256, 16, 4, 1, 1, 1):
        while True:
            more = [b"x%d" % (len(names) + number) for number in range(pages)]
            try:
                with foreign.begin(write=True) as txn:
                    txn.cursor().putmulti([(name, page) for name in more])
            except lmdb.MapFullError:
                break
            names += more
    for _ in range(3):
        with pytest.raises(StoreFullError):
            await limited.put("another", VALUE)
        with pytest.raises(StoreFullError):
            await limited.delete("kept")
    assert limited.failed is None
    assert limited.get("kept") == VALUE


async def test_making_freed_pages_usable_needs_a_page_itself_and_says_so(
    limited: DB, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = await fill(limited, "many")
    assert limited._writer is not None
    environment = limited._writer.environment
    batch = environment.begin()
    try:
        for number in range(300):
            with (
                contextlib.suppress(lmdb.MapFullError),
                environment._lmdb.begin(parent=batch.txn, write=True) as nested,
            ):
                nested.put(b"a%d" % number, bytes(4000))
        with pytest.raises(MapFull):
            batch.rewrite(HEADER)
    finally:
        batch.abort()

    def no_room(batch: Batch, key: bytes) -> None:
        raise MapFull

    await limited.delete(keys[0])
    monkeypatch.setattr(Batch, "rewrite", no_room)
    for _ in range(2):
        with pytest.raises(StoreFullError):
            await limited.put("too large", bytes(2000 * KIB))
    assert limited.failed is None
