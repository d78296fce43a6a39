from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agentd.store import DB, check_folder
from agentd.store.errors import os_errors_translated
from agentd.store.folder import lock_folder
from agentd_client.errors import StoreError, StoreFullError, StoreInUseError

from .fakes import FakeKeyRing


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o777])
async def test_files_are_0600_and_folders_0700_under_any_umask(
    store_path: Path, key_ring: FakeKeyRing, mask: int
) -> None:
    with umask(mask):
        async with await DB.create_db(db_path=store_path, key_ring=key_ring) as db:
            await db.put("a", b"1")
        await db.start()
        await db.stop()
    assert (mode(store_path), mode(store_path.parent)) == (0o700, 0o700)
    assert {name: mode(store_path / name) for name in os.listdir(store_path)} == {
        "data.mdb": 0o600,
        "agentd.lock": 0o600,
        "stopped": 0o600,
    }


@pytest.mark.parametrize(
    ("name", "bits", "remedy"),
    [
        ("", 0o750, "mode 0750.*chmod 700 "),
        ("data.mdb", 0o644, "mode 0644.*chmod 600 "),
    ],
)
async def test_files_open_to_others_are_refused_with_the_remedy(
    store_path: Path, key_ring: FakeKeyRing, name: str, bits: int, remedy: str
) -> None:
    async with await DB.create_db(db_path=store_path, key_ring=key_ring) as db:
        pass
    (store_path / name).chmod(bits)
    with pytest.raises(StoreError, match=remedy):
        await db.start()
    (store_path / name).chmod(0o600 if name else 0o700)
    await db.start()
    await db.stop()


async def test_a_foreign_owned_folder_is_refused(
    store_path: Path, key_ring: FakeKeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.makedirs(store_path, mode=0o700)
    uid = os.getuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    with pytest.raises(StoreError, match=f"belongs to uid {uid}, not to you"):
        await DB.create_db(db_path=store_path, key_ring=key_ring)
    assert os.listdir(store_path) == []


async def test_links_and_other_kinds_of_files_are_refused(
    store_path: Path, key_ring: FakeKeyRing, tmp_path: Path
) -> None:
    os.mkdir(store_path.parent)
    (store_path.parent / "store").touch()
    with pytest.raises(StoreError, match="is not a store folder"):
        await DB.create_db(db_path=store_path, key_ring=key_ring)
    os.unlink(store_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    os.symlink(elsewhere, store_path)
    with pytest.raises(StoreError, match="is not a store folder"):
        await DB.create_db(db_path=store_path, key_ring=key_ring)
    os.unlink(store_path)
    async with await DB.create_db(db_path=store_path, key_ring=key_ring) as db:
        pass
    (store_path / "data.mdb").rename(tmp_path / "moved")
    (store_path / "data.mdb").symlink_to(tmp_path / "moved")
    with pytest.raises(StoreError, match="is not a data file"):
        await db.start()
    (store_path / "agentd.lock").unlink()
    (store_path / "agentd.lock").symlink_to(tmp_path / "nowhere")
    with pytest.raises(StoreError, match=r"agentd\.lock"):
        await db.start()
    assert not (tmp_path / "nowhere").exists()


async def test_a_creation_that_was_interrupted_leaves_no_store_behind(
    store_path: Path, key_ring: FakeKeyRing
) -> None:
    half_made = store_path / "creating"
    half_made.mkdir(parents=True)
    (half_made / "data.mdb").write_bytes(b"half made")
    os.chmod(store_path, 0o700)
    async with await DB.create_db(db_path=store_path, key_ring=key_ring) as db:
        await db.put("a", b"1")
    assert not half_made.exists()


async def test_a_lock_file_that_was_replaced_while_it_was_opened_is_not_enough(
    store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Another agent destroys its store between our open and our flock: the locked file no longer exists.
    real = fcntl.flock
    calls = []

    def lose_the_race(fd: int, operation: int) -> None:
        calls.append(fd)
        if len(calls) == 1:
            (store_path / "agentd.lock").unlink()
        if len(calls) == 2:
            (store_path / "agentd.lock").unlink()
            (store_path / "agentd.lock").touch()
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", lose_the_race)
    lock = lock_folder(store_path)
    assert len(calls) == 3
    with pytest.raises(StoreInUseError):
        check_folder(store_path)
    os.close(lock)
    check_folder(store_path)


async def test_a_folder_that_is_destroyed_again_and_again_is_given_up(
    store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def destroy_first(path: Any, *arguments: Any, **more: Any) -> int:
        if str(path).endswith("agentd.lock"):
            store_path.rmdir()
        return real(path, *arguments, **more)

    monkeypatch.setattr(os, "open", destroy_first)
    with pytest.raises(StoreInUseError, match="removed again and again"):
        check_folder(store_path)


async def test_a_failing_lock_closes_its_file(
    store_path: Path, monkeypatch: pytest.MonkeyPatch, open_descriptors: Callable[[], set[str]]
) -> None:
    def fail(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", fail)
    before = open_descriptors()
    with pytest.raises(StoreError, match="No locks available"):
        check_folder(store_path)
    assert open_descriptors() == before


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_distinguished_from_other_failures(code: int) -> None:
    with pytest.raises(StoreFullError, match="the/file"), os_errors_translated():
        raise OSError(code, "no room", "the/file")


async def test_a_folder_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="Not a directory"):
        check_folder(tmp_path / "file" / "store")


async def test_a_folder_that_cannot_be_removed_says_why_and_can_be_destroyed_again(
    store_path: Path, key_ring: FakeKeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await DB.create_db(db_path=store_path, key_ring=key_ring) as db:
        pass

    def busy(path: object) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(os, "rmdir", busy)
        with pytest.raises(StoreError, match="busy"):
            await db.destroy()
    await db.destroy()
    assert not os.access(store_path, os.F_OK)
