"""The core belongs to the event loop that it was started on: every other one, and every thread, is refused."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trio
import trio.testing

from agentd.keys import KeyRing
from agentd.lifecycle import EventLoop
from agentd.sessions import SessionKey, SessionManager, Subscribers
from agentd.store import DB, Transaction
from agentd_client import WrongLoopError
from agentd_client.lifecycle import State
from tests.disk import committing_threads, hold_commits


class Core(NamedTuple):
    key_ring: KeyRing
    db: DB
    manager: SessionManager
    subscribers: Subscribers
    token: str
    key: SessionKey
    tran: Transaction
    """Begun, and never ended."""


async def started(folder: Path) -> Core:
    key_ring = await KeyRing.create_key_ring(keys_path=folder / "keys")
    db = await DB.create_db(db_path=folder / "store", key_ring=key_ring)
    heard = Subscribers()
    manager = await SessionManager.create_session_manager(db=db, key_ring=key_ring, subscribers=heard)
    token = await manager.create_token()
    assert await manager.verify_token(token)
    await db.put("a", b"1")
    tran = await db.transaction().__aenter__()
    return Core(key_ring, db, manager, heard, token, await manager.setup_key(), tran)


async def stop(core: Core) -> None:
    await core.manager.stop()
    await core.db.stop()
    await core.key_ring.stop()


def use_buffer(core: Core) -> None:
    with core.key:
        pass


async def commit(core: Core) -> None:
    await core.tran.__aexit__(None, None, None)


async def begin(core: Core) -> None:
    await core.db.transaction().__aenter__()


def do_nothing(_: object) -> None: ...


OPERATIONS: dict[str, Callable[[Core], object]] = {
    "key_ring.start": lambda core: core.key_ring.start(),
    "key_ring.destroy": lambda core: core.key_ring.destroy(),
    "key_ring.observe": lambda core: core.key_ring.observe(do_nothing),
    "db.start": lambda core: core.db.start(),
    "db.destroy": lambda core: core.db.destroy(),
    "db.observe": lambda core: core.db.observe(do_nothing),
    "db.get": lambda core: core.db.get("a"),
    "db.iterate": lambda core: core.db.iterate(),
    "db.count": lambda core: core.db.count(),
    "db.sealed": lambda core: core.db.sealed("a"),
    "db.put": lambda core: core.db.put("a", b"2"),
    "db.delete": lambda core: core.db.delete("a"),
    "db.clear": lambda core: core.db.clear("a"),
    "db.write": lambda core: core.db.write(lambda view: view.put("a", b"2")),
    "db.submit": lambda core: core.db.submit(lambda view: view.put("a", b"2")),
    "db.failure": lambda core: core.db.failure(),
    "db.transaction": begin,
    "tran.get": lambda core: core.tran.get("a"),
    "tran.put": lambda core: core.tran.put("a", b"2"),
    "tran.delete": lambda core: core.tran.delete("a"),
    "tran.clear": lambda core: core.tran.clear("a"),
    "tran.iterate": lambda core: core.tran.iterate(),
    "tran.on_durable": lambda core: core.tran.on_durable(lambda: None),
    "tran commit": commit,
    "manager.start": lambda core: core.manager.start(),
    "manager.destroy": lambda core: core.manager.destroy(),
    "manager.observe": lambda core: core.manager.observe(do_nothing),
    "manager.on_event": lambda core: core.manager.on_event(do_nothing),
    "manager.setup_key": lambda core: core.manager.setup_key(),
    "manager.reset_key": lambda core: core.manager.reset_key(),
    "manager.create_token": lambda core: core.manager.create_token(),
    "manager.open_session": lambda core: core.manager.open_session(),
    "manager.verify_token": lambda core: core.manager.verify_token(core.token),
    "manager.verify_nowait": lambda core: core.manager.verify_nowait(core.token),
    "manager.verify_and_consume": lambda core: core.manager.verify_and_consume(core.token),
    "manager.inspect_token": lambda core: core.manager.inspect_token(core.token),
    "manager.inspect": lambda core: core.manager.inspect(core.token),
    "manager.renew_token": lambda core: core.manager.renew_token(core.token),
    "manager.revoke_token": lambda core: core.manager.revoke_token(core.token),
    "manager.revoke_sessions": lambda core: core.manager.revoke_sessions(),
    "manager.list_sessions": lambda core: core.manager.list_sessions(),
    "manager.list_audit": lambda core: core.manager.list_audit(),
    "manager.session_count": lambda core: core.manager.session_count,
    "manager.key_id": lambda core: core.manager.key_id,
    "manager.write_audit_entry": lambda core: core.manager.write_audit_entry("locked"),
    "manager.sweep": lambda core: core.manager.sweep(),
    "manager.run": lambda core: core.manager.run(),
    "another manager on them": lambda core: SessionManager(core.db, core.key_ring).start(),
    "subscribers": lambda core: core.subscribers.subscribe(do_nothing),
    "bytes(session key)": lambda core: bytes(core.key),
    "len(session key)": lambda core: len(core.key),
    "with session key": use_buffer,
}
STOPS: dict[str, Callable[[Core], object]] = {
    "manager.stop": lambda core: core.manager.stop(),
    "db.stop": lambda core: core.db.stop(),
    "key_ring.stop": lambda core: core.key_ring.stop(),
}
OUTLIVING = ["manager.on_event", "subscribers"]
"""Who subscribes may wait for the next manager."""


async def awaited(answer: object) -> object:
    return await answer if isinstance(answer, Awaitable) else answer


def those_not_refused(
    core: Core, operations: dict[str, Callable[[Core], object]], run: Any
) -> dict[str, str]:
    """What each does that is not refused by name."""
    found: dict[str, str] = {}
    for name, operation in operations.items():
        try:
            found[name] = f"answers {run(operation, core)!r}"
        except WrongLoopError:
            pass
        except BaseException as error:
            found[name] = f"raises {error!r}"
    return found


def in_trio(operation: Callable[[Core], object], core: Core) -> object:
    async def main() -> object:
        with trio.fail_after(20):
            return await awaited(operation(core))

    return trio.run(main)


def in_asyncio(operation: Callable[[Core], object], core: Core) -> object:
    async def main() -> object:
        return await awaited(operation(core))

    return asyncio.run(main())


def in_no_loop(operation: Callable[[Core], object], core: Core) -> object:
    answer = operation(core)
    if isinstance(answer, Awaitable):
        return answer.__await__().send(None)  # type: ignore[attr-defined]
    return answer


@pytest.mark.parametrize("run", [in_trio, in_asyncio, in_no_loop])
async def test_every_operation_from_another_thread_is_refused_and_has_no_effect(
    tmp_path: Path, run: Any
) -> None:
    core = await started(tmp_path)
    found = await trio.to_thread.run_sync(those_not_refused, core, OPERATIONS | STOPS, run)
    assert found == {}
    # Its own loop goes on, and nothing was changed.
    await commit(core)
    assert core.db.get("a") == b"1"
    assert await core.manager.verify_token(core.token)
    assert len(bytes(core.key)) == 32
    await core.manager.reset_key()
    await stop(core)


@pytest.mark.parametrize("run", [in_trio, in_asyncio, in_no_loop])
@pytest.mark.parametrize("is_in_its_thread", [True, False])
def test_once_its_loop_has_ended_every_operation_is_refused_and_stopping_works(
    tmp_path: Path,
    run: Any,
    is_in_its_thread: bool,
    caplog: pytest.LogCaptureFixture,
    open_descriptors: Callable[[], set[str]],
) -> None:
    before = open_descriptors()
    core = trio.run(started, tmp_path)
    operations = {name: does for name, does in OPERATIONS.items() if name not in OUTLIVING}
    if is_in_its_thread:
        found = those_not_refused(core, operations, run)
    else:
        answers: list[dict[str, str]] = []
        thread = threading.Thread(target=lambda: answers.append(those_not_refused(core, operations, run)))
        thread.start()
        thread.join()
        (found,) = answers
    assert found == {}
    trio.run(stop, core)
    assert [part.state for part in core[:3]] == [State.STOPPED] * 3
    assert open_descriptors() == before
    assert committing_threads() == []

    async def used_again() -> None:
        await core.key_ring.start()
        await core.db.start()
        await core.manager.start()
        assert core.db.get("a") == b"1"
        assert await core.manager.verify_token(core.token)
        await stop(core)

    trio.run(used_again)


async def test_a_stopped_object_can_start_on_any_loop(tmp_path: Path) -> None:
    core = await started(tmp_path)
    await stop(core)

    async def elsewhere() -> None:
        await core.key_ring.start()
        await core.db.start()
        assert core.db.get("a") == b"1"
        await core.db.stop()
        await core.key_ring.stop()

    await trio.to_thread.run_sync(trio.run, elsewhere)
    await core.key_ring.start()
    assert core.key_ring.state is State.RUNNING
    await core.key_ring.stop()


async def test_a_start_under_way_on_one_loop_is_not_waited_for_on_another(tmp_path: Path) -> None:
    key_ring = KeyRing(tmp_path / "keys")
    loading, goes_on = threading.Event(), threading.Event()
    load = key_ring._load

    def slowly(*arguments: Any) -> None:
        loading.set()
        assert goes_on.wait(60)
        load(*arguments)

    key_ring._load = slowly  # type: ignore[method-assign]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(key_ring.start)
        await trio.to_thread.run_sync(loading.wait)
        for change in (key_ring.start, key_ring.stop):
            with pytest.raises(WrongLoopError):
                await trio.to_thread.run_sync(trio.run, change)
        goes_on.set()
    assert key_ring.state is State.RUNNING
    await key_ring.stop()


def test_a_store_that_grows_after_its_loop_has_ended_loses_no_data(tmp_path: Path) -> None:
    async def main() -> DB:
        key_ring = await KeyRing.create_key_ring(keys_path=tmp_path / "keys")
        db = DB(tmp_path / "store", key_ring, map_bytes=256 * 1024)
        await db.start()
        held.append(await hold_commits(db))
        for number in range(64):
            db.submit(lambda view, number=number: view.put(f"{number}", bytes(16 * 1024)))  # type: ignore[misc]
        return db

    held: list[threading.Event] = []
    db = trio.run(main)
    held[0].set()
    trio.run(db.stop)

    async def again() -> int:
        await db.start()
        try:
            return db.count()
        finally:
            await db.stop()

    assert trio.run(again) == 64


def test_a_loop_knows_that_it_has_ended() -> None:
    async def main() -> EventLoop:
        loop = EventLoop.here()
        assert EventLoop.here() is loop
        assert not loop.has_ended
        return loop

    first, second = trio.run(main), trio.run(main)
    assert first is not second
    assert first.has_ended
    assert second.has_ended
