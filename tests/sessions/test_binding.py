"""The watch of a bound session's process ends with the session, however that ends."""

from __future__ import annotations

import os

import pytest
import trio

from agentd.process_identity import identify
from agentd.sessions import binding
from agentd.sessions.records import BOUND_PATH
from agentd_client import PeerIdentity
from agentd_client.errors import CannotBindError

ME = PeerIdentity(os.geteuid(), os.getpid())
ROOM = 3


@pytest.fixture
async def running(manager, monkeypatch):
    """The manager with its standing tasks, and room for few watched processes."""
    monkeypatch.setattr(binding, "MAX_WATCHED", ROOM)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(manager.run)
        await trio.testing.wait_all_tasks_blocked()
        yield manager
        nursery.cancel_scope.cancel()


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
async def test_a_session_that_ended_takes_no_room_from_those_that_are_opened_later(running, clock, end):
    for _ in range(3 * ROOM):
        parent = await running.open_session()
        session = await opened(running, parent=parent.token)
        await end(running, clock, session, parent)
        assert not await running.verify_token(session.token)
    descriptors = len(running._binder._watch)
    assert descriptors <= ROOM


async def test_a_session_is_bound_to_the_process_that_connected_and_to_no_other_with_its_pid(running):
    me = identify(os.getpid())
    assert me is not None
    await opened(running, process=me)
    for other in (me._replace(started=me.started - 1), me._replace(started=None), me._replace(serial=1)):
        with pytest.raises(CannotBindError, match="ended"):
            await opened(running, process=other)
    assert running.session_count == len(running._binder._watch) == 1


async def test_sessions_that_go_on_keep_their_room(running):
    sessions = [await opened(running) for _ in range(ROOM)]
    with pytest.raises(CannotBindError, match=f"watches {ROOM} processes"):
        await opened(running)
    assert all([await running.verify_token(session.token) for session in sessions])
    assert len(running._binder._watch) == ROOM


async def test_one_that_is_on_its_way_to_the_disk_is_not_forgotten(db, running, monkeypatch):
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
        found.append(len(running._binder._watch))

    async with trio.open_nursery() as nursery:
        monkeypatch.setattr(db, "write", write_and_look)
        await opened(running)
    assert found == [1]


async def test_what_was_seen_expired_for_want_of_room_stays_so(running, clock):
    sessions = [await opened(running) for _ in range(ROOM)]
    clock.advance(100)
    await opened(running)
    clock.set_wall(clock.wall - 1000)
    clock.reboot()
    assert not any([await running.verify_token(session.token) for session in sessions])


async def test_sweeping_takes_the_notes_and_the_watches_along(db, running, clock):
    for way in (revoked, ended_with_its_parent, expired):
        parent = await running.open_session()
        await way(running, clock, await opened(running, parent=parent.token), parent)
    await running._sweep()
    assert list(db.iterate(BOUND_PATH)) == []
    assert len(running._binder._watch) == 0


async def test_a_process_outside_of_the_agents_pid_namespace_is_not_said_to_have_ended(running):
    outside = identify(os.getpid())._replace(pid=0, started=None)
    with pytest.raises(CannotBindError, match="outside of the agent's PID namespace") as refused:
        await opened(running, process=outside)
    assert "has ended" not in refused.value.sentence
