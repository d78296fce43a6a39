"""Events, the audit log and bound sessions, as the session manager combines them."""

from __future__ import annotations

import os
import subprocess

import pytest
import trio

from agentd.sessions import SessionManager
from agentd.sessions.records import BOUND_PATH
from agentd_client import PeerIdentity
from agentd_client.errors import CannotBindError, StoreFullError

ME = PeerIdentity(os.geteuid(), os.getpid(), "/usr/bin/me", "me.service")


@pytest.fixture
def events(manager):
    heard = []
    manager.on_event(heard.append)
    return heard


def child_process(*command):
    return subprocess.Popen(command, stdin=subprocess.PIPE)


def kinds(events):
    return [(event.kind, event.session_id, event.reason) for event in events]


async def test_events_are_published_once_durable(db, manager, clock, events):
    created = await manager.open_session(60, "mine", ME)
    await manager.renew_token(created.token, by=ME)
    manager.verify_nowait("nonsense", by=ME)
    await manager.revoke_token(created.token, by=ME)
    expiring = await manager.open_session(5, opened_by=ME)
    clock.advance(10)
    manager.verify_nowait(expiring.token, by=ME)
    manager.verify_nowait(expiring.token, by=ME)
    await manager.reset_key(by=ME)
    assert kinds(events) == [
        ("created", created.id, None),
        ("renewed", created.id, None),
        ("refused", None, "MALFORMED"),
        ("revoked", created.id, None),
        ("created", expiring.id, None),
        ("expired", expiring.id, None),
        ("refused", expiring.id, "EXPIRED"),
        ("refused", expiring.id, "EXPIRED"),
        ("keyReset", None, None),
    ]
    assert events[0].label == "mine"
    assert {event.peer_pid for event in events} == {ME.pid, None}, "an expiry has no peer"


async def test_a_failing_or_leaving_subscriber_does_not_affect_others(manager, events, caplog):
    def fail(event):
        raise RuntimeError("no")

    leave = manager.on_event(fail)
    await manager.create_token()
    leave()
    leave()
    await manager.create_token()
    assert len(events) == 2
    assert caplog.text.count("a subscriber failed") == 1


async def test_a_failed_operation_publishes_nothing(db, manager, events, monkeypatch):
    async def full(function):
        raise StoreFullError

    monkeypatch.setattr(db, "write", full)
    with pytest.raises(StoreFullError):
        await manager.open_session()
    assert events == []
    assert (await manager.list_audit()).entries == []


async def test_the_audit_log_survives_fresh(manager, clock):
    created = await manager.open_session(60, "mine", ME)
    await manager.renew_token(created.token, by=ME)
    for _ in range(5):
        manager.verify_nowait("nonsense", by=ME)
    await manager.revoke_token(id=created.id, by=ME)
    await manager.reset_key(by=ME)
    await manager.stop()
    await manager.start(fresh=True)
    entries = (await manager.list_audit()).entries
    assert [entry.kind for entry in entries] == ["keyReset", "revoked", "refused", "renewed", "created"]
    assert [entry.times for entry in entries] == [1, 1, 5, 1, 1]
    assert entries[-1][2:10] == ("created", created.id, "mine", None, ME.uid, ME.pid, ME.exe, 1)
    assert created.token not in repr(entries)


async def test_entries_keep_their_order_across_a_start_with_the_clock_set_back(db, key_ring, manager, clock):
    await manager.open_session(label="first")
    clock.set_wall(clock.wall - 3600)
    async with await SessionManager.create_session_manager(db=db, key_ring=key_ring, clock=clock) as other:
        await other.open_session(label="second")
        assert [entry.label for entry in (await other.list_audit()).entries] == ["second", "first"]


async def test_an_entry_is_in_the_transaction_of_what_it_tells_of(db, manager):
    ending = await manager.open_session()
    events = []
    manager.on_event(events.append)
    before = (await manager.list_audit()).entries

    async def change_everything(tran):
        await manager.open_session(tran=tran)
        assert await manager.revoke_token(id=ending.id, tran=tran)
        await manager.reset_key(tran)

    with pytest.raises(RuntimeError, match="never mind"):
        async with db.transaction() as tran:
            await change_everything(tran)
            raise RuntimeError("never mind")
    assert (await manager.list_audit()).entries == before
    async with db.transaction() as tran:
        await change_everything(tran)
        assert (await manager.list_audit()).entries == before
    kinds = [entry.kind for entry in (await manager.list_audit()).entries]
    assert kinds == ["keyReset", "revoked", "created", "created"]
    assert events == []


async def test_destroy_leaves_the_audit_log(db, key_ring, clock, manager):
    await manager.open_session(opened_by=ME)
    await manager.stop()
    await manager.destroy()
    async with await SessionManager.create_session_manager(db=db, key_ring=key_ring, clock=clock) as other:
        assert [entry.kind for entry in (await other.list_audit()).entries] == ["created"]


async def test_revoking_succeeds_without_room_for_its_entry(db, manager, monkeypatch, caplog):
    """If the store has no room for the entry, the session still ends and the log says what is missing."""
    created = await manager.open_session()
    write = db.write
    write_entry = manager._journal.write

    async def write_without_room(function, *, reserved=False, on_durable=None):
        entries = []
        note = lambda *args, **named: entries.append(1) or write_entry(*args, **named)  # noqa: E731
        monkeypatch.setattr(manager._journal, "write", note)

        def refuse_entries(view):
            result = function(view)
            if entries:
                raise StoreFullError
            return result

        return await write(refuse_entries, reserved=reserved, on_durable=on_durable)

    monkeypatch.setattr(db, "write", write_without_room)
    assert await manager.revoke_token(created.token)
    key_id = manager.key_id
    assert await manager.reset_key() != key_id
    assert not await manager.verify_token(created.token)
    assert caplog.text.count("missing from the audit log") == 2


