"""Offline checks of a store that is at rest, being written to, or damaged."""

from __future__ import annotations

import os
import shutil

import lmdb
import pytest

from agentd.store import DB, OfflineCheck, check_offline, offline_check
from agentd.store.data_file import structural_problems
from agentd.store.entries import HEADER
from agentd.store.offline_check import snapshot
from agentd_client.errors import StoreDamagedError, StoreKeyMismatchError

from .fakes import FakeKeyRing

PAGE_BYTES = 4096


@pytest.fixture
async def closed(store_path, key_ring):
    """A closed store with entries on several pages."""
    async with await DB.create_db(db_path=store_path, key_ring=key_ring) as db:
        for number in range(200):
            await db.put(("things", f"{number:04}"), bytes(100))
        await db.put(("things", "large"), bytes(20_000))
    return store_path


def entries_of(path) -> int:
    with lmdb.open(str(path), readonly=True, lock=False) as environment:
        return environment.stat()["entries"]


async def test_a_whole_store(closed, key_ring):
    found = check_offline(closed, key_ring, newest_below=(("things",), ("nothing",)))
    assert (found.problems, found.error, found.key_error, found.overtaken) == ([], None, None, False)
    assert found.seals == (entries_of(closed), entries_of(closed), 0, [])
    assert found.newest == ((b"things", b"large"),)


async def test_without_keys_the_structure_is_checked(closed):
    found = check_offline(closed, None, newest_below=("things",))
    assert (found.problems, found.seals) == ([], None)
    assert found.newest == ((b"things", b"large"),)


async def test_beyond_the_bound_a_sample_is_opened(closed, key_ring):
    found = check_offline(closed, key_ring, max_opened=40)
    assert found.seals == (40, entries_of(closed), 0, [])


async def test_a_store_that_is_too_large_to_be_copied_is_not_checked(closed, key_ring, monkeypatch):
    monkeypatch.setattr(offline_check, "MAX_COPIED_BYTES", 2 * PAGE_BYTES)
    found = check_offline(closed, key_ring, newest_below=("things",))
    assert found == OfflineCheck(found.meta)
    assert found.meta is not None


async def test_values_that_were_exchanged_are_named(closed, key_ring):
    with lmdb.open(str(closed), map_size=1 << 24) as environment, environment.begin(write=True) as txn:
        things = [pair for pair in txn.cursor() if pair[0].startswith(b"dthings\0")]
        for (key, _), (_, value) in zip(things[:5], things[5:10], strict=True):
            txn.put(key, value)
    found = check_offline(closed, key_ring)
    assert found.problems == []
    assert found.seals is not None
    assert (found.seals.broken, found.seals.examples) == (5, ["things/0000", "things/0001", "things/0002"])


async def test_another_key_is_distinguished_from_damage(closed):
    found = check_offline(closed, FakeKeyRing(b"another key"))
    assert isinstance(found.key_error, StoreKeyMismatchError)
    assert found.seals is None
    assert found.problems == []


async def test_a_store_older_than_its_last_stop_is_reported(closed, key_ring, tmp_path):
    shutil.copy2(closed / "data.mdb", tmp_path / "older")
    async with await DB.create_db(db_path=closed, key_ring=key_ring) as db:
        await db.put("more", b"")
    shutil.copy2(tmp_path / "older", closed / "data.mdb")
    assert isinstance(check_offline(closed, key_ring).key_error, StoreDamagedError)


@pytest.mark.parametrize("size", [0, 1, 100, PAGE_BYTES, 2 * PAGE_BYTES, 5 * PAGE_BYTES])
async def test_a_file_cut_short_is_refused(closed, key_ring, size):
    os.truncate(closed / "data.mdb", size)
    found = check_offline(closed, key_ring)
    assert isinstance(found.error, StoreDamagedError)
    assert (found.meta, found.problems, found.seals) == (None, None, None)


async def test_a_data_file_that_is_not_a_regular_file_is_refused_without_hanging(closed, key_ring):
    (closed / "data.mdb").unlink()
    os.mkfifo(closed / "data.mdb", 0o600)
    assert "not a regular file" in str(check_offline(closed, key_ring).error)


