from __future__ import annotations

import pytest
import trio

from agentd.sessions import listing, upkeep
from agentd.sessions.records import SESSIONS_PATH
from agentd_client.errors import KeyUnavailableError, StoreFullError
from agentd_client.lifecycle import State


async def test_sweeping_deletes_what_has_ended_and_nothing_else(db, manager, clock, monkeypatch):
    monkeypatch.setattr(listing, "STEP_RECORDS", 4)
    of_old_key = [await manager.create_token() for _ in range(9)]
    await manager.reset_key()
    expiring = [await manager.create_token(5) for _ in range(9)]
    lasting = [await manager.create_token(500) for _ in range(9)]
    clock.advance(10)
    assert await manager.sweep() == 18
    assert await manager.sweep() == 0
    assert len(list(db.iterate(SESSIONS_PATH))) == manager.session_count == 9
    assert all([await manager.verify_token(token) for token in lasting])
    assert not any([await manager.verify_token(token) for token in expiring + of_old_key])


async def test_the_count_is_of_the_current_key_as_soon_as_it_is_reset(manager):
    for _ in range(5):
        await manager.create_token()
    assert manager.session_count == 5
    await manager.reset_key()
    assert manager.session_count == 0
    await manager.create_token()
    assert manager.session_count == 1


async def test_run_sweeps_at_intervals_across_stop_and_start(db, manager, clock, autojump_clock):
    await manager.create_token(5)
    clock.advance(10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: manager.run(sweep_interval_seconds=60))
        await trio.sleep(30)
        assert manager.session_count == 1
        await manager.stop()
        await trio.sleep(60)
        await manager.start()
        await trio.sleep(60)
        await db.delete("nothing")  # the writer is serial, so the sweep's writes are done
        assert manager.session_count == 0
        nursery.cancel_scope.cancel()


def refuse_what_is_written(db, monkeypatch):
    async def refuse(function, **options):
        raise StoreFullError

    monkeypatch.setattr(db, "write", refuse)


async def test_a_full_store_is_swept_at_once_when_a_session_is_refused(
    db, manager, clock, autojump_clock, monkeypatch
):
    await manager.create_token(5)
    clock.advance(10)
    with monkeypatch.context() as patched:
        refuse_what_is_written(db, patched)
        with pytest.raises(StoreFullError):
            await manager.create_token()
    with trio.move_on_after(0.5):
        await manager.run(sweep_interval_seconds=600)
    await db.delete("nothing")
    assert manager.session_count == 0


async def test_sweeping_takes_at_most_a_tenth_of_the_time(db, manager, autojump_clock, monkeypatch):
    sweeps = []

    async def sweep_slowly(sweeper):
        sweeps.append(trio.current_time())
        await trio.sleep(3)
        return 0

    monkeypatch.setattr(upkeep.Upkeep, "_sweep", sweep_slowly)
    refuse_what_is_written(db, monkeypatch)

    async def ask():
        while True:
            with pytest.raises(StoreFullError):
                await manager.create_token()
            await trio.sleep(1)

    with trio.move_on_after(100):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: manager.run(sweep_interval_seconds=600))
            nursery.start_soon(ask)
    begun = [round(at - sweeps[0]) for at in sweeps]
    assert begun == [0, 33, 66, 99]


async def test_run_goes_on_when_a_sweep_fails(db, manager, clock, autojump_clock, monkeypatch, caplog):
    async def fail(*args, **options):
        raise StoreFullError

    await manager.create_token(5)
    clock.advance(10)
    with monkeypatch.context() as patched:
        patched.setattr(db, "write", fail)
        with trio.move_on_after(90):
            await manager.run(sweep_interval_seconds=60)
    assert "sweeping or writing postponed" in caplog.text
    with trio.move_on_after(90):
        await manager.run(sweep_interval_seconds=60)
    await db.delete("nothing")
    assert manager.session_count == 0


@pytest.mark.parametrize("delete", ["sweep", "stop"])
async def test_known_expired_sessions_are_deleted_by_a_sweep_or_stop(db, manager, clock, delete):
    token = await manager.create_token(5)
    clock.advance(10)
    assert not await manager.verify_token(token)
    clock.set_wall(clock.wall - 10)
    clock.reboot()  # only what was seen tells that it has expired
    await getattr(manager, delete)()
    assert list(db.iterate(SESSIONS_PATH)) == []
    assert manager._verifier.known_expired == set(), "nothing is remembered that cannot come back"
    await manager.start()


async def test_a_session_opened_between_finding_and_deleting_stays(db, manager, monkeypatch):
    await manager.create_token()
    await manager.reset_key()  # so that there is something to sweep
    created = []
    iterate = db.iterate

    def look_while_others_write(*args, **kwargs):
        found = iterate(*args, **kwargs)
        return found + created

    token = await manager.create_token()
    created += [entry for entry in iterate("sessions") if entry[0][1] == manager.key_id.encode()]
    monkeypatch.setattr(db, "iterate", look_while_others_write)
    with monkeypatch.context() as patched:
        patched.setattr(upkeep, "accepted_key_ids", stale_then_true(upkeep.accepted_key_ids))
        await manager.sweep()
    assert await manager.verify_token(token), "the transaction that deletes checks again"


def stale_then_true(accepted_key_ids):
    """The first call returns the replaced key, the call inside the transaction the current one."""
    looks = []

    def look(view, now):
        looks.append(view)
        return ["the key of before"] if len(looks) == 1 else accepted_key_ids(view, now)

    return look


async def test_stopping_wipes_the_key_though_the_store_has_failed(db, manager, clock, monkeypatch, caplog):
    key = await manager.setup_key()
    token = await manager.create_token(5)
    clock.advance(10)
    assert not await manager.verify_token(token)
    await db.stop()
    await manager.stop()
    assert manager.state is State.STOPPED
    with pytest.raises(KeyUnavailableError):
        bytes(key)
    assert "were not written" in caplog.text
    await db.start()


async def test_run_survives_a_stopped_store(db, manager, autojump_clock):
    await db.stop()
    with trio.move_on_after(90):
        await manager.run(sweep_interval_seconds=60)
    await db.start()


async def test_no_key_comes_back_into_memory_after_the_stop(db, manager, monkeypatch):
    write = db.write

    async def write_then_stop(change, **more):
        answer = await write(change, **more)
        await manager.stop()
        return answer

    monkeypatch.setattr(db, "write", write_then_stop)
    assert await manager.reset_key(), "it was committed, so it is answered"
    assert manager._keys._keys == {}


async def test_a_start_that_fails_leaves_no_key_in_memory(db, manager, monkeypatch):
    await manager.stop()

    async def fail(*_, **__):
        raise StoreFullError

    with monkeypatch.context() as patched:
        patched.setattr(db, "write", fail)
        with pytest.raises(StoreFullError):
            await manager.start()
    assert not manager._keys._is_open
    await manager.start()
