from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import trio

from agentd.crypto import SealError
from agentd.keys import KeyRing, key_file
from agentd_client.errors import (
    KeyFileError,
    KeyRingDestroyedError,
    KeyRingNotRunningError,
    KeyRingRunningError,
    KeyUnavailableError,
)
from agentd_client.lifecycle import LifecycleEvent, State


async def make(path: Path, **more: object) -> KeyRing:
    return await KeyRing.create_key_ring(keys_path=path, **more)


async def test_the_first_start_makes_a_private_key_file(tmp_path):
    before = os.umask(0o777)
    try:
        await make(tmp_path / "keys")
    finally:
        os.umask(before)
    folder, file = tmp_path / "keys", tmp_path / "keys" / "root.key"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.stat().st_size == 32
    assert os.listdir(folder) == ["root.key"], "no temporary is left behind"


@pytest.mark.parametrize("umask", [0, 0o777])
async def test_missing_folders_above_the_keys_are_created_private_under_any_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        await make(tmp_path / "a" / "b" / "keys")
    finally:
        os.umask(before)
    for folder in (tmp_path / "a", tmp_path / "a" / "b", tmp_path / "a" / "b" / "keys"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


async def test_a_key_folder_that_is_no_folder_is_refused_by_name(tmp_path):
    (tmp_path / "file").touch(mode=0o600)
    for path in (tmp_path / "file", tmp_path / "file" / "keys"):
        with pytest.raises(KeyFileError, match=str(path)):
            await make(path)


async def test_the_keys_survive_stop_and_start(tmp_path):
    first = await make(tmp_path / "keys")
    sealed, agent_id = first.seal(b"value", b"path"), first.agent_id
    await first.stop()
    await first.start()
    assert first.open(sealed, b"path") == b"value"
    second = await make(tmp_path / "keys")
    assert second.agent_id == agent_id
    assert second.open(sealed, b"path") == b"value"


async def test_fresh_draws_a_new_root_key(tmp_path):
    first = await make(tmp_path / "keys")
    sealed = first.seal(b"value", b"path")
    second = await make(tmp_path / "keys", fresh=True)
    assert second.agent_id != first.agent_id
    with pytest.raises(SealError):
        second.open(sealed, b"path")


async def test_twenty_key_rings_made_at_once_share_one_root_key(tmp_path):
    made: list[KeyRing] = []

    async def start() -> None:
        made.append(await make(tmp_path / "keys"))

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(start)
    assert len({ring.agent_id for ring in made}) == 1


async def test_a_session_key_goes_from_memory_to_ciphertext_and_back(tmp_path):
    ring = await make(tmp_path / "keys")
    key = ring.new_key()
    wrapped = ring.wrap_key(key, b"id")
    assert bytes(key) not in wrapped
    assert bytes(ring.unwrap_key(wrapped, b"id")) == bytes(key)
    with pytest.raises(SealError):
        ring.unwrap_key(wrapped, b"another id")
    with pytest.raises(SealError):
        ring.open(wrapped, b"id")


async def test_stopping_wipes_every_key(tmp_path):
    async with await make(tmp_path / "keys") as ring:
        sealed = ring.seal(b"value", b"path")
        made = ring.new_key()
        unwrapped = ring.unwrap_key(ring.wrap_key(made, b"id"), b"id")
    assert ring.state is State.STOPPED
    assert made.is_wiped
    assert unwrapped.is_wiped
    for use in (
        lambda: ring.seal(b"", b""),
        lambda: ring.open(sealed, b"path"),
        ring.new_key,
        lambda: ring.agent_id,
    ):
        with pytest.raises(KeyRingNotRunningError):
            use()


async def test_life_cycle(tmp_path):
    ring = KeyRing(tmp_path / "keys")
    events: list[LifecycleEvent] = []
    forget = ring.observe(events.append)
    await ring.start()
    await ring.start()
    with pytest.raises(KeyRingRunningError):
        await ring.destroy()
    await ring.stop()
    await ring.stop()
    await ring.destroy()
    await ring.destroy()
    assert not (tmp_path / "keys").exists()
    forget()
    with pytest.raises(KeyRingDestroyedError):
        await ring.start()
    assert [event.value for event in events] == [
        "starting",
        "started",
        "stopping",
        "stopped",
        "destroying",
        "destroyed",
    ]


async def test_destroying_leaves_other_files(tmp_path):
    ring = await make(tmp_path / "keys")
    (tmp_path / "keys" / "note").touch()
    await ring.stop()
    await ring.destroy()
    assert os.listdir(tmp_path / "keys") == ["note"]


def broken_short(file: Path) -> None:
    file.write_bytes(b"x" * 31)


def broken_long(file: Path) -> None:
    file.write_bytes(b"x" * 33)


def broken_mode(file: Path) -> None:
    file.chmod(0o640)


def broken_symlink(file: Path) -> None:
    file.rename(file.with_name("elsewhere"))
    file.symlink_to("elsewhere")


def broken_fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file, 0o600)


