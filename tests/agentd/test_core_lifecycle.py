"""Every start, stop and destroy of the core, cancelled wherever it can be: before the change, or after it."""

from __future__ import annotations

import gc
import os
import threading
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio
import trio.testing

from agentd.keys import KeyRing
from agentd.sessions import SessionManager
from agentd.store import DB
from agentd_client.lifecycle import LifecycleEvent, State
from tests.disk import committing_threads, hold_commits
from tests.locking.cancelling import cancelled_at
from tests.store.fakes import FakeKeyRing

MANY_STEPS = 200
SUBJECTS = ["key_ring", "db", "manager"]
DONE = {State.RUNNING: "started", State.STOPPED: "stopped", State.DESTROYED: "destroyed"}


class Core(NamedTuple):
    key_ring: KeyRing
    db: DB
    manager: SessionManager


def resources() -> tuple[int, int]:
    gc.collect()  # else what earlier steps left behind may be closed between two readings
    return len(os.listdir("/proc/self/fd")), len(committing_threads())


async def core_for(folder: Path, subject: str) -> Core:
    """All that the subject rests on is running, and the subject is stopped."""
    key_ring = KeyRing(folder / "keys")
    await key_ring.start()
    db = DB(folder / "store", key_ring)
    await db.start()
    core = Core(key_ring, db, SessionManager(db, key_ring))
    if subject == "db":
        await db.stop()
    elif subject == "key_ring":
        await db.stop()
        await key_ring.stop()
    return core


async def stop(core: Core) -> None:
    for part in (core.manager, core.db, core.key_ring):
        await part.stop()


async def use(core: Core, subject: str) -> None:
    if subject == "key_ring":
        assert core.key_ring.open(core.key_ring.seal(b"value", b""), b"") == b"value"
    elif subject == "db":
        await core.db.put("probe", b"1")
        assert core.db.get("probe") == b"1"
    else:
        token = await core.manager.create_token()
        assert await core.manager.verify_token(token)
        with await core.manager.setup_key() as key:
            assert len(key) == 32


@pytest.mark.parametrize("subject", SUBJECTS)
@pytest.mark.parametrize("change", ["start", "start fresh", "stop", "destroy"])
async def test_a_change_that_is_cancelled_anywhere_is_made_or_not_made(
    tmp_path: Path, subject: str, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    for step in range(1, MANY_STEPS):
        core = await core_for(tmp_path / str(step), subject)
        part: Any = getattr(core, subject)
        others_hold = resources()
        if change == "stop":
            await part.start()
            await use(core, subject)
        elif change == "destroy":
            await part.start()
            await part.stop()
        before = part.state
        events: list[LifecycleEvent] = []
        part.observe(events.append)
        work = {"start fresh": partial(part.start, fresh=True)}.get(change) or getattr(part, change)
        was_cancelled = await cancelled_at(step, work)

        goal = {"stop": State.STOPPED, "destroy": State.DESTROYED}.get(change, State.RUNNING)
        assert part.state in ((goal,) if change == "stop" else (before, goal))
        assert (events[-1:] == [LifecycleEvent(DONE[goal])]) == (part.state is goal), (
            "the event is sent once it has happened"
        )
        if part.state is not State.RUNNING:
            assert resources() == others_hold
            assert core.manager._keys._keys == {}
        if goal is State.DESTROYED:
            await part.destroy()
            assert part.state is State.DESTROYED
        else:
            await part.start()
            await use(core, subject)
        await stop(core)
        if not was_cancelled:
            assert step > 1
            return
    raise AssertionError("it never comes to its end")


@pytest.mark.parametrize("change", ["start", "start fresh", "stop", "destroy"])
async def test_a_manager_whose_disk_is_slow_is_changed_or_not_changed(
    tmp_path: Path, change: str, autojump_clock: trio.testing.MockClock
) -> None:
    core = await core_for(tmp_path, "manager")
    manager = core.manager
    if change in ("stop", "destroy"):
        await manager.start()
        await manager.create_token()
        await manager.verify_token(await manager.create_token())
        if change == "destroy":
            await manager.stop()
    disk = await hold_commits(core.db)
    work: Any = {"start fresh": partial(manager.start, fresh=True)}.get(change) or getattr(manager, change)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        await trio.sleep(0.5)
        nursery.cancel_scope.cancel()  # it waits for the disk
    assert manager.state is State.STOPPED, "a stop does not wait longer than it may, and the others go back"
    assert manager._keys._keys == {}
    disk.set()
    if change == "destroy":
        await manager.destroy()
        assert core.db.iterate("sessions") == []
    else:
        await manager.start()
        assert manager.key_id, "what was handed over before comes first"
        await use(core, "manager")
    await stop(core)


class SlowKeyRing(FakeKeyRing):
    """One that a store has to wait for as it opens."""

    def __init__(self) -> None:
        super().__init__()
        self.may_open = threading.Event()

    def open(self, sealed: bytes, context: bytes) -> bytes:
        assert self.may_open.wait(60)
        return super().open(sealed, context)


@pytest.mark.parametrize("change", ["start", "stop", "destroy"])
async def test_a_store_whose_disk_is_slow_is_changed_and_can_be_used(tmp_path: Path, change: str) -> None:
    key_ring = SlowKeyRing()
    db = DB(tmp_path / "store", key_ring)
    held = resources()
    disk = key_ring.may_open if change == "start" else threading.Event()
    if change != "start":
        key_ring.may_open.set()
        await db.start()
    if change == "stop":
        disk = await hold_commits(db)
        db.submit(lambda view: view.put("queued", b"1"))
    if change == "destroy":
        await db.stop()
        remove, db._folder.remove_data = db._folder.remove_data, lambda: (disk.wait(60), remove())[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(getattr(db, change))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        disk.set()
    assert db.state is {"start": State.RUNNING, "stop": State.STOPPED}.get(change, State.DESTROYED)
    if change == "stop":
        await db.start()
        assert db.get("queued") == b"1"
    await db.stop()
    assert resources() == held


async def test_a_stop_that_fails_has_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    core = await core_for(tmp_path, "manager")
    await core.manager.start()
    await core.manager.setup_key()
    events: list[LifecycleEvent] = []
    core.manager.observe(events.append)

    async def fail() -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(core.manager._upkeep, "delete_known_expired", fail)
        with pytest.raises(ZeroDivisionError):
            await core.manager.stop()
    assert core.manager.state is State.STOPPED
    assert events == [LifecycleEvent.STOPPING, LifecycleEvent.STOPPED]
    assert core.manager._keys._keys == {}
    await core.manager.start()
    await use(core, "manager")
    await stop(core)
