"""A bound session's process is no longer watched once the session has ended, in whatever way."""

from __future__ import annotations

import os
from contextlib import suppress

import pytest
import trio

from agentd import process_watch
from agentd.process_identity import identify
from agentd.sessions.records import BOUND_PATH
from agentd_client import PeerIdentity
from agentd_client.errors import CannotBindError, StoreFullError

ME = PeerIdentity(os.geteuid(), os.getpid())
ROOM = 3


@pytest.fixture
async def running(manager, monkeypatch):
    """The manager with its standing tasks, and room for few watched processes."""
    monkeypatch.setattr(process_watch, "MAX_WATCHED", ROOM)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(manager.run)
        await trio.testing.wait_all_tasks_blocked()
        yield manager
        nursery.cancel_scope.cancel()


def watched() -> int:
    """How many processes are watched: the pidfds that this process has open."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # that of the listing itself
            count += "pidfd" in os.readlink(f"/proc/self/fd/{name}")
    return count


async def opened(manager, **more):
    return await manager.open_session(60, opened_by=ME, bound=True, **more)


async def revoked(manager, clock, session, parent):
    await manager.revoke_token(session.token)


async def revoked_by_condition(manager, clock, session, parent):
    await manager.revoke_sessions(parent=parent.id)


async def ended_with_its_parent(manager, clock, session, parent):
    await manager.revoke_token(parent.token)


async def expired(manager, clock, session, parent):
    clock.advance(100)


async def reset(manager, clock, session, parent):
    await manager.reset_key()


WAYS = [revoked, revoked_by_condition, ended_with_its_parent, expired, reset]


@pytest.mark.parametrize("end", WAYS, ids=lambda way: way.__name__)
async def test_a_session_that_ended_gives_up_its_watch(running, clock, end):
    for _ in range(3 * ROOM):
        parent = await running.open_session()
        session = await opened(running, parent=parent.token)
        await end(running, clock, session, parent)
        assert not await running.verify_token(session.token)
    assert watched() <= ROOM


async def test_a_session_is_bound_to_the_process_that_connected_not_to_its_pid(running):
    me = identify(os.getpid())
    assert me is not None
    await opened(running, process=me)
    for other in (me._replace(started=me.started - 1), me._replace(started=None), me._replace(serial=1)):
        with pytest.raises(CannotBindError, match="ended"):
            await opened(running, process=other)
    assert running.session_count == watched() == 1


async def test_live_sessions_keep_their_watch(running):
    sessions = [await opened(running) for _ in range(ROOM)]
    with pytest.raises(CannotBindError, match=f"watches {ROOM} processes"):
        await opened(running)
    assert all([await running.verify_token(session.token) for session in sessions])
    assert watched() == ROOM


async def test_a_session_being_written_keeps_its_watch(db, running, monkeypatch):
    write = db.write
    found = []

    async def write_and_look(function, **options):
        def carried_out(view):
            monkeypatch.undo()
            nursery.start_soon(look)
            return function(view)

        return await write(carried_out, **options)

    async def look():
        await running._binder.forget_ended()
        found.append(watched())

    async with trio.open_nursery() as nursery:
        monkeypatch.setattr(db, "write", write_and_look)
        await opened(running)
    assert found == [1]


async def test_a_session_that_could_not_be_stored_is_not_watched(db, running, monkeypatch):
    async def refuse(function, **options):
        raise StoreFullError

    monkeypatch.setattr(db, "write", refuse)
    with pytest.raises(StoreFullError):
        await opened(running)
    assert watched() == 0


async def test_a_session_found_expired_when_making_room_stays_expired(running, clock):
    sessions = [await opened(running) for _ in range(ROOM)]
    clock.advance(100)
    await opened(running)
    clock.set_wall(clock.wall - 1000)
    clock.reboot()
    assert not any([await running.verify_token(session.token) for session in sessions])


async def test_sweeping_removes_markers_and_watches(db, running, clock):
    for way in (revoked, ended_with_its_parent, expired):
        parent = await running.open_session()
        await way(running, clock, await opened(running, parent=parent.token), parent)
    await running.sweep()
    assert list(db.iterate(BOUND_PATH)) == []
    assert watched() == 0


async def test_the_error_names_a_process_outside_the_agents_pid_namespace(running):
    outside = identify(os.getpid())._replace(pid=0, started=None)
    with pytest.raises(CannotBindError, match="outside of the agent's PID namespace") as refused:
        await opened(running, process=outside)
    assert "has ended" not in refused.value.sentence