def broken_folder_mode(file: Path) -> None:
    file.parent.chmod(0o750)


def broken_folder(file: Path) -> None:
    file.unlink()
    file.parent.rmdir()
    file.parent.touch()


@pytest.mark.parametrize(
    "broken",
    [broken_short, broken_long, broken_mode, broken_symlink, broken_fifo, broken_folder_mode, broken_folder],
)
async def test_a_key_file_that_is_not_as_it_should_be_is_refused_by_name(tmp_path, broken):
    ring = await make(tmp_path / "keys")
    await ring.stop()
    broken(tmp_path / "keys" / "root.key")
    with pytest.raises(KeyFileError, match=str(tmp_path / "keys")):
        await ring.start()
    assert ring.state is State.STOPPED


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away needs root")
@pytest.mark.parametrize("name", ["keys", "keys/root.key"])
async def test_a_key_file_of_another_user_is_refused(tmp_path, name):
    await (await make(tmp_path / "keys")).stop()
    os.chown(tmp_path / name, 65534, 65534)
    with pytest.raises(KeyFileError, match="belongs to uid 65534"):
        await make(tmp_path / "keys")


async def test_a_key_file_that_vanishes_while_it_is_made_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(key_file, "write_key", lambda file, content, replace: False)
    with pytest.raises(KeyFileError, match="created and removed"):
        await make(tmp_path / "keys")


async def test_a_failed_write_is_an_error_and_leaves_nothing(tmp_path, monkeypatch):
    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(key_file.os, "fsync", fail)
    with pytest.raises(KeyFileError, match="No space left"):
        await make(tmp_path / "keys")
    assert os.listdir(tmp_path / "keys") == []


async def test_removing_a_key_file_that_cannot_be_removed_is_an_error(tmp_path):
    ring = await make(tmp_path / "keys")
    await ring.stop()
    (tmp_path / "keys" / "root.key").unlink()
    (tmp_path / "keys" / "root.key").mkdir()
    with pytest.raises(KeyFileError):
        await ring.destroy()
    assert ring.state is State.STOPPED


async def test_destroying_a_missing_folder_does_nothing(tmp_path):
    ring = KeyRing(tmp_path / "keys")
    await ring.destroy()
    assert ring.state is State.DESTROYED


async def test_a_handle_refuses_after_its_key_was_wiped(tmp_path):
    ring = await make(tmp_path / "keys")
    key = ring.new_key()
    key.wipe()
    with pytest.raises(KeyUnavailableError):
        ring.wrap_key(key, b"id")


async def test_what_is_logged_holds_no_key(tmp_path, caplog):
    caplog.set_level("DEBUG")
    await make(tmp_path / "keys")
    key = (tmp_path / "keys" / "root.key").read_bytes()
    assert "made a new root key" in caplog.text
    assert key.hex() not in caplog.text
