from __future__ import annotations

import os
import stat
import uuid

import pytest

from agentd.locking import LockMark

BOOT, LATER_BOOT = str(uuid.UUID(int=1)), str(uuid.UUID(int=2))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "locked"


def test_it_stays_across_a_restart_and_not_across_a_boot(path):
    assert not LockMark(path, BOOT).is_set()
    LockMark(path, BOOT).set()
    assert LockMark(path, BOOT).is_set()
    assert not LockMark(path, LATER_BOOT).is_set()
    LockMark(path, LATER_BOOT).set()
    assert LockMark(path, LATER_BOOT).is_set()


def test_the_present_boot_is_the_kernels(path):
    LockMark(path).set()
    with open("/proc/sys/kernel/random/boot_id") as boot_id:
        assert path.read_text() == boot_id.read()
    assert LockMark(path).is_set()
    assert not LockMark(path, BOOT).is_set()


def test_cleared_it_is_gone_and_clearing_twice_does_nothing(path):
    mark = LockMark(path, BOOT)
    mark.set()
    mark.clear()
    mark.clear()
    assert not mark.is_set()
    assert not path.exists()


def test_it_is_private_whatever_the_umask(path):
    before = os.umask(0)
    try:
        LockMark(path, BOOT).set()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        os.umask(0o777)
        LockMark(path, BOOT).set()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(before)


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"\0" * 37, b"\xff" * 36, BOOT[:-1].encode(), BOOT.encode() + b"0", b"x" * 100_000],
)
def test_in_doubt_it_is_set(path, content):
    path.write_bytes(content)
    assert LockMark(path, BOOT).is_set()
    assert LockMark(path, "").is_set()


def test_what_is_no_file_is_set(path, tmp_path):
    path.mkdir()
    assert LockMark(path, BOOT).is_set()
    assert LockMark(path / "file", BOOT).is_set() is False
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text(LATER_BOOT)
    (tmp_path / "link").symlink_to(elsewhere)
    assert LockMark(tmp_path / "link", BOOT).is_set()
    os.mkfifo(tmp_path / "fifo")
    assert LockMark(tmp_path / "fifo", BOOT).is_set()
    assert LockMark(elsewhere / "below", BOOT).is_set()


def test_where_the_boot_is_unknown_a_mark_is_set(path):
    mark = LockMark(path, "")
    assert not mark.is_set()
    mark.set()
    assert mark.is_set()
    assert LockMark(path, BOOT).is_set()
    LockMark(path, BOOT).set()
    assert mark.is_set()


@pytest.mark.parametrize("failing", ["write", "fsync", "replace"])
def test_a_mark_that_cannot_be_written_leaves_what_was_there(path, failing, monkeypatch):
    LockMark(path, BOOT).set()

    def fail(*arguments, **more):
        raise OSError

    with monkeypatch.context() as patched:
        patched.setattr(os, failing, fail)
        with pytest.raises(OSError):
            LockMark(path, LATER_BOOT).set()
    assert os.listdir(path.parent) == [path.name]
    assert LockMark(path, BOOT).is_set()


def test_where_it_cannot_be_written_or_removed_that_is_told(tmp_path):
    (tmp_path / "mark").mkdir()
    with pytest.raises(OSError):
        LockMark(tmp_path / "missing" / "mark", BOOT).set()
    with pytest.raises(OSError):
        LockMark(tmp_path / "mark", BOOT).clear()
    LockMark(tmp_path / "missing" / "mark", BOOT).clear()
