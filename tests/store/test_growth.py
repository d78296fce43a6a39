from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from agentd.store import DB, growth
from agentd.store.growth import MIN_GROWTH_BYTES, RETRY_SECONDS, Growth, reserve
from agentd_client.errors import StoreError, StoreFullError

from .fakes import FakeKeyRing

MIB = 1024 * 1024


class Disk:
    """A fake disk that counts how often blocks are requested."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free_bytes: int | None = 1024 * MIB
        self.refusal: int | None = None
        self.asked = 0
        monkeypatch.setattr(os, "statvfs", self._statvfs)
        monkeypatch.setattr(os, "posix_fallocate", self._posix_fallocate)

    def _statvfs(self, path: object) -> SimpleNamespace:
        blocks = 0 if self.free_bytes is None else self.free_bytes // 4096
        total = 0 if self.free_bytes is None else 1 << 40
        return SimpleNamespace(f_blocks=total, f_bfree=blocks, f_bavail=blocks, f_frsize=4096)

    def _posix_fallocate(self, fd: int, offset: int, size_bytes: int) -> None:
        self.asked += 1
        if self.refusal is not None:
            raise OSError(self.refusal, os.strerror(self.refusal))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.fixture
def data_file(tmp_path: Path) -> Path:
    path = tmp_path / "data.mdb"
    path.write_bytes(bytes(4096))
    return path


def growing(data_file: Path, max_map_bytes: int = 1 << 40) -> Growth:
    return Growth(data_file, max_map_bytes)


def test_a_map_doubles_if_that_leaves_half_of_the_disk(disk: Disk, data_file: Path) -> None:
    assert growing(data_file).take(16 * MIB) == 32 * MIB
    assert growing(data_file).take(512 * MIB) == 1024 * MIB


def test_on_a_disk_with_less_room_it_takes_half_of_that(disk: Disk, data_file: Path) -> None:
    disk.free_bytes = 10 * MIB
    assert growing(data_file).take(16 * MIB) == 21 * MIB


def test_growth_ends_at_the_limit(disk: Disk, data_file: Path) -> None:
    limited = growing(data_file, max_map_bytes=20 * MIB)
    assert limited.take(16 * MIB) == 20 * MIB
    with pytest.raises(StoreFullError, match=f"its limit of {20 * MIB} bytes"):
        limited.take(20 * MIB)


def test_a_disk_that_says_that_it_is_full_is_not_asked_for_blocks(disk: Disk, data_file: Path) -> None:
    full = growing(data_file)
    disk.free_bytes = 2 * MIN_GROWTH_BYTES - 4096
    for _ in range(100):
        with pytest.raises(StoreFullError, match="no room to grow; free some disk space"):
            full.take(16 * MIB)
    assert disk.asked == 0
    disk.free_bytes = 2 * MIN_GROWTH_BYTES
    assert full.take(16 * MIB) == 16 * MIB + MIN_GROWTH_BYTES  # at once, at any time


@pytest.mark.parametrize("refusal", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_refused_allocation_is_retried_after_a_while(
    disk: Disk, data_file: Path, refusal: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(growth, "monotonic", lambda: now[0])
    full = growing(data_file)
    disk.refusal = refusal
    for seconds, asked in [(0.0, 1), (RETRY_SECONDS / 2, 1), (RETRY_SECONDS, 2), (0.0, 2)]:
        now[0] += seconds
        with pytest.raises(StoreFullError):
            full.take(16 * MIB)
        assert disk.asked == asked
    disk.refusal = None
    now[0] += RETRY_SECONDS
    assert full.take(16 * MIB) == 32 * MIB
    assert full.take(32 * MIB) == 64 * MIB


def test_a_file_system_that_does_not_report_free_space_is_tried(disk: Disk, data_file: Path) -> None:
    disk.free_bytes = None
    assert growing(data_file).take(16 * MIB) == 32 * MIB


@pytest.mark.parametrize("refusal", [errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
def test_a_file_system_that_reserves_nothing_is_lived_with(disk: Disk, data_file: Path, refusal: int) -> None:
    disk.refusal = refusal
    assert growing(data_file).take(16 * MIB) == 32 * MIB


def test_a_disk_that_fails_is_not_called_full(disk: Disk, data_file: Path) -> None:
    disk.refusal = errno.EIO
    with pytest.raises(StoreError, match=r"data\.mdb: Input/output error") as caught:
        reserve(data_file, MIB)
    assert type(caught.value) is StoreError


def test_a_refused_reservation_leaves_the_file_as_it_was(
    data_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def takes_what_there_is(fd: int, offset: int, size_bytes: int) -> None:  # as ext4 does
        os.ftruncate(fd, 8192)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", takes_what_there_is)
    with pytest.raises(StoreFullError, match=f"no room for {MIB} bytes; free some disk space"):
        reserve(data_file, MIB)
    assert data_file.stat().st_size == 4096


@pytest.fixture
def file_size_limit() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_new_store_on_a_small_disk_begins_smaller(
    store_path: Path, key_ring: FakeKeyRing, file_size_limit: None
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 * MIB, before[1]))
    async with await DB.create_db(db_path=store_path, key_ring=key_ring) as db:
        assert db.size_bytes == 2 * MIB
        await db.put("a", b"1")
        assert db.get("a") == b"1"


async def test_a_new_store_without_any_room_is_refused_and_leaves_nothing_that_harms(
    store_path: Path, key_ring: FakeKeyRing, file_size_limit: None
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIN_GROWTH_BYTES // 2, before[1]))
    with pytest.raises(StoreFullError, match="free some disk space"):
        await DB.create_db(db_path=store_path, key_ring=key_ring)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    async with await DB.create_db(db_path=store_path, key_ring=key_ring) as db:
        await db.put("a", b"1")


OUT_OF_ADDRESS_SPACE = """
import resource, sys, trio
from agentd.store import DB
from agentd_client import AgentdError
from tests.store.fakes import FakeKeyRing
MIB = 1024 * 1024

async def main():
    db = DB(sys.argv[1], FakeKeyRing(), map_bytes=16 * MIB)
    async with db:
        await db.start()
        await db.put("a", b"1")
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 12 * MIB,) * 2)
        value = bytes(MIB)
        for number in range(100):
            try:
                await db.put(("big", str(number)), value)
            except AgentdError as error:
                print(error.sentence)
                break
        try:
            print(db.get("a"))
        except AgentdError as error:
            print(error.sentence)

trio.run(main)
"""


def test_a_map_that_the_system_will_not_give_ends_in_a_refusal_and_not_in_a_crash(tmp_path: Path) -> None:
    # LMDB unmaps the old map before it maps the new one.
    done = subprocess.run(
        [sys.executable, "-c", OUT_OF_ADDRESS_SPACE, str(tmp_path / "store")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done
    assert done.stdout.count("the store accepts nothing more until the agent is restarted") == 2, done


def test_which_lmdb_is_used_is_not_left_to_the_environment(tmp_path: Path) -> None:
    program = (
        "import sys, trio; from agentd.store import DB; from tests.store.fakes import FakeKeyRing\n"
        "async def main():\n"
        "    for _ in range(2):\n"
        "        async with await DB.create_db(db_path=sys.argv[1], key_ring=FakeKeyRing()) as db:\n"
        "            await db.put('a', b'1')\n"
        "trio.run(main)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "store")],
        env=os.environ | {"LMDB_DEFAULT_LIB_VERSION": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done


def test_the_least_growth_holds_more_than_the_reserve() -> None:
    assert growth.MIN_GROWTH_BYTES >= 2 * 128 * 4096
