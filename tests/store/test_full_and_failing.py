from __future__ import annotations

import errno
import os
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import NoReturn

import lmdb
import pytest
import trio
import trio.testing

from agentd.store import DB, View, growth
from agentd.store.errors import store_error
from agentd_client.errors import StoreDamagedError, StoreError, StoreFullError
from tests.disk import hold_commits

from .fakes import FakeKeyRing

KIB = 1024


@contextmanager
def no_file_grows_past(size_bytes: int) -> Iterator[None]:
    """Simulate a full disk: writing past the limit is EFBIG, or a short write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
async def small(
    store_path: Path, key_ring: FakeKeyRing, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[DB]:
    seconds = count(step=growth.RETRY_SECONDS)  # as if each call of the clock took that long
    monkeypatch.setattr(growth, "monotonic", lambda: next(seconds))
    db = DB(store_path, key_ring, map_bytes=64 * KIB, max_map_bytes=1024 * KIB)
    await db.start()
    async with db:
        yield db


async def test_the_map_grows_with_writes_and_keeps_its_size(small: DB) -> None:
    for number in range(20):
        await small.put(("big", str(number)), bytes(20 * KIB))
        assert small.get(("big", str(number))) == bytes(20 * KIB)  # reads work while the map grows
    assert small.count("big") == 20
    grown = small.size_bytes
    assert grown == 1024 * KIB
    await small.stop()
    await small.start()
    assert small.count("big") == 20
    assert small.size_bytes == grown
    assert small._writer is not None
    assert small._writer.environment.map_bytes == grown


async def test_one_operation_may_need_several_doublings_and_runs_again_each_time(small: DB) -> None:
    runs = []

    def big(view: View) -> None:
        runs.append(view.get("big"))
        view.put("big", bytes(500 * KIB))

    await small.write(big)
    # Once more than the map grows, because freed pages are recycled first.
    assert runs == [None] * 6
    assert small.get("big") == bytes(500 * KIB)


async def test_only_the_operation_that_exceeds_the_limit_is_refused(small: DB) -> None:
    gate = await hold_commits(small)

    async def too_big() -> None:
        with pytest.raises(StoreFullError, match="no room"):
            await small.put("too big", bytes(2000 * KIB))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(small.put, "before", b"1")
        nursery.start_soon(too_big)
        nursery.start_soon(small.put, "after", b"1")
        await trio.testing.wait_all_tasks_blocked()
        gate.set()
    assert [path for path, _ in small.iterate()] == [(b"after",), (b"before",)]
    assert small.failed is None


async def test_operations_keep_their_order_when_one_of_them_is_too_big(small: DB) -> None:
    gate = await hold_commits(small)
    for number in range(3):
        small.submit(lambda view, number=number: view.put("last", b"%d" % number))  # type: ignore[misc]
    small.submit(lambda view: view.put("too big", bytes(2000 * KIB)))
    gate.set()
    await small.write(lambda view: None)
    assert small.get("last") == b"2"


@pytest.mark.parametrize("writes_first", [True, False])
async def test_a_function_that_swallows_a_full_store_keeps_nothing_and_harms_no_other(
    small: DB, writes_first: bool
) -> None:
    def swallows(view: View) -> None:
        if writes_first:
            view.put("kept", b"1")
        try:
            view.put("too big", bytes(2000 * KIB))
        except StoreError:
            return

    async def write_it() -> None:
        with pytest.raises(StoreFullError):
            await small.write(swallows)

    gate = await hold_commits(small)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(write_it)
        nursery.start_soon(small.put, "after", b"1")
        await trio.testing.wait_all_tasks_blocked()
        gate.set()
    assert [path for path, _ in small.iterate()] == [(b"after",)]


async def test_a_full_disk_refuses_growth_and_lets_it_through_once_there_is_room(
    small: DB, caplog: pytest.LogCaptureFixture
) -> None:
    with no_file_grows_past(64 * KIB):
        with pytest.raises(StoreFullError):
            await small.put("big", bytes(100 * KIB))
        await small.put("small", b"1")  # the map is reserved on the disk
    assert small.failed is None
    assert "the store cannot grow" in caplog.text
    await small.put("big", bytes(100 * KIB))
    assert small.get("small") == b"1"


async def test_that_the_store_cannot_grow_is_logged_once_and_anew_after_it_has_grown(
    small: DB, caplog: pytest.LogCaptureFixture
) -> None:
    for room, logged in ((64, 1), (256, 2)):
        with no_file_grows_past(room * KIB):
            for _ in range(3):
                with pytest.raises(StoreFullError):
                    await small.put("big", bytes(500 * KIB))
                assert caplog.text.count("the store cannot grow") == logged


async def test_a_store_opens_on_a_full_disk(
    store_path: Path, key_ring: FakeKeyRing, caplog: pytest.LogCaptureFixture
) -> None:
    async with await DB.create_db(db_path=store_path, key_ring=key_ring) as db:
        await db.put("a", b"1")
    os.truncate(store_path / "data.mdb", 64 * KIB)  # unused pages
    with no_file_grows_past(64 * KIB):
        await db.start()
        assert db.get("a") == b"1"
        assert await db.delete("a")
        await db.stop()
    assert "no room for 16777216 bytes" in caplog.text


async def test_a_commit_that_meets_a_full_disk_is_refused_and_the_store_goes_on(
    db: DB,
) -> None:
    gate = await hold_commits(db)
    refused: list[StoreFullError] = []

    async def put(name: str) -> None:
        with pytest.raises(StoreFullError, match="no room") as caught:
            await db.put(name, b"1")
        refused.append(caught.value)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(put, "a")
        nursery.start_soon(put, "b")
        await trio.testing.wait_all_tasks_blocked()
        with no_file_grows_past(8 * KIB):  # only the meta pages
            gate.set()
            while len(refused) < 2:
                await trio.testing.wait_all_tasks_blocked(0.001)
    assert refused[0] is not refused[1]
    assert (db.failed, db.iterate(), db.commits) == (None, [], 0)
    await db.put("a", b"1")


async def fail_fatally(db: DB) -> None:
    """A short write, which LMDB reports as an I/O error."""
    with (
        no_file_grows_past(64 * KIB),
        pytest.raises(StoreError, match=r"Input/output error.*accepts nothing more"),
    ):
        await db.put("big", bytes(1000 * KIB))


async def test_an_io_error_at_a_commit_is_fatal_and_everything_after_it_is_refused(
    db: DB, caplog: pytest.LogCaptureFixture
) -> None:
    await db.put("a", b"1")
    await fail_fatally(db)
    assert type(db.failed) is StoreError
    assert "the store's writer failed" in caplog.text
    for read in (lambda: db.get("a"), db.iterate, db.count, lambda: db.sealed("a")):
        with pytest.raises(StoreError, match="until the agent is restarted") as caught:
            read()
        assert caught.value is not db.failed, "one that is raised everywhere collects every traceback"
    with pytest.raises(StoreError, match="until the agent is restarted"):
        await db.put("b", b"1")
    with pytest.raises(StoreError, match="until the agent is restarted"):
        db.submit(lambda view: view.put("b", b"1"))
    await db.stop()
    assert not (db.path / "stopped").exists(), "what the disk holds is to be verified"
    await db.start()
    assert db.failed is None
    assert db.iterate() == [((b"a",), b"1")]


async def test_operations_queued_behind_a_fatal_failure_are_refused_too(db: DB) -> None:
    ran = []
    refused = []

    def breaks_the_writer(view: View) -> NoReturn:
        view.failure = lmdb.CorruptedError("made up")  # type: ignore[attr-defined]
        raise StoreDamagedError

    async def put(name: str) -> None:
        with pytest.raises(StoreDamagedError, match="until the agent is restarted"):
            await db.write(lambda view: ran.append(name))
        refused.append(name)

    gate = await hold_commits(db)
    async with trio.open_nursery() as nursery:
        db.submit(breaks_the_writer)
        for number in range(3):
            nursery.start_soon(put, str(number))
        await trio.testing.wait_all_tasks_blocked()
        gate.set()
    assert sorted(refused) == ["0", "1", "2"]
    assert isinstance(db.failed, StoreDamagedError)


@pytest.mark.parametrize("can_grow", [True, False])
async def test_a_map_that_fills_up_at_whatever_page_is_grown_or_refused_without_harm(
    store_path: Path, key_ring: FakeKeyRing, can_grow: bool
) -> None:
    # If the values take the last page, the commit's own bookkeeping finds no room.
    for pages in range(1, 16):
        db = DB(store_path, key_ring, map_bytes=64 * KIB, max_map_bytes=(128 if can_grow else 64) * KIB)
        await db.start(fresh=True)
        async with db:
            value = bytes(pages * 4 * KIB - 200)
            try:
                await db.put("big", value)
            except StoreFullError:
                assert not can_grow
                assert db.get("big") is None
            else:
                assert db.get("big") == value
            assert await db.write(lambda view: view.get("big") is not None) is (db.get("big") is not None)
            assert db.failed is None


def break_the_tree(data_file: Path) -> None:
    """Make both meta pages name a root page that the file does not have."""
    with data_file.open("r+b") as file:
        for page in (0, 1):
            file.seek(page * 4 * KIB + 128)
            file.write((2**40).to_bytes(8, "little"))


async def test_a_tree_that_leads_nowhere_is_damage_at_the_start(
    store_path: Path, key_ring: FakeKeyRing
) -> None:
    async with await DB.create_db(db_path=store_path, key_ring=key_ring) as db:
        await db.put("a", b"1")
    break_the_tree(store_path / "data.mdb")
    with pytest.raises(StoreDamagedError, match="agentd init --fresh"):
        await db.start()
    await db.start(fresh=True)
    await db.stop()


async def test_a_tree_that_leads_nowhere_is_damage_while_running_and_ends_the_writing(db: DB) -> None:
    await db.put("a", b"1")
    break_the_tree(db.path / "data.mdb")
    for read in (lambda: db.get("a"), db.iterate):
        with pytest.raises(StoreDamagedError, match="agentd init --fresh"):
            read()
    with pytest.raises(StoreDamagedError, match="accepts nothing more"):
        await db.put("a", b"2")
    assert isinstance(db.failed, StoreDamagedError)


async def test_damage_that_an_operation_swallows_ends_the_writing_too(db: DB) -> None:
    await db.put("a", b"1")
    break_the_tree(db.path / "data.mdb")

    def swallows(view: View) -> None:
        with suppress(StoreDamagedError):
            view.get("a")

    with pytest.raises(StoreDamagedError, match="accepts nothing more"):
        await db.write(swallows)


async def test_use_after_closing_is_refused(store_path: Path, key_ring: FakeKeyRing) -> None:
    db = await DB.create_db(db_path=store_path, key_ring=key_ring)
    assert db._writer is not None
    environment = db._writer.environment
    await db.stop()
    with pytest.raises(StoreError, match="closed"):
        environment.get((b"d",))
    with pytest.raises(StoreError, match="closed"):
        environment.begin()


async def test_a_file_system_that_reserves_nothing_is_lived_with(
    store_path: Path, key_ring: FakeKeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(fd: int, offset: int, size: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    async with await DB.create_db(db_path=store_path, key_ring=key_ring) as db:
        await db.put("a", b"1")


async def test_an_environment_whose_reservation_fails_oddly_is_closed_again(
    store_path: Path, key_ring: FakeKeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await DB.create_db(db_path=store_path, key_ring=key_ring) as db:
        pass
    real = os.open

    def no_descriptors(path: str | Path, flags: int, *mode: int, dir_fd: int | None = None) -> int:
        if str(path).endswith("data.mdb"):
            raise OSError(errno.EMFILE, "Too many open files", str(path))
        return real(path, flags, *mode, dir_fd=dir_fd)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", no_descriptors)
        with pytest.raises(StoreError, match="Too many open files"):
            await db.start()
    await db.start()
    await db.stop()


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (lmdb.MapFullError("put"), StoreFullError, "Free some disk space"),
        (lmdb.DiskError("commit"), StoreFullError, "Free some disk space"),
        (lmdb.TxnFullError("put"), StoreFullError, "too much for one transaction"),
        (lmdb.CorruptedError("get"), StoreDamagedError, "agentd init --fresh"),
        (lmdb.PageNotFoundError("get"), StoreDamagedError, "agentd init --fresh"),
        (lmdb.PanicError("begin"), StoreError, "the store failed: begin"),
    ],
)
def test_every_error_of_lmdbs_has_one_meaning(error: lmdb.Error, kind: type[StoreError], told: str) -> None:
    found = store_error(error)
    assert type(found) is kind
    assert told in found.sentence
