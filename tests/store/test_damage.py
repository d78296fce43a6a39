from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest

from agentd.store import DB
from agentd.store.entries import HEADER, count_key, encode_path, seal
from agentd_client.errors import StoreDamagedError, StoreError, StoreKeyMismatchError
from agentd_client.lifecycle import State

from .fakes import FakeKeyRing

A, B = encode_path(("sessions", "a")), encode_path(("sessions", "b"))
COUNT = count_key("sessions")


def tamper(store_path: Path, change: Callable[[lmdb.Transaction[bytes]], object]) -> None:
    with lmdb.open(str(store_path)) as environment, environment.begin(write=True) as txn:
        change(txn)


async def make(store_path: Path, key_ring: FakeKeyRing) -> DB:
    db = await DB.create_db(db_path=store_path, key_ring=key_ring)
    await db.put(("sessions", "a"), b"value a")
    await db.put(("sessions", "b"), b"value b")
    await db.stop()
    return db


def stored(txn: lmdb.Transaction[bytes], key: bytes) -> bytes:
    sealed = txn.get(key)
    assert sealed is not None
    return sealed


def move(txn: lmdb.Transaction[bytes]) -> None:
    txn.put(A, stored(txn, B))
    txn.delete(B)


def swap(txn: lmdb.Transaction[bytes]) -> None:
    first, second = stored(txn, A), stored(txn, B)
    txn.put(A, second)
    txn.put(B, first)


def forge(txn: lmdb.Transaction[bytes]) -> None:
    txn.put(A, FakeKeyRing(b"another key").seal(b"forged", b"agentd store 1\0" + A))


def flip(txn: lmdb.Transaction[bytes]) -> None:
    sealed = bytearray(stored(txn, A))
    sealed[-1] ^= 1
    txn.put(A, bytes(sealed))


def empty(txn: lmdb.Transaction[bytes]) -> None:
    txn.put(A, b"")


@pytest.mark.parametrize("change", [move, swap, forge, flip, empty])
async def test_a_value_that_was_not_sealed_at_its_path_is_damage_that_names_the_path_only(
    store_path: Path, key_ring: FakeKeyRing, change: Callable[[lmdb.Transaction[bytes]], object]
) -> None:
    db = await make(store_path, key_ring)
    tamper(store_path, change)
    await db.start()
    async with db:
        (sealed,) = db.sealed(("sessions", "a"))
        assert sealed is not None

        async def in_a_transaction() -> None:
            async with db.transaction() as tran:
                tran.get(("sessions", "a"))

        for read in (
            lambda: db.get(("sessions", "a")),
            lambda: db.iterate("sessions"),
            lambda: db.unseal(("sessions", "a"), sealed),
        ):
            with pytest.raises(StoreDamagedError) as caught:
                read()
            assert "sessions/a" in caught.value.sentence
            assert "value" not in caught.value.sentence.replace("its value was not sealed", "")
        with pytest.raises(StoreDamagedError):
            await db.write(lambda view: view.get(("sessions", "a")))
        with pytest.raises(StoreDamagedError):
            await in_a_transaction()
        assert db.failed is None
        assert await db.clear() >= 1  # damaged entries can be cleared


async def test_a_forged_or_moved_count_is_damage(store_path: Path, key_ring: FakeKeyRing) -> None:
    db = await make(store_path, key_ring)
    tamper(store_path, lambda txn: txn.put(COUNT, stored(txn, A)))
    await db.start()
    async with db:
        with pytest.raises(StoreDamagedError, match="the count of sessions"):
            db.count("sessions")
        with pytest.raises(StoreDamagedError, match="the count of sessions"):
            await db.delete(("sessions", "a"))


async def test_a_count_that_was_removed_is_damage_once_it_would_fall_below_nothing(
    store_path: Path, key_ring: FakeKeyRing
) -> None:
    db = await make(store_path, key_ring)
    tamper(store_path, lambda txn: txn.delete(COUNT))
    await db.start()
    async with db:
        with pytest.raises(StoreDamagedError, match="the count of sessions is lower"):
            await db.delete(("sessions", "a"))
        assert db.get(("sessions", "a")) == b"value a"


@pytest.mark.parametrize(
    "other", [FakeKeyRing(key=b"another root key"), FakeKeyRing(agent_id="another agent")]
)
async def test_another_root_key_is_refused_and_nothing_is_generated_over_the_store(
    store_path: Path, key_ring: FakeKeyRing, other: FakeKeyRing
) -> None:
    db = await make(store_path, key_ring)
    before = (store_path / "data.mdb").read_bytes()
    with pytest.raises(StoreKeyMismatchError, match="put back the key file"):
        await DB.create_db(db_path=store_path, key_ring=other)
    assert (store_path / "data.mdb").read_bytes() == before
    await db.start()
    assert db.get(("sessions", "a")) == b"value a"
    await db.stop()


async def test_fresh_empties_a_store_that_was_sealed_with_another_key(
    store_path: Path, key_ring: FakeKeyRing
) -> None:
    await make(store_path, key_ring)
    other = FakeKeyRing(key=b"another root key")
    async with await DB.create_db(db_path=store_path, key_ring=other, fresh=True) as db:
        assert (db.iterate(), db.count("sessions")) == ([], 0)


async def test_a_store_of_an_unknown_format_is_refused(store_path: Path, key_ring: FakeKeyRing) -> None:
    db = await make(store_path, key_ring)
    newer = seal(key_ring, HEADER, b"agentd store 2\nagent-1")
    tamper(store_path, lambda txn: txn.put(HEADER, newer))
    with pytest.raises(StoreError, match=r"'agentd store 2'.*update agentd"):
        await db.start()


async def test_a_data_file_without_a_header_is_damage(store_path: Path, key_ring: FakeKeyRing) -> None:
    db = await make(store_path, key_ring)
    tamper(store_path, lambda txn: txn.delete(HEADER))
    with pytest.raises(StoreDamagedError, match="without a header"):
        await db.start()


def cut(data: Path) -> None:
    os.truncate(data, 3 * 4096)


def cut_to_nothing(data: Path) -> None:
    os.truncate(data, 0)


def put_a_foreign_file(data: Path) -> None:
    data.write_bytes(b"something else\n" * 1000)


def zero_a_meta_page(data: Path) -> None:
    with data.open("r+b") as file:
        file.write(bytes(4096))


@pytest.mark.parametrize("damage", [cut, cut_to_nothing, put_a_foreign_file, zero_a_meta_page])
async def test_a_damaged_data_file_is_refused_and_fresh_makes_a_new_one(
    store_path: Path, key_ring: FakeKeyRing, damage: Callable[[Path], None]
) -> None:
    db = await make(store_path, key_ring)
    damage(store_path / "data.mdb")
    before = (store_path / "data.mdb").read_bytes()
    with pytest.raises(StoreDamagedError, match=r"agentd init --fresh"):
        await db.start()
    assert db.state is State.STOPPED
    assert (store_path / "data.mdb").read_bytes() == before
    await db.start(fresh=True)
    await db.put("a", b"1")
    await db.stop()
    await db.start()
    assert db.iterate() == [((b"a",), b"1")]
    await db.stop()