async def test_a_file_that_is_not_there_is_an_os_error(tmp_path, key_ring):
    with pytest.raises(FileNotFoundError):
        check_offline(tmp_path, key_ring)


async def test_a_page_overwritten_is_a_problem_of_the_structure(closed, key_ring):
    with lmdb.open(str(closed), readonly=True, lock=False) as environment, environment.begin() as txn:
        value = txn.get(b"dthings\x000000\0")
    data = bytearray((closed / "data.mdb").read_bytes())
    for page in range(0, len(data), PAGE_BYTES):  # whichever copy is current
        if value in data[page : page + PAGE_BYTES]:
            data[page : page + PAGE_BYTES] = bytes(PAGE_BYTES)
    (closed / "data.mdb").write_bytes(data)
    found = check_offline(closed, key_ring)
    assert found.problems
    assert found.seals is None


# --- during writes --------------------------------------------------------------------------------


async def test_a_snapshot_does_not_change_during_commits(db, store_path, key_ring):
    await db.put("a", b"before")
    with snapshot(store_path / "data.mdb") as (meta, path):
        for number in range(50):
            await db.put(("more", str(number)), bytes(500))
        assert structural_problems(path) == []
        with lmdb.open(path, subdir=False, readonly=True, lock=False) as environment:
            assert environment.info()["last_txnid"] == meta.transaction
            with environment.begin() as txn:
                assert [key for key, _ in txn.cursor() if key[:1] == b"d"] == [b"da\0"]
    assert check_offline(store_path, key_ring).problems == []


async def test_a_copy_beside_which_one_commit_was_made_counts_and_after_two_another_is_made(
    db, store_path, key_ring, monkeypatch
):
    await db.put("a", b"before")
    copied, copies, commits = offline_check._copy, [], [2, 1]
    (header,) = db._writer.environment.get((HEADER,))

    def overtaken(live, copy, head, meta):
        copied(live, copy, head, meta)
        copies.append(meta.transaction)
        for _ in range(commits[len(copies) - 1]):
            db._writer.environment.write_first(HEADER, header)

    monkeypatch.setattr(offline_check, "_copy", overtaken)
    monkeypatch.setattr(offline_check, "PAUSE_SECONDS", 0)
    found = check_offline(store_path, key_ring)
    assert (found.problems, found.meta.transaction) == ([], copies[1])
    assert copies[1] == copies[0] + 2


async def test_a_copy_is_of_the_commit_that_was_examined_if_another_is_made_before_it(
    db, store_path, monkeypatch
):
    await db.put("a", b"before")
    copied = offline_check._copy
    (header,) = db._writer.environment.get((HEADER,))

    def late(live, copy, head, meta):
        db._writer.environment.write_first(HEADER, header)
        copied(live, copy, head, meta)

    monkeypatch.setattr(offline_check, "_copy", late)
    with (
        snapshot(store_path / "data.mdb") as (meta, path),
        lmdb.open(path, subdir=False, readonly=True, lock=False) as environment,
    ):
        assert environment.info()["last_txnid"] == meta.transaction


async def test_a_writer_that_is_always_faster_is_reported(closed, key_ring, monkeypatch):
    monkeypatch.setattr(offline_check, "_is_still_whole", lambda live, meta: False)
    monkeypatch.setattr(offline_check, "PAUSE_SECONDS", 0)
    assert check_offline(closed, key_ring).overtaken


async def test_half_of_a_meta_page_is_read_again_and_only_then_believed(closed, key_ring, monkeypatch):
    real, reads = os.pread, []

    def torn(descriptor: int, size: int, offset: int) -> bytes:
        data = real(descriptor, size, offset)
        if offset == 0 and size == offline_check.HEAD_BYTES:
            reads.append(size)
            if len(reads) == 1:
                return data[:16] + bytes(100) + data[116:]
        return data

    monkeypatch.setattr(os, "pread", torn)
    assert check_offline(closed, key_ring).problems == []
    assert len(reads) > 1


async def test_it_takes_no_lock_and_leaves_nothing_open(db, store_path, key_ring, open_descriptors):
    before = open_descriptors()
    names = sorted(path.name for path in store_path.iterdir())
    check_offline(store_path, key_ring)
    assert open_descriptors() == before
    assert sorted(path.name for path in store_path.iterdir()) == names
