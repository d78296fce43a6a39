from __future__ import annotations

import logging
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from agentd.store import DB
from agentd.store import data_file as checks
from agentd.store.data_file import HEAD_BYTES, newest_meta, write_mark
from agentd_client.errors import StoreDamagedError

from .fakes import FakeKeyRing

PAGE_BYTES = os.sysconf("SC_PAGESIZE")


async def put(store_path: Path, key_ring: FakeKeyRing, *values: bytes) -> None:
    async with await DB.create_db(db_path=store_path, key_ring=key_ring) as db:
        for value in values:
            await db.put("a", value)


async def found(store_path: Path, key_ring: FakeKeyRing) -> bytes | None:
    async with await DB.create_db(db_path=store_path, key_ring=key_ring) as db:
        return db.get("a")


def break_a_page_head(data_file: Path) -> None:
    """Give the root page the number of another page, which LMDB itself notices only when it writes."""
    with data_file.open("r+b") as file:
        head = file.read(HEAD_BYTES)
        newest = newest_meta("it", head, data_file.stat().st_size).transaction % 2
        root = int.from_bytes(head[newest * PAGE_BYTES + 128 :][:8], "little")
        file.seek(root * PAGE_BYTES)
        file.write((root + 1).to_bytes(8, "little"))


async def test_a_mark_stands_from_a_clean_stop_to_the_next_start(
    store_path: Path, key_ring: FakeKeyRing
) -> None:
    mark = store_path / "stopped"
    async with await DB.create_db(db_path=store_path, key_ring=key_ring) as db:
        assert not mark.exists()
        await db.stop()
        assert mark.exists()
        assert b"4096" not in mark.read_bytes()  # sealed
        await db.start()
        assert not mark.exists()


async def test_a_file_that_changed_since_the_stop_is_verified_inside(
    store_path: Path, key_ring: FakeKeyRing
) -> None:
    await put(store_path, key_ring, b"1")
    break_a_page_head(store_path / "data.mdb")
    for _ in range(2):
        with pytest.raises(StoreDamagedError, match=r"damaged inside.*restore.*agentd init --fresh"):
            await found(store_path, key_ring)
    async with await DB.create_db(db_path=store_path, key_ring=key_ring, fresh=True) as db:
        await db.put("a", b"2")
    assert await found(store_path, key_ring) == b"2"


async def test_a_file_that_is_as_it_was_left_is_not_verified(store_path: Path, key_ring: FakeKeyRing) -> None:
    await put(store_path, key_ring, b"1")
    data_file = store_path / "data.mdb"
    transaction = newest_meta("it", data_file.read_bytes()[:HEAD_BYTES], data_file.stat().st_size).transaction
    break_a_page_head(data_file)
    write_mark(data_file, transaction, key_ring)
    assert await found(store_path, key_ring) == b"1"


async def test_a_file_beyond_the_limit_is_not_verified_and_that_is_said(
    store_path: Path, key_ring: FakeKeyRing, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await put(store_path, key_ring, b"1")
    os.utime(store_path / "data.mdb")
    monkeypatch.setattr(checks, "MAX_VERIFIED_PAGES", 2)
    assert await found(store_path, key_ring) == b"1"
    assert "too large to be verified" in caplog.text


async def test_a_store_that_lost_commits_since_its_last_stop_is_refused_until_the_mark_is_deleted(
    store_path: Path, key_ring: FakeKeyRing
) -> None:
    data_file = store_path / "data.mdb"
    await put(store_path, key_ring, b"1")
    older = data_file.read_bytes()
    await put(store_path, key_ring, b"2")
    data_file.write_bytes(older)
    for _ in range(2):
        with pytest.raises(
            StoreDamagedError, match=r"is older than .* sessions that have ended .* /\S+/stopped$"
        ):
            await found(store_path, key_ring)
    (store_path / "stopped").unlink()
    assert await found(store_path, key_ring) == b"1"


async def test_a_restored_folder_is_accepted(store_path: Path, key_ring: FakeKeyRing) -> None:
    await put(store_path, key_ring, b"1")
    shutil.copytree(store_path, store_path.with_name("copy"))
    await put(store_path, key_ring, b"2")
    shutil.rmtree(store_path)
    store_path.with_name("copy").rename(store_path)
    assert await found(store_path, key_ring) == b"1"


def cut(mark: Path) -> None:
    os.truncate(mark, 10)


def empty(mark: Path) -> None:
    os.truncate(mark, 0)


def forge(mark: Path) -> None:
    mark.write_bytes(FakeKeyRing(b"another key").seal(b"1000 1 1 1 1 1", b"agentd store 1\0s"))


def make_a_folder(mark: Path) -> None:
    mark.unlink()
    mark.mkdir()


def make_a_link(mark: Path) -> None:
    mark.unlink()
    mark.symlink_to("/etc/passwd")


def make_a_fifo(mark: Path) -> None:
    mark.unlink()
    os.mkfifo(mark)


@pytest.mark.parametrize("damage", [cut, empty, forge, make_a_folder, make_a_link, make_a_fifo, Path.unlink])
async def test_a_forged_mark_is_ignored(
    store_path: Path, key_ring: FakeKeyRing, damage: Callable[[Path], None]
) -> None:
    await put(store_path, key_ring, b"1")
    damage(store_path / "stopped")
    assert await found(store_path, key_ring) == b"1"
    assert (store_path / "stopped").is_file()
    assert not (store_path / "stopped").is_symlink()


async def test_a_stop_on_a_full_disk_leaves_no_mark_and_does_no_harm(
    store_path: Path, key_ring: FakeKeyRing, caplog: pytest.LogCaptureFixture
) -> None:
    db = await DB.create_db(db_path=store_path, key_ring=key_ring)
    await db.put("a", b"1")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with caplog.at_level(logging.INFO):
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
            await db.stop()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "could not mark this stop as clean" in caplog.text
    assert await found(store_path, key_ring) == b"1"


async def test_something_else_in_place_of_the_lock_file_is_named(
    store_path: Path, key_ring: FakeKeyRing
) -> None:
    await put(store_path, key_ring, b"1")
    lock = store_path / "agentd.lock"
    for replace in (make_a_folder, make_a_link):
        replace(lock)
        with pytest.raises(Exception, match=r"agentd\.lock: not a lock file of your own, move it away"):
            await found(store_path, key_ring)
        lock.rmdir() if lock.is_dir() else lock.unlink()
        await found(store_path, key_ring)


def test_a_file_that_cannot_even_be_verified_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"nothing of the kind" * 1000)
    assert checks.structural_problems(str(tmp_path / "data.mdb"))
