from __future__ import annotations

import os
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
        assert os.readlink(path) == boot_id.read().strip()
    assert LockMark(path).is_set()
    assert not LockMark(path, BOOT).is_set()


def test_cleared_it_is_gone_and_clearing_twice_does_nothing(path):
    mark = LockMark(path, BOOT)
    mark.set()
    mark.clear()
    mark.clear()
    assert not mark.is_set()
    assert not path.exists()


def test_in_doubt_it_is_set(path, tmp_path):
    path.write_text(LATER_BOOT)
    assert LockMark(path, BOOT).is_set()
    assert LockMark(path / "below", BOOT).is_set()
    assert not LockMark(tmp_path / "missing" / "mark", BOOT).is_set()


def test_if_the_boot_is_unknown_a_mark_counts(path):
    mark = LockMark(path, "")
    assert not mark.is_set()
    mark.set()
    assert mark.is_set()
    assert LockMark(path, BOOT).is_set()
    LockMark(path, BOOT).set()
    assert mark.is_set()


@pytest.mark.parametrize("failing", ["symlink", "replace"])
def test_a_mark_that_cannot_be_written_leaves_the_earlier_one(path, failing, monkeypatch):
    LockMark(path, BOOT).set()

    def fail(*arguments, **more):
        raise OSError

    with monkeypatch.context() as patched:
        patched.setattr(os, failing, fail)
        with pytest.raises(OSError):
            LockMark(path, LATER_BOOT).set()
    assert os.listdir(path.parent) == [path.name]
    assert LockMark(path, BOOT).is_set()


def test_failures_to_write_or_remove_are_raised(tmp_path):
    (tmp_path / "mark").mkdir()
    with pytest.raises(OSError):
        LockMark(tmp_path / "missing" / "mark", BOOT).set()
    with pytest.raises(OSError):
        LockMark(tmp_path / "mark", BOOT).set()
    with pytest.raises(OSError):
        LockMark(tmp_path / "mark", BOOT).clear()
    LockMark(tmp_path / "missing" / "mark", BOOT).clear()
    assert os.listdir(tmp_path) == ["mark"]


def test_it_is_on_the_disk_when_set_and_clear_return(path, monkeypatch):
    synced = []
    fsync = os.fsync

    def recorded(descriptor):
        fsync(descriptor)
        synced.append((os.readlink(f"/proc/self/fd/{descriptor}"), os.listdir(path.parent)))

    monkeypatch.setattr(os, "fsync", recorded)
    LockMark(path, BOOT).set()
    LockMark(path, BOOT).clear()
    assert synced == [(str(path.parent), [path.name]), (str(path.parent), [])]