async def test_a_session_ends_with_its_process(manager, events):
    process = child_process("cat")
    ended = trio.Event()
    manager.on_event(lambda event: event.kind == "revoked" and ended.set())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(manager.run)
        await trio.testing.wait_all_tasks_blocked()
        by = PeerIdentity(os.geteuid(), process.pid)
        bound = await manager.open_session(opened_by=by, bound=True)
        child = await manager.open_session(parent=bound.token)
        assert manager.inspect(bound.token).session.bound_pid == process.pid
        assert await manager.verify_token(child.token)
        process.kill()
        with trio.fail_after(10):
            await ended.wait()
        assert not await manager.verify_token(bound.token)
        assert not await manager.verify_token(child.token)
        assert ("revoked", bound.id, "PROCESS_ENDED") in kinds(events)
        nursery.cancel_scope.cancel()
    process.wait()
    process.stdin.close()


async def test_a_start_binds_live_processes_again_and_ends_other_sessions(db, manager):
    lives, dies = [child_process("cat") for _ in range(2)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(manager.run)
        await trio.testing.wait_all_tasks_blocked()
        of_living, of_dying = [
            await manager.open_session(opened_by=PeerIdentity(os.geteuid(), process.pid), bound=True)
            for process in (lives, dies)
        ]
        nursery.cancel_scope.cancel()
    await manager.stop()
    dies.kill()
    dies.wait()
    await manager.start()
    assert await manager.verify_token(of_living.token)
    assert not await manager.verify_token(of_dying.token)
    assert len(list(db.iterate(BOUND_PATH))) == 1
    ended = trio.Event()
    manager.on_event(lambda event: ended.set())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(manager.run)
        lives.kill()
        with trio.fail_after(10):
            await ended.wait()
        nursery.cancel_scope.cancel()
    assert not await manager.verify_token(of_living.token)
    lives.wait()
    for process in (lives, dies):
        process.stdin.close()


async def test_a_session_of_another_boot_or_another_process_of_that_pid_is_ended(db, manager):
    from msgspec.structs import replace

    from agentd.sessions.records import SessionRecord, bound_path, session_path

    for change in ({"bound_boot_id": "another"}, {"bound_started": 1}):
        created = await manager.open_session(opened_by=ME)
        path = session_path(manager.key_id, created.id)
        from agentd.process_identity import identify

        me = identify(os.getpid())
        record = replace(
            SessionRecord.decode(db.get(path)),
            bound_pid=me.pid,
            **({"bound_started": me.started, "bound_boot_id": me.boot_id} | change),
        )
        await db.put(path, record.encode())
        await db.put(bound_path(path), b"")
        await manager.stop()
        await manager.start()
        assert not await manager.verify_token(created.token)


async def test_nothing_is_bound_while_the_standing_tasks_do_not_run(manager):
    with pytest.raises(CannotBindError, match="standing tasks"):
        await manager.open_session(opened_by=ME, bound=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(manager.run)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(CannotBindError, match="no process"):
            await manager.open_session(bound=True)
        gone = child_process("true")
        gone.wait()
        gone.stdin.close()
        with pytest.raises(CannotBindError, match="ended"):
            await manager.open_session(opened_by=PeerIdentity(os.geteuid(), gone.pid), bound=True)
        nursery.cancel_scope.cancel()
    assert manager.session_count == 0


async def test_a_process_that_ends_while_its_session_is_being_written_ends_it(db, manager, monkeypatch):
    write = db.write
    process = child_process("cat")
    ended = trio.Event()
    manager.on_event(lambda event: event.kind == "revoked" and ended.set())

    async def write_then_end(function, **options):
        def carried_out(view):
            answer = function(view)
            process.kill()
            process.wait()
            return answer

        return await write(carried_out, **options)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(manager.run)
        await trio.testing.wait_all_tasks_blocked()
        monkeypatch.setattr(db, "write", write_then_end)
        by = PeerIdentity(os.geteuid(), process.pid)
        bound = await manager.open_session(opened_by=by, bound=True)
        with trio.fail_after(10):
            await ended.wait()
        assert not await manager.verify_token(bound.token)
        nursery.cancel_scope.cancel()
    process.stdin.close()


async def test_a_bound_session_whose_creation_was_cancelled_is_still_watched(db, manager):
    process = child_process("cat")
    ended = trio.Event()
    manager.on_event(lambda event: event.kind == "revoked" and ended.set())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(manager.run)
        await trio.testing.wait_all_tasks_blocked()
        with trio.CancelScope() as given_up:
            write = db.write

            async def write_and_give_up(function, **options):
                def carried_out(view):
                    given_up.cancel()
                    return function(view)

                return await write(carried_out, **options)

            db.write = write_and_give_up
            await manager.open_session(opened_by=PeerIdentity(os.geteuid(), process.pid), bound=True)
        assert given_up.cancelled_caught
        await db.delete("nothing")
        assert manager.session_count == 1
        process.kill()
        with trio.fail_after(10):
            await ended.wait()
        assert manager.session_count == 0
        nursery.cancel_scope.cancel()
    process.wait()
    process.stdin.close()
